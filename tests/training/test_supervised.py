"""supervised: exact evaluation, averaged metrics, arguments as constants or functions of h."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key
from hpjax.data.batches import batch_indices
from hpjax.data.examples import Examples
from tests.support.compare import same_bits
from tests.support.counting import compilations
from tests.support.programs import Net, classifier

ONE = hpx.Space(learning_rate=0.1, momentum=0.9)
RATE = hpx.Hparams({"learning_rate": 0.1, "momentum": 0.9})


def test_evaluation_is_exact_where_batches_do_not_divide_the_split():
    program = classifier()
    h = RATE
    state = program.init(jax.random.key(0), h)
    valid = program.data.valid
    logits = Net().apply({"params": state.params, **state.stats}, valid.x, train=False)
    losses = np.asarray(optax.softmax_cross_entropy_with_integer_labels(logits, valid.y), np.float64)
    right = np.asarray(logits).argmax(-1) == valid.y
    for size in (1, 5, 7, 17, 18, 1000):
        metrics = classifier(eval_batch_size=size).evaluate(jax.random.key(0), state, valid, h)
        assert float(metrics["loss"]) == pytest.approx(losses.mean(), rel=1e-6)
        assert float(metrics["accuracy"]) == pytest.approx(right.mean(), rel=1e-6)


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros)(x)[:, 0]


def test_train_metrics_are_the_mean_since_the_last_evaluation():
    """Linear regression at rate 0: the loss of a step is that of its own batch at w = 0."""
    rng = np.random.default_rng(0)
    data = hpx.data.from_arrays(rng.normal(size=(50, 2)), rng.normal(size=50))
    program = hpx.supervised(
        model=Linear(),
        optimizer=optax.sgd(0.0),
        loss=hpx.metrics.squared_error,
        data=data,
        batch_size=7,
        steps=10,
        eval_every=4,
    )
    result = hpx.Sweep(program, hpx.Space(x=1), sampler=hpx.Grid(), seed=5).run(progress=False)
    key = purpose_key(lane_key(5, 0), "batch")
    losses = [np.mean(data.train.y[np.asarray(batch_indices(key, t, 30, 7))] ** 2) for t in range(10)]
    expected = [np.mean(losses[:4]), np.mean(losses[4:8]), np.mean(losses[8:])]
    np.testing.assert_allclose(result.curves("train/loss")[0, 0], expected, rtol=1e-5)
    assert result.curves("step")[0, 0].tolist() == [4, 8, 10]


def test_the_last_axes_of_a_loss_are_averaged():
    data = hpx.data.from_arrays(np.ones((20, 3)), np.arange(40.0).reshape(20, 2))
    program = hpx.supervised(
        model=nn.Dense(2, kernel_init=nn.initializers.zeros),
        optimizer=optax.sgd(0.0),
        loss=lambda out, y: (out - y) ** 2,
        data=data,
        batch_size=4,
        steps=1,
    )
    result = hpx.Sweep(program, hpx.Space(x=1), sampler=hpx.Grid()).run(progress=False)
    assert result.best.metrics["valid/loss"] == pytest.approx(np.mean(data.valid.y**2), rel=1e-6)


@pytest.mark.parametrize("length", [4, 9])
def test_a_loss_a_token_is_no_broadcast(length):
    """Next-token prediction: the loss is shorter than y by one, and with length 9 as long as the batch is large."""
    tokens = np.random.default_rng(0).integers(0, 3, (40, length))

    def loss(outputs, y):
        return optax.softmax_cross_entropy_with_integer_labels(outputs[:, :-1], y[:, 1:])

    program = classifier(
        model=nn.Embed(3, 3), loss=loss, metrics={}, data=hpx.data.from_arrays(tokens, tokens), batch_size=8
    )
    h = RATE
    state = program.init(jax.random.key(0), h)
    table = np.asarray(state.params["embedding"], np.float64)
    valid = program.data.valid.y
    logits = table[valid[:, :-1]]
    expected = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, valid[:, 1:, None], -1)[..., 0]
    metrics = program.evaluate(jax.random.key(0), state, program.data.valid, h)
    assert float(metrics["loss"]) == pytest.approx(expected.mean(), rel=1e-5)


def test_targets_may_be_a_pytree():
    """The first axis of its arrays counts the examples, not its keys."""
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    y = {"a": x[:, 0], "b": x[:, 1], "c": np.arange(50)}
    data = hpx.data.from_arrays(x, y)
    assert [len(split.y["a"]) for split in (data.train, data.valid, data.test)] == [30, 10, 10]
    program = classifier(
        model=nn.Dense(1, kernel_init=nn.initializers.zeros),
        loss=lambda outputs, y: (outputs[:, 0] - y["a"]) ** 2,
        metrics={"b": lambda outputs, y: y["b"]},
        data=data,
        eval_batch_size=4,
    )
    assert program.describe["examples"] == [30, 10, 10]
    metrics = program.evaluate(jax.random.key(0), program.init(jax.random.key(0), RATE), data.valid, RATE)
    assert float(metrics["loss"]) == pytest.approx((data.valid.y["a"] ** 2).mean(), rel=1e-5)
    assert float(metrics["b"]) == pytest.approx(data.valid.y["b"].mean(), rel=1e-5)
    batch = program.batch(jax.random.key(0), 0, data.train, RATE)
    assert {len(leaf) for leaf in jax.tree.leaves(batch)} == {16}


def test_a_loss_with_open_arguments_is_a_loss():
    ce = optax.softmax_cross_entropy_with_integer_labels
    a, b = (
        hpx.Sweep(classifier(loss=loss), ONE, sampler=hpx.Grid(), width=1).run(progress=False)
        for loss in (lambda *a: ce(*a), lambda h, *open: ce)
    )
    assert same_bits(a.curves("valid/loss"), b.curves("valid/loss"))


class Extras(nn.Module):
    """Outputs of which some have no axis of examples, or one of another length."""

    @nn.compact
    def __call__(self, x):
        codebook = self.param("codebook", nn.initializers.normal(), (7, 8))
        return {"aux": jnp.mean(codebook**2), "codebook": codebook, "pred": nn.Dense(8)(x)}


@pytest.mark.parametrize("batch_size", [7, 8])
def test_losses_that_are_no_broadcast(batch_size):
    """Axes that are as long as the batch by chance, or one longer; outputs without an axis of examples; pairs."""
    rng = np.random.default_rng(0)
    data = hpx.data.from_arrays(rng.normal(size=(40, 5)), rng.normal(size=(40, 8)))
    images = rng.normal(size=(40, 8, 9))

    def pairs(outputs, y):
        both = (outputs["pred"] - y).reshape(-1, batch_size, 8)
        return (both - both.mean(1, keepdims=True)).reshape(-1, 8) ** 2

    for model, loss, given in (
        (Extras(), lambda o, y: (o["pred"] - y) ** 2 + o["aux"] + (o["codebook"] ** 2).mean(), data),
        (nn.Dense(9), optax.l2_loss, hpx.data.from_arrays(images, images)),
        (Extras(), pairs, data),
    ):
        program = classifier(model=model, loss=loss, metrics={}, data=given, batch_size=batch_size, eval_batch_size=8)
        if loss is pairs and batch_size == 7:
            continue  # the validation split of 8 holds no pairs of 7
        assert hpx.Sweep(program, ONE, sampler=hpx.Grid()).plan().trials == 1


def test_metrics_of_h_with_a_default_argument():
    def metrics(settings, k=2):
        return {"top": hpx.metrics.top_k(k)}

    assert "valid/top" in hpx.Sweep(classifier(metrics=metrics), ONE, sampler=hpx.Grid()).plan().shapes[0].metrics


@pytest.mark.slow
def test_every_argument_is_a_constant_or_a_function_of_h():
    constant = classifier(
        model=Net(8),
        optimizer=optax.sgd(0.1, 0.9),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        metrics={"accuracy": hpx.metrics.accuracy},
        batch_size=16,
        steps=8,
        eval_every=4,
    )
    function = classifier(
        model=lambda h: Net(h.size),
        optimizer=lambda h: optax.sgd(h.rate, 0.9),
        loss=lambda h: optax.softmax_cross_entropy_with_integer_labels,
        metrics=lambda h: {"accuracy": hpx.metrics.accuracy},
        batch_size=lambda h: 2 * h.size,
        steps=lambda h: h.size,
        eval_every=lambda h: 4,
    )
    space = hpx.Space(rate=0.1, size=8)
    a, b = (hpx.Sweep(p, space, sampler=hpx.Grid(), width=1).run(progress=False) for p in (constant, function))
    np.testing.assert_allclose(a.curves("valid/loss"), b.curves("valid/loss"), rtol=1e-6)
    assert a.best.step == b.best.step == 8


def test_the_argument_that_tells_training_apart_is_found():
    seen = []

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, *, deterministic):
            seen.append(deterministic)
            return nn.Dense(3)(x)

    hpx.Sweep(classifier(model=Model()), ONE, sampler=hpx.Grid()).plan()
    assert set(seen) == {True, False}


def test_an_nnx_module_must_take_its_noise_from_the_sweep():
    model = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
    with pytest.raises(hpx.InputError, match=r"every replicate would begin alike. Write model=lambda h, rngs"):
        classifier(model=model)
    with pytest.raises(hpx.InputError, match="is an NNX module and needs rngs of the sweep"):
        hpx.Sweep(classifier(model=lambda h: model), ONE, sampler=hpx.Grid()).plan()


def test_metrics_against_scikit_learn():
    from sklearn.metrics import accuracy_score, mean_absolute_error, mean_squared_error, top_k_accuracy_score

    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 5, 40)
    assert hpx.metrics.accuracy(logits, labels).mean() == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    for k in (1, 2, 3):
        top = hpx.metrics.top_k(k)(jnp.asarray(logits), labels).mean()
        assert top == pytest.approx(top_k_accuracy_score(labels, logits, k=k, labels=range(5)))
    other = rng.normal(size=(40, 5)).astype(np.float32)
    assert hpx.metrics.squared_error(logits, other).mean() == pytest.approx(mean_squared_error(other, logits), rel=1e-5)
    assert hpx.metrics.absolute_error(logits, other).mean() == pytest.approx(
        mean_absolute_error(other, logits), rel=1e-5
    )


def test_networks_that_a_mask_makes_small_predict():
    class Masked(nn.Module):
        units: int

        @nn.compact
        def __call__(self, x):
            return hpx.nn.Dense(3, inputs=self.units)(nn.relu(hpx.nn.Dense(8, self.units)(x)))

    program = classifier(model=lambda h: Masked(h.units))
    space = hpx.Space(learning_rate=0.1, momentum=0.9, units=hpx.Choice(2, 5))
    result = hpx.Sweep(program, space, sampler=hpx.Grid()).run(progress=False)
    x = program.data.test.x
    for trial in result:
        params, units = trial.restore()["params"], trial.hparams["units"]
        second, first = params["Dense_0"], params["Dense_1"]  # in the order in which they are made
        hidden = np.maximum(x @ first["kernel"][:, :units] + first["bias"][:units], 0)
        expected = hidden @ second["kernel"][:units] + second["bias"]
        np.testing.assert_allclose(trial.predict(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_tests_and_predictions_are_those_of_the_trained_models():
    program = classifier()
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-4, 1), momentum=0.9)
    sweep = hpx.Sweep(program, space, trials=4, replicates=2)
    result = sweep.run(progress=False)
    assert result.tested == {}
    metrics = result.test()
    losses, right = [], []
    for replicate in range(2):
        state = result.best.restore(replicate)
        test: Examples = program.data.test
        logits = Net().apply({"params": state["params"], **state["stats"]}, test.x, train=False)
        losses.append(optax.softmax_cross_entropy_with_integer_labels(logits, test.y).mean())
        right.append((logits.argmax(-1) == test.y).mean())
        np.testing.assert_allclose(result.best.predict(test.x)[replicate], logits, rtol=1e-5, atol=1e-6)
    assert metrics["test/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["test/accuracy"] == pytest.approx(np.mean(right), rel=1e-5)
    assert result.tested == {result.best.id: metrics}
    with compilations() as names:
        assert result.test() == metrics
    assert names == [], "it is looked up the second time"
    many = np.resize(test.x, (600, *test.x.shape[1:]))  # more than are computed at once
    outputs = result.best.predict(many)
    assert outputs.shape == (2, 600, 3)
    np.testing.assert_allclose(outputs[:, 512:], result.best.predict(many[512:]), rtol=1e-5, atol=1e-6)
    for bad, message in (
        (test.x[0, 0], "must have one row an example, and at least one"),
        (test.x[:0], "must have one row an example, and at least one"),
        ({"a": test.x, "b": test.x[:2]}, "must have one row an example, and at least one"),
        (test.x[0], r"must have examples of shape \(5,\)"),
        (test.x[:, :2], r"must have examples of shape \(5,\)"),
    ):
        with pytest.raises(hpx.InputError, match=rf"predict.x = .*: {message}"):
            result.best.predict(bad)
    table = result.table()
    for name, value in metrics.items():
        assert table[name][result.best.id] == value
        assert np.isnan(np.delete(table[name], result.best.id)).all()
