"""Sums of arrays that have axes of size 1: what other shapes they are computed in, and where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.engine import compile as compiling
from hpjax.engine.lowering import lowered, lowering
from hpjax.engine.primitives import equations
from hpjax.engine.thin_sums import LEAST, has_thin_sums


def summed(function, *arrays):
    """What a function computes with sums rewritten, and the shapes of which it takes sums then."""

    def rewritten(*arrays):
        with lowering(False, sums=True):
            return lowered(function)(*arrays)

    jaxpr = jax.make_jaxpr(rewritten)(*arrays).jaxpr
    shapes = [e.invars[0].aval.shape for e in equations(jaxpr) if e.primitive.name == "reduce_sum"]
    return jax.jit(rewritten)(*arrays), shapes


@pytest.mark.parametrize(
    ("shape", "axes", "wide"),
    [
        ((64, 2, 1, 32), (1,), (64, 2, 32)),
        ((64, 2, 1, 32), (0, 1), (64, 2, 32)),
        ((64, 2, 1, 32), (1, 2), (64, 2, 32)),
        ((1, 4096), (0, 1), (4096,)),
        ((64, 2, 32, 1), (-2,), (64, 2, 32)),
    ],
)
def test_sums_leave_out_axes_of_size_1(shape, axes, wide):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found, shapes = summed(lambda x: jnp.sum(x * x, axes), x)
    assert shapes == [wide]
    np.testing.assert_allclose(found, np.sum(x.astype(np.float64) ** 2, axes), rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((64, 2, 32), (1,)), ((64, 64, 1), (2,)), ((LEAST // 2, 1), (0,))],
    ids=["none", "the one that is summed", "small"],
)
def test_other_sums_stay(shape, axes):
    x = np.ones(shape, np.float32)
    assert summed(lambda x: jnp.sum(x, axes), x)[1] == [shape]
    assert not has_thin_sums(jax.make_jaxpr(lambda x: jnp.sum(x, axes))(x))


def test_second_derivatives_have_such_sums_and_train_as_alone(monkeypatch):
    """A network of one input and its second derivative, against the same loop without hpjax."""
    x = np.linspace(-1, 1, 128, dtype=np.float32)[:, None]

    def network(w, x):
        return jnp.tanh(jnp.tanh(x @ w["a"]) @ w["b"]).sum()

    def loss(w):
        second = jax.vmap(lambda x: jax.hessian(network, 1)(w, x)[0, 0])(jnp.asarray(x))
        return jnp.mean((second + 1) ** 2)

    def init(key, h):
        a, b = jax.random.split(key)
        return {"a": jax.random.normal(a, (1, 32)), "b": jax.random.normal(b, (32, 32)) / 6}

    def step(key, w, batch, h):
        value, slope = jax.value_and_grad(loss)(w)
        return jax.tree.map(lambda w, g: w - h.rate * g, w, slope), {"loss": value}

    program = hpx.Program(init, step, lambda key, w, split, h: {"loss": loss(w)}, steps=3)
    sweep = hpx.Sweep(program, hpx.Space(rate=hpx.Uniform(0.001, 0.01)), trials=2)
    assert sweep.plan().shapes[0].thin_sums
    switched = []

    def noted(*args, **how):
        switched.append(how["sums"])
        return lowering(*args, **how)

    monkeypatch.setattr(compiling, "lowering", noted)
    result = sweep.run(progress=False)
    assert switched
    assert all(switched), "on a CPU"
    for trial, found in zip(result, result.last("valid/loss")[:, 0], strict=True):
        w = init(hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "init"), None)
        for _ in range(3):
            w, _ = step(None, w, None, hpx.Hparams(trial.hparams))
        assert found == pytest.approx(float(loss(w)), rel=1e-5)
