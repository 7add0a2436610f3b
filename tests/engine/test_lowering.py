"""Rewritten kernels: convolutions and pooling give what XLA's own give, with their gradients, and collapse no more."""

from contextlib import nullcontext

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from hpjax.core.fallback import warn_once
from hpjax.engine import lowering as module
from hpjax.engine.lowering import CALLS, WINDOWS, draws, has_windows, lowered, lowering

WINDOWED = ("conv_general_dilated", "reduce_window", "select_and_scatter")


@pytest.fixture(autouse=True)
def told_anew():
    """What other tests were told does not count as told."""
    warn_once.cache_clear()


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


def check(function, *args, told=None):
    """Values and gradients are those of XLA's kernels, whether gradients are taken before or after the rewriting.

    Args:
      function: of the arrays.
      args: the arrays.
      told: None where its gradients, taken before, can be rewritten too; else why they cannot, as the warning says.
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
    with pytest.warns(RuntimeWarning, match=told) if told else nullcontext():
        assert bool(left(late, *args)) is bool(told)

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
    check(convolved, x, kernel, told=None if groups == 1 else "conv_general_dilated: not .* grouped by examples")


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
    check(lambda x: nn.avg_pool(x, (9, 8)), x, told="reduce_window_sum: not .* a window of 72 places")


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
    told = "conv_general_dilated: not .* grouped by examples", "within custom_jvp_call: not .* not looked into"
    for function, reason in zip((grouped_by_examples, own_derivative), told, strict=True):
        assert has_windows(jax.make_jaxpr(function)(x, kernel))
        with pytest.warns(RuntimeWarning, match=reason):
            assert str(jax.make_jaxpr(rewritten(function))(x, kernel)) == str(jax.make_jaxpr(function)(x, kernel))
        np.testing.assert_array_equal(rewritten(function)(x, kernel), function(x, kernel))


def convolved(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"))


@pytest.mark.parametrize(
    ("least", "width", "told"),
    [(np.float32(-np.inf), 65, "a window of 65 places"), (np.int32(-(2**31)), 3, "its numbers are int32")],
)
def test_large_windows_and_integers_are_told(least, width, told):
    function = rewritten(lambda x: lax.reduce_window(x, least, lax.max, (width,), (1,), "SAME"))
    with pytest.warns(RuntimeWarning, match=f"reduce_window_max: not .* {told}"):
        assert left(function, jnp.ones(80, least.dtype))


def test_nothing_is_lost_and_nothing_told_where_there_is_nothing_to_compute():
    assert rewritten(convolved)(normal(0, 6, 2), normal(3, 2, 4)).shape == (0, 6, 4)
    assert rewritten(convolved)(normal(2, 6, 0), normal(3, 0, 4)).sum() == 0


SIX, KERNEL = normal(2, 6, 2), normal(3, 2, 2)
USES = {
    "conv_general_dilated": convolved,
    "reduce_window_sum": lambda x, k: nn.avg_pool(x, (2,), (2,)),
    "reduce_window_max": lambda x, k: nn.max_pool(x, (2,), (2,)),
    "select_and_scatter_add": jax.grad(lambda x, k: nn.max_pool(x, (2,), (2,)).sum()),
    "jit": jax.jit(convolved),
    "remat2": jax.checkpoint(convolved),
    "scan": lambda x, k: lax.fori_loop(0, 2, lambda _, x: convolved(x, k) / 2, x),
    "cond": lambda x, k: lax.cond(x.sum() > 0, convolved, lambda x, k: x, x, k),
    "while": lambda x, k: lax.while_loop(lambda x: x.max() > 1, lambda x: convolved(x, k) / 20, x),
}


def test_there_is_a_use_of_each_primitive():
    assert {*USES} == {*WINDOWS, *CALLS}


@pytest.mark.parametrize("name", USES)
def test_a_parameter_of_another_name_leaves_the_operation_alone_and_is_told_once(name, monkeypatch):
    """As a later JAX may have it."""
    function = USES[name]
    assert not left(rewritten(function), SIX, KERNEL)
    if name in WINDOWS:
        known = WINDOWS[name]
        monkeypatch.setitem(WINDOWS, name, lambda *args: known(*args[:-1], {}))
    else:
        known = CALLS[name]
        monkeypatch.setitem(CALLS, name, lambda params, args: known({}, args))
    with pytest.warns(RuntimeWarning, match=rf"\b{name}: not rewritten .* jax {jax.__version__} .*KeyError") as caught:
        found = [rewritten(function)(SIX, KERNEL) for _ in range(2)]
    assert len(caught) == 1
    assert left(rewritten(function), SIX, KERNEL)
    for each in found:
        np.testing.assert_array_equal(each, function(SIX, KERNEL))


def test_a_primitive_of_another_name_is_told(monkeypatch):
    names = module.primitive_names
    monkeypatch.setattr(
        module, "primitive_names", lambda jaxpr: {name.replace("conv_general", "convolution") for name in names(jaxpr)}
    )
    monkeypatch.setattr(module, "_renamed", module._renamed.__wrapped__)
    with pytest.warns(RuntimeWarning, match="^conv_general_dilated: .* has another name for it") as caught:
        assert not has_windows(jax.make_jaxpr(convolved)(SIX, KERNEL))
    assert len(caught) == 1


def test_jaxprs_that_cannot_be_taken_apart_are_told(monkeypatch):
    def evaluate(*_):
        raise AttributeError("'Jaxpr' object has no attribute 'replace'")

    monkeypatch.setattr(module, "evaluate_unchanged", evaluate)
    function = lambda x, kernel: convolved(x, kernel) + 1
    with pytest.warns(RuntimeWarning, match="^convolutions and pooling: not .* no attribute 'replace'"):
        np.testing.assert_array_equal(rewritten(function)(SIX, KERNEL), function(SIX, KERNEL))


def drawing(key, x):
    """Draws in a loop, in branches, under vmap, and with keys that are split or folded."""

    def turn(carry, key):
        more = jax.lax.cond(carry[0] > 0, lambda k: jax.random.normal(k, carry.shape), lambda k: carry * 2, key)
        return carry + more, jax.random.permutation(key, 7)

    keys = jax.random.split(jax.random.fold_in(key, 3), 4)
    last, orders = jax.lax.scan(turn, x, keys)
    return last, orders, jax.vmap(lambda k: jax.random.bernoulli(k, 0.3, (5,)))(keys), jax.random.key_data(keys)


def test_draws_have_the_bits_of_jax():
    key, x = jax.random.key(5), jnp.ones(3)

    def run(key, x):
        with lowering(False, draws=True):
            return lowered(drawing)(key, x)

    for found, expected in zip(jax.jit(run)(key, x), jax.jit(drawing)(key, x), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert draws(jax.make_jaxpr(drawing)(key, x))
    assert not draws(jax.make_jaxpr(run)(key, x)), "all by the other kernel"
    assert not draws(jax.make_jaxpr(lambda x: x * 2)(x))
