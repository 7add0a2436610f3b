"""Weighted means and labels that are ignored, against NumPy and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key
from tests.support.plain import SEED, cross_entropy, drawn
from tests.support.programs import blobs, classifier

BATCH, STEPS = 16, 4
# A batch of 16 and one of 20 are microbatches of 5, with and without a short one at the end.
SPACE = hpx.Space(rate=0.5, size=hpx.Choice(16, 20))
RNG = np.random.default_rng(0)


def tokens(ignored):
    """Labels of five tokens, of which the last ones of each row are padding."""
    x = RNG.normal(size=(60, 5, 4)).astype(np.float32)
    y = np.array(RNG.integers(0, 3, (60, 5)))
    lengths = RNG.integers(1, 6, 60)
    y[np.arange(5) >= lengths[:, None]] = ignored
    return hpx.data.from_arrays(x[:40], y[:40], valid=(x[40:], y[40:]), test=(x[40:], y[40:]))


def one(**arguments):
    made = {
        "model": nn.Dense(3),
        "optimizer": lambda h: optax.sgd(h.rate),
        "loss": cross_entropy,
        "batch_size": lambda h: h.size,
        "steps": STEPS,
        "eval_every": None,
    } | arguments
    return hpx.Sweep(hpx.supervised(**made), SPACE, sampler=hpx.Grid(), seed=SEED, width=2).run(progress=False)[0]


def logits(trial, x):
    params = trial.restore()["params"]
    return np.asarray(x @ params["kernel"] + params["bias"], np.float64)


def plain_loop(data, mean, penalty=lambda params: 0.0):
    """Gradient descent on ``mean(outputs, x, y)`` of each batch: the parameters, and the losses of the batches."""
    params = nn.Dense(3).init(purpose_key(lane_key(SEED, 0), "init"), jnp.zeros((1, *data.train.x.shape[1:])))["params"]
    index, losses = drawn(0, len(data.train.x), BATCH, STEPS)[0], []
    for t in range(STEPS):
        x, y = data.train.x[index[t]], data.train.y[index[t]]
        loss = lambda p, x=x, y=y: mean(nn.Dense(3).apply({"params": p}, x), x, y)
        losses.append(float(loss(params)))
        gradient = jax.grad(lambda p, loss=loss: loss(p) + penalty(p))(params)
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
    return params, losses


def masked_mean(outputs, x, y):
    counted = y >= 0
    return jnp.where(counted, cross_entropy(outputs, jnp.maximum(y, 0)), 0).sum() / counted.sum()


@pytest.mark.parametrize("ignored", [-1, -100])
@pytest.mark.parametrize("microbatch", [None, 5], ids=["whole", "microbatches"])
@pytest.mark.parametrize("way", ["ignore_label", "weights"])
def test_means_are_over_the_tokens_that_count(ignored, microbatch, way):
    """Of an Optax loss that knows nothing of the padding, over parts of an evaluation and over microbatches."""
    data = tokens(ignored)
    given = (
        {"ignore_label": ignored} if way == "ignore_label" else {"weights": lambda y: y >= 0, "ignore_label": ignored}
    )
    trial = one(
        data=data,
        metrics={"accuracy": hpx.metrics.accuracy},
        penalty=lambda params, h: 0.01 * hpx.losses.l2(params),
        microbatch=microbatch,
        eval_batch_size=7,
        **given,
    )
    params, losses = plain_loop(data, masked_mean, lambda p: 0.01 * sum(jnp.sum(w**2) for w in p.values()))
    np.testing.assert_allclose(trial.restore()["params"]["kernel"], params["kernel"], rtol=1e-4, atol=1e-6)
    assert trial.metrics["train/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    outputs, y = logits(trial, data.valid.x), data.valid.y
    counted = y >= 0
    p = np.exp(outputs[counted])
    p /= p.sum(-1, keepdims=True)
    assert trial.metrics["valid/loss"] == pytest.approx(log_loss(y[counted], p, labels=range(3)), rel=1e-5)
    accuracy = accuracy_score(y[counted], outputs[counted].argmax(-1))
    assert trial.metrics["valid/accuracy"] == pytest.approx(accuracy, rel=1e-6)


def test_a_loss_that_averages_tokens_itself_counts_each_example_once():
    """The last examples have no token that counts: their loss is 0/0, and they count nothing."""
    data = tokens(-1)
    valid = data.valid.y.copy()
    valid[-3:] = -1
    data = hpx.Data(data.train, data.valid._replace(y=valid), data.test)

    def loss(outputs, y):
        ce = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.maximum(y, 0))
        return jnp.where(y >= 0, ce, 0).sum(-1) / (y >= 0).sum(-1)

    trial = one(data=data, loss=loss, ignore_label=-1, eval_batch_size=6)
    outputs, y = jnp.asarray(logits(trial, data.valid.x)), data.valid.y
    assert trial.metrics["valid/loss"] == pytest.approx(float(loss(outputs, y)[:-3].mean()), rel=1e-5)


@pytest.mark.parametrize("microbatch", [None, 5], ids=["whole", "microbatches"])
def test_weights_of_examples(microbatch):
    """Weights are an entry of the targets, which the loss has to take apart."""
    x, y = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(0, 3, 60)
    weight = RNG.uniform(0, 3, 60).astype(np.float32)
    weight[::5] = 0
    split = lambda rows: (x[rows], {"label": y[rows], "weight": weight[rows]})
    train, valid = split(slice(0, 40)), split(slice(40, 60))
    data = hpx.data.from_arrays(*train, valid=valid, test=valid)
    accuracy = lambda outputs, y: hpx.metrics.accuracy(outputs, y["label"])
    trial = one(
        data=data,
        loss=lambda outputs, y: cross_entropy(outputs, y["label"]),
        metrics={"accuracy": accuracy},
        split_metrics={"f1": lambda outputs, y, weights: hpx.metrics.f1(outputs, y["label"], weights)},
        weights=lambda y: y["weight"],
        microbatch=microbatch,
        eval_batch_size=7,
    )
    plain = hpx.data.from_arrays(x[:40], np.arange(40), valid=(x[40:], np.arange(20)), test=(x[40:], np.arange(20)))
    mean = lambda o, x, i: (
        (cross_entropy(o, jnp.asarray(y)[i]) * jnp.asarray(weight)[i]).sum() / weight[np.asarray(i)].sum()
    )
    params, losses = plain_loop(plain, mean)
    np.testing.assert_allclose(trial.restore()["params"]["kernel"], params["kernel"], rtol=1e-4, atol=1e-6)
    assert trial.metrics["train/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    outputs, y, weight = logits(trial, x[40:]), y[40:], weight[40:]
    found = outputs.argmax(-1)
    assert trial.metrics["valid/accuracy"] == pytest.approx(accuracy_score(y, found, sample_weight=weight), rel=1e-5)
    macro = f1_score(y, found, average="macro", sample_weight=weight)
    assert trial.metrics["valid/f1"] == pytest.approx(macro, rel=1e-5)


def test_weights_of_x_and_h_and_shifted_labels():
    """Next-token prediction: the loss of five tokens has four values, and so have the weights."""
    data = tokens(-100)
    ce = lambda outputs, y: optax.softmax_cross_entropy_with_integer_labels(outputs[:, :-1], y[:, 1:])
    weights = lambda x, y, h: (y[:, 1:] != -100) * (1 + h.rate * (x[:, 1:, 0] > 0))
    trial = one(data=data, loss=ce, weights=weights, ignore_label=-100, eval_batch_size=8)
    outputs, x, y = logits(trial, data.valid.x)[:, :-1], data.valid.x, data.valid.y[:, 1:]
    w = (y != -100) * (1 + 0.5 * (x[:, 1:, 0] > 0))
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    expected = log_loss(y[w > 0], p[w > 0], sample_weight=w[w > 0], labels=range(3))
    assert trial.metrics["valid/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("microbatch", [None, 5], ids=["whole", "microbatches"])
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_a_batch_without_weight_has_loss_0_and_moves_by_its_penalty_alone(penalty, microbatch):
    first = set(drawn(0, 40, BATCH, 1)[0][0].tolist())
    weight = np.array([i not in first for i in range(40)], np.float32)
    x, y = RNG.normal(size=(40, 4)).astype(np.float32), {"label": np.arange(40) % 3, "weight": weight}
    data = hpx.data.from_arrays(x, y, valid=(x, y), test=(x, y))
    loss = lambda outputs, y: cross_entropy(outputs, y["label"])
    of_params = lambda params, h=None: penalty * hpx.losses.l2(params)
    arguments = {"weights": lambda y: y["weight"], "penalty": of_params, "microbatch": microbatch}
    trial = one(loss=loss, data=data, **arguments)
    both = np.stack([y["label"], weight], -1).astype(int)
    data = hpx.data.from_arrays(x, both, valid=(x, both), test=(x, both))
    of_batch = lambda o, x, y: (cross_entropy(o, y[:, 0]) * y[:, 1]).sum() / max(y[:, 1].sum(), 1)
    params, losses = plain_loop(data, of_batch, of_params)
    np.testing.assert_allclose(trial.restore()["params"]["kernel"], params["kernel"], rtol=1e-5)
    assert losses[0] == 0
    assert trial.metrics["train/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert trial.status == "complete"


def test_folds_are_weighted_by_their_own_examples():
    data = tokens(-1)
    program = hpx.supervised(
        model=nn.Dense(3),
        optimizer=optax.sgd(0.0),
        loss=cross_entropy,
        data=data,
        batch_size=8,
        steps=1,
        ignore_label=-1,
        metrics={"accuracy": hpx.metrics.accuracy},
        eval_batch_size=5,
    )
    result = hpx.Sweep(program, hpx.Space(rate=0.5), 1, folds=7).run(progress=False)
    pool = hpx.data.pool(data)
    for fold, rows in enumerate(np.array_split(np.arange(60), 7)):
        params = result[0].restore(fold)["params"]
        outputs, y = pool.x[rows] @ params["kernel"] + params["bias"], pool.y[rows]
        right = (outputs.argmax(-1) == y)[y >= 0].mean()
        assert result.last("valid/accuracy")[0, fold] == pytest.approx(right, rel=1e-6)


def test_metrics_of_a_split_get_the_weights_of_its_tokens():
    data = tokens(-1)
    binary = data.valid._replace(y=np.minimum(data.valid.y, 1))
    train = data.train._replace(y=np.minimum(data.train.y, 1))
    trial = one(
        model=nn.Dense(2),
        data=hpx.Data(train, binary, binary),
        ignore_label=-1,
        split_metrics={"auc": hpx.metrics.auc},
        eval_batch_size=7,
    )
    outputs, counted = logits(trial, binary.x), binary.y >= 0
    expected = roc_auc_score(binary.y[counted], (outputs[..., 1] - outputs[..., 0])[counted])
    assert trial.metrics["valid/auc"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": lambda a: a}, "must be a function that takes some of x, y, h by these names"),
        ({"weights": [1.0]}, "must be a function that takes some of x, y, h by these names"),
        ({"ignore_label": 1.5}, "supervised.ignore_label = 1.5: must be a whole number"),
        ({"ignore_label": -1, "monitor": ["gradient_noise"], "microbatch": 4}, "compares means of equal weights"),
    ],
)
def test_weights_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(hpx.InputError, match=message):
        classifier(**arguments)


def test_weights_that_no_mean_can_be_taken_with_are_refused_by_the_plan():
    space, data = hpx.Space(learning_rate=0.1, momentum=0.9), blobs()
    of_sets = hpx.Data(data.train, {"clean": data.valid, "shifted": data.test}, data.test)
    for weights, message in (
        (lambda y: y - 1, r"supervised.weights of data.valid\['clean'\] = -1: must be finite and 0 or more"),
        (lambda x, y: -jnp.abs(x[:, 0]), r"supervised.weights of data.valid\['clean'\] = -.*: must be finite and 0 or"),
        (lambda y: 1 / (y - 1.0), "must be finite and 0 or more"),
        (lambda y: y > 5, r"supervised.weights of data.valid\['clean'\] = 0: must not all be 0"),
    ):
        with pytest.raises(hpx.InputError, match=message):
            hpx.Sweep(classifier(data=of_sets, weights=weights), space, 1).plan()
    data = blobs()
    data.test.y[:], data.valid.y[:] = 0, np.arange(len(data.valid.y)) % 2 - 1
    for arguments, message in (
        (
            {"weights": lambda y: y == -1, "ignore_label": -1},
            r"supervised.weights of data.valid = 0: must not all be 0",
        ),
        ({"weights": lambda y: abs(y)}, r"supervised.weights of data.test = 0: must not all be 0"),
    ):
        with pytest.raises(hpx.InputError, match=message):
            hpx.Sweep(classifier(data=data, **arguments), space, 1).plan()


@pytest.mark.parametrize("weights", [lambda y, h: y - h.momentum, lambda y, h: (y > 5) * h.momentum])
def test_weights_of_h_that_no_mean_can_be_taken_with_end_their_trial(weights):
    space = hpx.Space(learning_rate=0.1, momentum=hpx.Choice(0.5, 0.9))
    sweep = hpx.Sweep(classifier(weights=weights, steps=2, eval_every=None), space, 1)
    assert any("weights takes h, so what it gives is not known before training" in hint for hint in sweep.plan().hints)
    result = sweep.run(progress=False)
    assert result.statuses.tolist() == ["diverged"]
    with pytest.raises(hpx.RunError, match=r"It never was: .* whose weights are all 0 or where one is below 0"):
        _ = result.best
    assert "whose weights are all 0 or where one is below 0" in hpx.diagnose(result)[0].sentence


def test_weights_of_other_shapes_are_told():
    space = hpx.Space(learning_rate=0.1, momentum=0.9)
    for weights, message in (
        (lambda y: None, r"must give a weight for each example, shape \(16,\) or \(16, ...\), got NoneType"),
        (lambda y: "ones", r"must give a weight for each example, shape \(16,\) or \(16, ...\), got str"),
        (lambda y: 1.0, r"must give a weight for each example, shape \(16,\) or \(16, ...\), got \[\]"),
        (lambda y: jnp.ones(3), r"must give a weight for each example, shape \(16,\)"),
        (lambda y: jnp.ones((len(y), 2)), r"loss gives values \[16\], and weights are \[16, 2\]"),
    ):
        with pytest.raises(hpx.ProgramError, match=message):
            hpx.Sweep(classifier(weights=weights), space, 1).plan()


@pytest.mark.parametrize("label", [-1, -100, 3, 255])
def test_a_label_that_the_model_does_not_have_names_the_way_to_ignore_it(label):
    data = blobs()
    data.train.y[:5] = label
    space = hpx.Space(learning_rate=0.1, momentum=0.9)
    with pytest.raises(hpx.InputError, match=rf"data.y = {label}: labels must lie in 0 … 2.*ignore_label={label} if"):
        hpx.Sweep(classifier(data=data), space, 1).plan()
    assert hpx.Sweep(classifier(data=data, ignore_label=label), space, 1).plan().trials == 1


def test_a_label_that_is_all_of_a_split_or_of_no_integers_is_refused():
    data = blobs()
    data.valid.y[:] = -1
    with pytest.raises(hpx.InputError, match="is the only label of a split"):
        classifier(data=data, ignore_label=-1)
    real = hpx.data.from_arrays(np.ones((30, 2)), np.ones(30))
    with pytest.raises(hpx.InputError, match="needs targets that are one array of integers"):
        classifier(data=real, ignore_label=-1)


def test_one_logit_may_have_labels_of_two_classes():
    """What a model with one output does with its labels is its loss's business: it is no class."""
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)

    def loss(outputs, y):
        return optax.sigmoid_binary_cross_entropy(outputs[:, 0], y)

    program = hpx.supervised(
        model=nn.Dense(1),
        optimizer=optax.sgd(0.0),
        loss=loss,
        data=hpx.data.from_arrays(x, y, valid=(x, y)),
        batch_size=4,
        steps=1,
    )
    trial = hpx.Sweep(program, hpx.Space(a=1), trials=1).run(progress=False)[0]
    params = trial.restore()["params"]
    logits = x @ params["kernel"][:, 0] + params["bias"]
    assert trial.metrics["valid/loss"] == pytest.approx(np.log1p(np.exp(np.where(y, -logits, logits))).mean(), rel=1e-5)
