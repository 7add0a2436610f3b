"""Sums and means are float32 at least, whatever the dtype of outputs and parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

import hpjax as hpx
from hpjax.training.monitors import MONITORS, square

HALVES = ("bfloat16", "float16")


class Given(nn.Module):
    """Gives its inputs as outputs, in a dtype."""

    dtype: str

    @nn.compact
    def __call__(self, x):
        self.param("w", nn.initializers.zeros, (1,))
        return x.astype(self.dtype)


def evaluated(x, y, dtype, loss, metrics, **arguments):
    """The metrics of examples whose outputs are their inputs."""
    data = hpx.data.from_arrays(x[:8], y[:8], valid=(x, y), test=(x, y))
    program = hpx.supervised(
        model=Given(dtype),
        optimizer=optax.sgd(0.1),
        loss=loss,
        metrics=metrics,
        data=data,
        batch_size=2,
        steps=1,
        **arguments,
    )
    h = hpx.Hparams({})
    return jax.jit(program.evaluate)(jax.random.key(0), program.init(jax.random.key(0), h), data.valid, h)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [50, 512])
def test_metrics_of_half_precision_outputs_are_those_of_scikit_learn(dtype, size):
    n, rng = 297, np.random.default_rng(0)
    y = rng.integers(0, 4, n)
    # Ranks have no ties and no rounding.
    x = (rng.normal(size=(n, 4)) + 3 * np.eye(4)[y]).argsort(-1).argsort(-1).astype(np.float32)
    metrics = {"accuracy": hpx.metrics.accuracy, "top_2": hpx.metrics.top_k(2), "own": lambda o, y: o.argmax(-1) == y}
    found = evaluated(x, y, dtype, hpx.losses.cross_entropy(), metrics, eval_batch_size=size)
    accuracy = accuracy_score(y, x.argmax(-1))
    assert 0.9 < accuracy < 1
    p = np.exp(x.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    assert float(found["accuracy"]) == pytest.approx(accuracy, rel=1e-6)
    assert float(found["own"]) == pytest.approx(accuracy, rel=1e-6)
    assert float(found["top_2"]) == pytest.approx(top_k_accuracy_score(y, x, k=2), rel=1e-6)
    assert float(found["loss"]) == pytest.approx(log_loss(y, p), rel=1e-5)


def test_errors_of_float16_outputs_do_not_overflow():
    """300² is more than float16 holds, and so is the sum of 70,000 ones."""
    x, y = np.full((70_000, 2), 300.0), np.zeros((70_000, 2))
    metrics = {"absolute": hpx.metrics.absolute_error, "own": lambda o, y: jnp.ones_like(o)}
    found = evaluated(x, y, "float16", hpx.metrics.squared_error, metrics, eval_batch_size=70_000)
    assert {name: float(value) for name, value in found.items()} == {"loss": 9e4, "absolute": 300.0, "own": 1.0}


def test_an_own_loss_of_tokens_is_averaged_in_float32():
    values = np.linspace(0, 1, 3 * 1000).reshape(3, 1000)
    half = np.asarray(jnp.asarray(values, jnp.bfloat16), np.float64)
    found = evaluated(values, values, "bfloat16", lambda o, y: o, {})
    assert float(found["loss"]) == pytest.approx(half.mean(), rel=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_penalties_and_norms_of_half_precision_parameters(dtype):
    rng = np.random.default_rng(0)
    params = {name: {"kernel": jnp.asarray(rng.normal(size=(300, 7)) * 20, dtype)} for name in "ab"}
    exact = {name: np.asarray(layer["kernel"], np.float64) for name, layer in params.items()}
    total = sum((w**2).sum() for w in exact.values())
    assert float(hpx.losses.l2(params)) == pytest.approx(total, rel=1e-5)
    assert float(square(params)) == pytest.approx(total, rel=1e-5)
    assert float(hpx.losses.l1(params)) == pytest.approx(sum(np.abs(w).sum() for w in exact.values()), rel=1e-5)
    norms = MONITORS["gradient_norm"](params, params, params)
    assert float(norms["gradient_norm/a"]) == pytest.approx(np.linalg.norm(exact["a"]), rel=1e-5)
    silent = {"a": {"kernel": jnp.zeros((2, 297), dtype).at[:, :2].set(1)}}
    ones = {"a": {"kernel": jnp.ones((2, 297), dtype)}}
    assert float(MONITORS["dead_units"](ones, silent, ones)["dead_units/a"]) == pytest.approx(295 / 297, rel=1e-6)


class Weights(nn.Module):
    """A linear model whose weights are of half precision."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1, use_bias=False, dtype="bfloat16", param_dtype="bfloat16")(x)[:, 0]


def halves(**arguments):
    rng = np.random.default_rng(0)
    data = hpx.data.from_arrays(rng.normal(size=(64, 4)), rng.normal(size=64), valid=0.25, test=0.25)
    return hpx.supervised(
        model=Weights(),
        optimizer=optax.sgd(0.1),
        loss=hpx.metrics.squared_error,
        data=data,
        batch_size=32,
        steps=40,
        **arguments,
    )


def trained(program):
    """The state after the program's steps."""
    h, key = hpx.Hparams({}), jax.random.key(0)
    data, calls = program.data, program.steps * (program.microsteps(h) if callable(program.microsteps) else 1)
    state = program.init(key, h)

    @jax.jit
    def step(state, t):
        return program.step(jax.random.fold_in(key, t), state, program.batch(key, t, data.train, h), h)[0]

    states = [state]
    for t in range(calls):
        states.append(step(states[-1], jnp.int32(t)))
    return states


def test_an_average_of_half_precision_parameters_moves():
    """Rounded to bfloat16, an average of decay 0.999 would stay where it began."""
    states = trained(halves(average=0.999))
    mean = np.asarray(states[0].params["Dense_0"]["kernel"], np.float64)
    for state in states[1:]:
        mean = 0.999 * mean + 0.001 * np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    found = states[-1].average["Dense_0"]["kernel"]
    assert found.dtype == jnp.float32
    # XLA may leave out the rounding of the parameters that it averages, by 1 in 256 of a step of 1 in 1,000.
    np.testing.assert_allclose(found, mean, rtol=1e-4)
    first = np.asarray(states[0].params["Dense_0"]["kernel"], np.float64)
    assert np.abs(mean / first - 1).min() > 1e-3
    assert states[-1].evaluated.params["Dense_0"]["kernel"].dtype == jnp.bfloat16


def test_sums_of_half_precision_gradients_are_float32():
    """Of the first batch in 32 microbatches, against the sum of the microbatches' gradients in float64."""
    program, h, key = halves(microbatch=1), hpx.Hparams({}), jax.random.key(0)
    state = program.init(key, h)
    w, total = state.params["Dense_0"]["kernel"], np.zeros((4, 1))
    for t in range(31):
        batch = program.batch(key, jnp.int32(t), program.data.train, h)
        state = jax.jit(program.step)(key, state, batch, h)[0]
        loss = lambda w, batch=batch: jnp.square((batch.x.astype(w.dtype) @ w)[:, 0] - batch.y).sum() / 32
        total += np.asarray(jax.grad(loss)(w), np.float64)
    found = state.accumulated.gradients["Dense_0"]["kernel"]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, total, rtol=2e-3)
    assert not np.array_equal(np.asarray(found), np.asarray(found.astype(jnp.bfloat16), np.float32))


def test_functions_of_the_host_get_float32():
    seen = []

    def function(outputs, y):
        seen.append(outputs.dtype)
        return np.abs(outputs[:, 0] - y)

    metric = hpx.metrics.on_host(function)
    x, y = jnp.array([[0.5], [2.0]], jnp.bfloat16), jnp.array([0.0, 0.0])
    assert np.asarray(metric(x, y)).tolist() == [0.5, 2.0]
    assert seen == [np.float32]
