"""Weights of the data: what examples count as copies of them would, against plain loops and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from sklearn.metrics import accuracy_score, f1_score, log_loss

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key
from tests.support.plain import SEED, cross_entropy
from tests.support.programs import blobs, classifier

STEPS = 4
ONE = hpx.Space(rate=0.5)
RNG = np.random.default_rng(0)


def one(objective=hpx.minimize("valid/loss"), **arguments):
    made = {"model": nn.Dense(3), "optimizer": lambda h: optax.sgd(h.rate), "loss": cross_entropy, "steps": STEPS}
    return hpx.Sweep(hpx.supervised(**made | arguments), ONE, 1, seed=SEED, objective=objective).run(progress=False)[0]


def logits(trial, x):
    params = trial.restore()["params"]
    return np.asarray(x @ params["kernel"] + params["bias"], np.float64)


def counted_examples():
    """Numbers of copies of examples, of which some are 0, in place of weights."""
    x, y = RNG.normal(size=(40, 4)).astype(np.float32), RNG.integers(0, 3, 40)
    return x, y, RNG.integers(0, 4, 40)


def as_copies(x, y, counts):
    """What descent on all copies gives: the parameters, and the losses of the steps."""
    copies = np.repeat(np.arange(40), counts)
    params = nn.Dense(3).init(purpose_key(lane_key(SEED, 0), "init"), jnp.zeros((1, 4)))["params"]
    mean = lambda p: cross_entropy(nn.Dense(3).apply({"params": p}, x[copies]), y[copies]).mean()
    losses = []
    for _ in range(STEPS):
        loss, gradient = jax.value_and_grad(mean)(params)
        losses.append(float(loss))
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
    return params, losses


def turned(key, batch, h):
    """The examples of a batch with their weights, the last one first."""
    return jax.tree.map(lambda a: a[::-1], batch)


@pytest.mark.parametrize(
    "arguments", [{}, {"microbatch": 8, "train_metrics_every": 2, "augment": turned}], ids=["whole", "microbatches"]
)
def test_weights_of_the_data_count_as_copies_of_its_examples(arguments):
    x, y, counts = counted_examples()
    valid = (x, y, counts.astype(float))
    sets = {"weighted": valid, "equal": (x, y)}
    data = hpx.data.from_arrays(*valid[:2], weights=counts, valid=sets, test=valid)
    trial = one(
        data=data,
        batch_size=40,
        metrics={"accuracy": hpx.metrics.accuracy},
        split_metrics={"f1": hpx.metrics.f1},
        eval_batch_size=7,
        objective=hpx.minimize("valid/equal/loss"),
        **arguments,
    )
    params, losses = as_copies(x, y, counts)
    np.testing.assert_allclose(trial.restore()["params"]["kernel"], params["kernel"], rtol=1e-4, atol=1e-6)
    assert trial.metrics["train/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    outputs = logits(trial, x)
    p, found = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True), outputs.argmax(-1)
    for name, weight in (("weighted", counts), ("equal", np.ones(40))):
        loss = log_loss(y, p, sample_weight=weight, labels=range(3))
        assert trial.metrics[f"valid/{name}/loss"] == pytest.approx(loss, rel=1e-5)
        accuracy = accuracy_score(y, found, sample_weight=weight)
        assert trial.metrics[f"valid/{name}/accuracy"] == pytest.approx(accuracy, rel=1e-5)
        macro = f1_score(y, found, average="macro", sample_weight=weight)
        assert trial.metrics[f"valid/{name}/f1"] == pytest.approx(macro, rel=1e-5)


def test_batches_of_a_stream_bring_their_weights():
    """And keep them, where an augmentation leaves them out."""
    as_examples = lambda key, batch, h: hpx.data.Examples(batch.x, batch.y)
    x, y, counts = counted_examples()
    batch = (x, y, counts.astype(float))
    trial = one(data=hpx.data.stream(lambda: [batch], valid=batch), augment=as_examples)
    params, losses = as_copies(x, y, counts)
    np.testing.assert_allclose(trial.restore()["params"]["kernel"], params["kernel"], rtol=1e-4, atol=1e-6)
    assert trial.metrics["train/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    outputs = logits(trial, x)
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    expected = log_loss(y, p, sample_weight=counts, labels=range(3))
    assert trial.metrics["valid/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(60,), (60, 5)], ids=["examples", "tokens"])
def test_weights_of_the_data_are_multiplied_with_the_others(shape):
    x, y = RNG.normal(size=(60, 5, 4)).astype(np.float32), RNG.integers(-1, 3, (60, 5))
    given = RNG.uniform(0, 2, shape).astype(np.float32)
    valid = (x[40:], y[40:], given[40:])
    data = hpx.data.from_arrays(x[:40], y[:40], weights=given[:40], valid=valid, test=valid)
    own = lambda x: 1 + (x[..., 0] > 0)
    trial = one(
        data=data, batch_size=16, ignore_label=-1, weights=own, split_metrics={"f1": hpx.metrics.f1}, eval_batch_size=7
    )
    outputs, counted = logits(trial, data.valid.x), data.valid.y >= 0
    w = (own(data.valid.x) * given[40:].reshape(20, -1))[counted]
    p = np.exp(outputs[counted])
    p /= p.sum(-1, keepdims=True)
    y = data.valid.y[counted]
    assert trial.metrics["valid/loss"] == pytest.approx(log_loss(y, p, sample_weight=w, labels=range(3)), rel=1e-5)
    macro = f1_score(y, p.argmax(-1), average="macro", sample_weight=w)
    assert trial.metrics["valid/f1"] == pytest.approx(macro, rel=1e-5)


def test_folds_are_weighted_by_the_weights_of_their_examples():
    x, y, counts = counted_examples()
    data = hpx.data.from_arrays(x[:30], y[:30], weights=counts[:30], valid=(x[30:], y[30:], counts[30:]), test=0.2)
    arguments = {"model": nn.Dense(3), "optimizer": optax.sgd(0.1), "loss": cross_entropy, "batch_size": 8, "steps": 1}
    program = hpx.supervised(data=data, metrics={"accuracy": hpx.metrics.accuracy}, eval_batch_size=3, **arguments)
    result = hpx.Sweep(program, hpx.Space(rate=0.5), 1, folds=5).run(progress=False)
    pool = hpx.data.pool(data)
    for fold, rows in enumerate(np.array_split(np.arange(len(pool.x)), 5)):
        params = result[0].restore(fold)["params"]
        found = (pool.x[rows] @ params["kernel"] + params["bias"]).argmax(-1)
        expected = accuracy_score(pool.y[rows], found, sample_weight=pool.weights[rows])
        assert result.last("valid/accuracy")[0, fold] == pytest.approx(expected, rel=1e-6)
    without = hpx.Data(data.train, hpx.data.Examples(data.valid.x, data.valid.y))
    with pytest.raises(hpx.InputError, match=r"data.valid = 'Examples': must be one set like data.train, WeightedEx"):
        hpx.Sweep(hpx.supervised(data=without, **arguments), hpx.Space(rate=0.5), 1, folds=5).plan()


def test_weights_that_cannot_be_are_told():
    space, data, made = hpx.Space(learning_rate=0.1, momentum=0.9), blobs(), hpx.data.WeightedExamples
    weighted = hpx.Data(*(made(*split, np.ones(len(split.y))) for split in (data.train, data.valid)))
    fewer = lambda key, batch, h: hpx.data.Examples(batch.x[:8], batch.y[:8])
    for own, augment, message in (
        (weighted, fewer, "supervised.augment gives 8 examples of 16, and no weights"),
        (data, lambda key, batch, h: made(*batch, jnp.ones(16)), "supervised.augment gives weights, and the data has"),
    ):
        with pytest.raises(hpx.ProgramError, match=message):
            hpx.Sweep(classifier(data=own, augment=augment), space, 1).plan()
    with pytest.raises(hpx.InputError, match="compares means of equal weights"):
        classifier(data=weighted, monitor=["gradient_noise"], microbatch=4)
    unlike = hpx.Data(made(*data.train, np.ones((len(data.train.y), 2))), data.valid)
    with pytest.raises(hpx.ProgramError, match=r"loss gives values \[16\], and the weights of the data are \[16, 2\]"):
        hpx.Sweep(classifier(data=unlike), space, 1).plan()


def test_artifacts_of_weighted_data_get_plain_inputs_and_targets():
    split = hpx.data.WeightedExamples(*blobs().train, np.ones(54))
    artifacts = lambda x, y, outputs: {"right": (outputs.argmax(-1) == y) * x[:, 0]}
    program = classifier(data=hpx.Data(split, split), artifacts=artifacts)
    hints = hpx.Sweep(program, hpx.Space(learning_rate=0.1, momentum=0.9), 1).plan().hints
    assert not [hint for hint in hints if "artifacts" in hint]
