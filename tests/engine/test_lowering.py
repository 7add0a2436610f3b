"""Rewritten kernels: convolutions and pooling give what XLA's own give, with their gradients, and collapse no more."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from hpjax.engine.lowering import KERNELS, lowered, lowering

WINDOWED = ("conv_general_dilated", "reduce_window", "select_and_scatter")


def rewritten(function):
    def run(*args):
        with lowering(True):
            return lowered(function)(*args)

    return run


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def left(function, *args):
    """The primitives with windows that a function still has."""
    text = str(jax.make_jaxpr(function)(*args))
    return [name for name in WINDOWED if name in text]


def check(function, *args, after=True):
    """Values and gradients are those of XLA's kernels, whether gradients are taken before or after the rewriting.

    Args:
      function: of the arrays.
      args: the arrays.
      after: whether its gradients, taken before, can be rewritten too.
    """
    argnums = tuple(range(len(args)))

    def gradients(function):
        def total(*args):
            y = function(*args)
            return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum()

        return jax.grad(total, argnums)

    plain, mine = gradients(function), gradients(rewritten(function))
    assert left(plain, *args)
    assert not left(mine, *args)
    late = rewritten(plain)
    assert bool(left(late, *args)) is not after

    @jax.jit
    def all_of_them(*args):
        return function(*args), plain(*args), rewritten(function)(*args), mine(*args), late(*args)

    y, expected, found, *both = all_of_them(*args)
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-5 * np.abs(y).max())
    for got in both:
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    ("axes", "strides", "padding", "inner", "dilation", "groups", "outputs"),
    [
        (1, 1, "SAME", 1, 1, 1, 5),
        (2, 1, "SAME", 1, 1, 1, 5),
        (3, 1, "SAME", 1, 1, 1, 5),
        (2, 2, "SAME", 1, 1, 1, 5),
        (2, 1, "VALID", 1, 2, 1, 5),
        (2, 3, "VALID", 1, 1, 1, 5),  # windows side by side
        (2, 1, ((1, 2), (0, 1)), 2, 1, 1, 5),  # transposed
        (1, 1, ((2, 1),), 3, 2, 1, 5),
        (2, 2, ((-1, 2), (3, 0)), 2, 1, 1, 5),
        (2, 2, "SAME", 1, 1, 2, 6),
        (2, 1, "SAME", 1, 1, 4, 4),  # depthwise
        (1, 2, "SAME", 1, 1, 4, 8),  # of two outputs for each channel
        (1, 1, ((1, 1),), 2, 1, 2, 6),
    ],
)
def test_a_convolution_and_its_gradients(axes, strides, padding, inner, dilation, groups, outputs):
    x, kernel = normal(2, *(9, 8, 7)[:axes], 4), normal(*(3,) * axes, 4 // groups, outputs)
    letters = "DHW"[3 - axes :]
    order = lax.conv_dimension_numbers(x.shape, kernel.shape, (f"N{letters}C", f"{letters}IO", f"N{letters}C"))

    def convolved(x, kernel):
        each = (strides,) * axes, padding, (inner,) * axes, (dilation,) * axes
        return lax.conv_general_dilated(x, kernel, *each, order, groups)

    # The gradient of a grouped kernel is grouped by examples, and stays what it is.
    check(convolved, x, kernel, after=groups == 1)


def test_channels_may_stand_anywhere():
    check(lambda x, k: lax.conv(x, k, (1, 2), "SAME"), normal(2, 3, 7, 6), normal(5, 3, 3, 3))
    across = ("HNWC", "OHWI", "CWHN")
    check(
        lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=across),
        normal(7, 2, 6, 3),
        normal(5, 3, 2, 3),
    )


def test_the_patches_of_a_vision_transformer():
    """A window of 100 places: cut, not sliced."""
    model = nn.Conv(4, (10, 10), strides=(10, 10))
    x = normal(2, 20, 30, 1)
    variables = model.init(jax.random.key(0), x)
    check(lambda kernel: model.apply({"params": {**variables["params"], "kernel": kernel}}, x), normal(10, 10, 1, 4))


@pytest.mark.parametrize("pool", [nn.max_pool, nn.avg_pool])
@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((2, 2), (2, 2), "VALID"),  # the last row of nine is left out
        ((2, 2), (2, 2), "SAME"),
        ((3, 3), (2, 2), "SAME"),  # overlapping
        ((3, 2), (1, 2), "VALID"),
    ],
)
def test_pooling_and_its_gradient(pool, window, strides, padding):
    # Whole numbers, many of them equal: the first of these has the gradient.
    x = np.round(normal(2, 9, 8, 3))
    check(lambda x: pool(x, window, strides, padding), x)


def test_pooling_over_everything():
    x = normal(2, 9, 8, 3)
    check(lambda x: nn.avg_pool(x, (9, 8)), x, after=False)


def test_second_derivatives_and_forward_mode():
    x = normal(1, 4, 4, 1)

    def curvature(pool):
        return jax.jvp(jax.grad(lambda x: (pool(x) ** 3).sum()), (x,), (x + 1,))[1]

    def pool(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    np.testing.assert_allclose(curvature(rewritten(pool)), curvature(pool), rtol=1e-6)


def test_loops_branches_and_checkpoints_are_looked_into():
    kernel = normal(3, 2, 2)

    def conv(x, kernel=kernel):
        return lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"))

    def nested(x, kernel):
        x, seen = lax.scan(lambda x, k: (jnp.tanh(conv(x, k)), x.sum()), x, jnp.stack([kernel, kernel + 1]))
        x = lax.cond(x.sum() > 0, conv, jnp.cos, x)
        x = lax.fori_loop(0, 2, lambda i, x: conv(x) / 2, x)
        x = lax.while_loop(lambda x: x.max() > 1, lambda x: conv(x) / 20, x)
        return jax.checkpoint(jax.jit(conv))(x) + seen.sum()

    x = normal(2, 6, 2)
    mine = rewritten(nested)
    assert left(nested, x, kernel)
    assert not left(mine, x, kernel)
    np.testing.assert_allclose(mine(x, kernel), nested(x, kernel), rtol=1e-5)


def test_what_is_not_known_stays_as_it_was():
    x, kernel = normal(4, 6, 2), normal(3, 2, 4)

    def grouped_by_examples(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1,), "SAME", None, None, ("NHC", "HIO", "NHC"), 1, 2)

    @jax.custom_jvp
    def own_derivative(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1,), "SAME", None, None, ("NHC", "HIO", "NHC"))

    own_derivative.defjvp(
        lambda primals, tangents: (own_derivative(*primals), tangents[0].sum() + jnp.zeros((4, 6, 4)))
    )
    for function in (grouped_by_examples, own_derivative):
        assert str(jax.make_jaxpr(rewritten(function))(x, kernel)) == str(jax.make_jaxpr(function)(x, kernel))
        np.testing.assert_array_equal(rewritten(function)(x, kernel), function(x, kernel))


def test_another_name_of_a_parameter_leaves_the_kernel_alone(monkeypatch):
    """As a later JAX may have it."""
    monkeypatch.setitem(KERNELS, "reduce_window_sum", lambda x, params: params["gone"])
    x = normal(2, 4, 4, 1)
    pooled = nn.avg_pool(x, (2, 2), (2, 2))
    np.testing.assert_array_equal(rewritten(lambda x: nn.avg_pool(x, (2, 2), (2, 2)))(x), pooled)
