"""Kernels for accelerators give what JAX's own give, whatever the labels are, and lanes train the same with them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.core.fallback import warn_once
from hpjax.engine import compile as compiling
from hpjax.engine.lowering import FUSED, lowered, lowering
from tests.support.compare import same_bits
from tests.support.programs import classifier

RNG = np.random.default_rng(0)


def rewritten(function, differentiable=False):
    def run(*args):
        with lowering(False, fused=True):
            return lowered(function, differentiable)(*args)

    return run


def left(function, *args):
    """The primitives that a function has, and those within it."""
    return str(jax.make_jaxpr(function)(*args))


def odd(*shape, dtype=np.float32):
    """Numbers among which are those that a sum or a comparison may change."""
    x = RNG.normal(size=shape).astype(dtype)
    x.flat[::3] = -0.0
    x.flat[1::7] = np.nan
    x.flat[2::11] = np.inf
    x.flat[4::13] = -np.inf
    return x


@pytest.mark.parametrize("mode", ["fill", "clip", "promise_in_bounds"])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32, np.uint8])
def test_one_element_of_each_row(mode, dtype):
    x = (
        odd(6, 5, 7, dtype=dtype)
        if jnp.issubdtype(dtype, jnp.floating)
        else RNG.integers(0, 200, (6, 5, 7)).astype(dtype)
    )
    index = RNG.integers(0, 7, (6, 5, 1)) if mode == "promise_in_bounds" else RNG.integers(-12, 12, (6, 5, 1))

    def pick(x, index):
        return jnp.take_along_axis(x, index, -1, mode=mode)

    assert "gather" not in left(rewritten(pick), x, index)
    ours, theirs = rewritten(pick)(x, index), pick(x, index)
    assert ours.dtype == theirs.dtype
    ours, theirs = (np.asarray(each.astype(jnp.float32)) for each in (ours, theirs))  # bfloat16 has no NaN for NumPy
    assert same_bits(ours, theirs)
    assert same_bits(np.signbit(ours), np.signbit(theirs)), "-0.0 stays"


@pytest.mark.parametrize("mode", ["fill", "clip"])
def test_its_gradient(mode):
    index, weights = RNG.integers(-12, 12, (6, 5, 1)), odd(6, 5, 1)

    def gradient(x, index):
        return jax.grad(lambda x: (weights * jnp.take_along_axis(x, index, -1, mode=mode)).sum())(x)

    x = RNG.normal(size=(6, 5, 7)).astype(np.float32)
    assert "scatter" not in left(rewritten(gradient), x, index)
    assert same_bits(rewritten(gradient)(x, index), gradient(x, index))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_indices_that_do_not_count_to_the_end_of_a_row(dtype):
    x, index = RNG.normal(size=(6, 300)).astype(np.float32), RNG.integers(0, 100, (6, 1)).astype(dtype)

    def pick(x, index):
        return jnp.take_along_axis(x, index, -1, mode="promise_in_bounds")

    def gradient(x, index):
        return jax.grad(lambda x: pick(x, index).sum())(x)

    # Beside NumPy: XLA's own scatter of 6 rows counts past what 8 bits hold.
    assert same_bits(rewritten(pick)(x, index), np.take_along_axis(x, index.astype(int), -1))
    assert same_bits(rewritten(gradient)(x, index), (np.arange(300) == index).astype(np.float32))


def test_lanes_share_labels():
    x, labels = odd(3, 8, 5), RNG.integers(0, 5, 8)
    loss = jax.vmap(jax.grad(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()))
    lanes = jax.vmap(rewritten(jax.grad(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, labels).mean())))
    assert same_bits(lanes(x), loss(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[jnp.array([1, 3])],
        lambda x: jnp.take_along_axis(x, jnp.array([[1, 2]]), 1),
        lambda x: jnp.take_along_axis(x, jnp.array([[1, 2, 0]]), 0),
        lambda x: jax.grad(lambda x: x[jnp.array([1, 3, 1])].sum())(x),
        lambda x: jnp.take_along_axis(x > 0, jnp.array([[1]] * 4), 1),
        lambda x: jnp.take_along_axis(x.astype(jnp.float8_e4m3fn), jnp.array([[1]] * 4), 1).astype(jnp.float32),
        lambda x: x[0][jnp.array([1])],
    ],
)
def test_other_indexing_stays(function):
    x = jnp.asarray(odd(4, 3))
    assert same_bits(rewritten(function)(x), function(x))
    assert left(rewritten(function), x).count("gather") == left(function, x).count("gather")


def dot(x, w):
    return jax.nn.relu(x @ w)


@pytest.mark.parametrize("shared", [0, 1])
def test_lanes_share_an_operand(shared):
    """The shared one is given to each lane where it is no larger than what each has, and else stays one."""
    axes = tuple(None if i == shared else 0 for i in range(2))
    for rows, batch in [(16, True), (64, False)]:
        sizes = [(rows, 32), (32, 16)] if shared == 0 else [(16, 32), (32, rows)]
        x, w = (RNG.normal(size=size if i == shared else (5, *size)).astype(np.float32) for i, size in enumerate(sizes))
        ours = jax.vmap(rewritten(dot), axes)
        assert ("([0], [0])" in left(ours, x, w)) == batch, "products that are a batch"
        with jax.default_matmul_precision("float32"):
            np.testing.assert_allclose(ours(x, w), jax.vmap(dot, axes)(x, w), rtol=1e-5, atol=1e-5)


def test_short_products_and_lanes_of_their_own_stay():
    x, w = RNG.normal(size=(8, 15)).astype(np.float32), RNG.normal(size=(5, 15, 15)).astype(np.float32)
    assert "([0], [0])" not in left(jax.vmap(rewritten(dot), (None, 0)), x, w)
    x, w = RNG.normal(size=(5, 8, 32)).astype(np.float32), RNG.normal(size=(5, 32, 15)).astype(np.float32)
    assert same_bits(jax.vmap(rewritten(dot))(x, w), jax.vmap(dot)(x, w))


def test_gradients_are_taken_through_what_is_left():
    """A function within jax.grad keeps its products, whose kernel for lanes has no gradient."""
    x, w = RNG.normal(size=(8, 32)).astype(np.float32), RNG.normal(size=(32, 4)).astype(np.float32)
    ours = jax.grad(lambda w: rewritten(dot, differentiable=True)(x, w).sum())(w)
    assert same_bits(ours, jax.grad(lambda w: dot(x, w).sum())(w))


class Recurrent(nn.Module):
    """An LSTM over the numbers of an example."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.RNN(nn.OptimizedLSTMCell(8))(x[..., None]).mean(1))


@pytest.mark.parametrize("model", [{}, {"model": Recurrent()}], ids=["mlp", "lstm"])
def test_lanes_train_the_same(model, monkeypatch):
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-1), momentum=hpx.Uniform(0, 0.9))

    def run():
        program = classifier(batch_size=16, steps=40, eval_every=20, **model)
        return hpx.Sweep(program, space, trials=3, replicates=2).run(progress=False)

    plain = run()
    monkeypatch.setattr(compiling, "lowering", lambda *args, fused, sums: lowering(*args, fused=True))
    ours = run()
    for name in ("train/loss", "valid/loss"):
        np.testing.assert_allclose(ours.curves(name), plain.curves(name), rtol=1e-5)


def test_a_kernel_that_another_jax_does_not_know_is_told(monkeypatch):
    def unknown(*_):
        raise KeyError("dimension_numbers")

    monkeypatch.setitem(FUSED, "dot_general", unknown)
    warn_once.cache_clear()
    x, w = RNG.normal(size=(8, 32)).astype(np.float32), RNG.normal(size=(32, 4)).astype(np.float32)
    told = rf"^dot_general: computed as JAX has it, .*jax {jax.__version__} is not known to hpjax here"
    with pytest.warns(RuntimeWarning, match=told) as caught:
        ours = [rewritten(dot)(x, w) for _ in range(2)]
    assert len(caught) == 1
    np.testing.assert_allclose(ours[1], dot(x, w), rtol=1e-5)
