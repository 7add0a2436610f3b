"""Sums over the turns of a loop are the same taken after it; loops that gain nothing by that stay as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from hpjax.core.fallback import warn_once
from hpjax.engine.lowering import lowered, lowering

RNG = np.random.default_rng(0)


def rewritten(function):
    def run(*args):
        with lowering(False, fused=True):
            return lowered(function)(*args)

    return run


def carried(function, *args):
    """How many values each loop of a function carries."""
    loops = [e.params for e in jax.make_jaxpr(function)(*args).jaxpr.eqns if e.primitive.name == "scan"]
    # Since jax 0.12 there is one parameter of all inputs.
    return [len(p["ft_in"].unpack()[1]) if "ft_in" in p else p["num_carry"] for p in loops]


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def close(ours, theirs):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6 * float(jnp.abs(other).max()))


@pytest.mark.parametrize(("cell", "state"), [(nn.OptimizedLSTMCell, 2), (nn.LSTMCell, 2), (nn.GRUCell, 1)])
def test_gradients_of_recurrent_networks(cell, state):
    """Against JAX's own; of what is carried backward only the state's gradient is left."""
    model, x, y = nn.RNN(cell(16)), normal(4, 9, 3), normal(4, 9, 16)
    parameters = model.init(jax.random.key(0), x)
    gradient = jax.grad(lambda p: ((model.apply(p, x) - y) ** 2).mean())
    own = rewritten(gradient)
    forward, backward = carried(gradient, parameters)
    assert forward == state < backward
    assert carried(own, parameters) == [state, state]
    close(jax.jit(own)(parameters), jax.jit(gradient)(parameters))
    lanes = jax.tree.map(lambda p: jnp.stack([p, 2 * p, -p]), parameters)
    close(jax.jit(jax.vmap(own))(lanes), jax.jit(jax.vmap(gradient))(lanes))


def summed(a, b, begin, reverse=False):
    """The sum of products over turns, which begins with something else than zeros, and the last value of another."""

    def turn(carry, each):
        total, state = carry
        x, y = each
        return (total + x.T @ (y * state), jnp.tanh(state + y.mean())), x.sum()

    return lax.scan(turn, (begin, jnp.float32(0.3)), (a, b), reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sum_begins_with_what_it_begins_with(reverse):
    given = normal(5, 2, 6), normal(5, 2, 7), normal(6, 7)
    ours, theirs = (f(lambda *args: summed(*args, reverse))(*given) for f in (rewritten, lambda f: f))
    close(ours, theirs)
    assert carried(rewritten(summed), *given) == [1]
    want = given[2] + np.einsum("tbi,tbj->ij", given[0], _scaled(given[1], reverse))
    np.testing.assert_allclose(ours[0][0], want, rtol=1e-4, atol=1e-5)


def _scaled(b, reverse):
    """What each turn multiplies with, by a loop of Python."""
    order, state, found = range(len(b)), 0.3, np.zeros(b.shape)
    for t in reversed(order) if reverse else order:
        found[t] = b[t] * state
        state = np.tanh(state + np.mean(b[t]))
    return found


def stays(turn, *begin, inputs=None):
    """Whether a loop carries as many values as before; it gives the same either way."""
    inputs = normal(5, 2, 6) if inputs is None else inputs

    def looped(begin, inputs):
        return lax.scan(turn, begin, inputs)

    close(rewritten(looped)(begin, inputs), looped(begin, inputs))
    return carried(rewritten(looped), begin, inputs) == [len(begin)]


def test_what_is_used_in_the_loop_or_is_no_sum_stays():
    assert stays(lambda c, x: ((c[0] + x.T @ x, c[1] + c[0].sum()), None), normal(6, 6), jnp.float32(0))
    assert stays(lambda c, x: ((c[0] + x.T @ x,), c[0]), normal(6, 6))
    assert stays(lambda c, x: ((c[0] * 2 + x.T @ x,), None), normal(6, 6))
    assert stays(lambda c, x: ((c[0] - x.T @ x,), None), normal(6, 6))
    assert stays(lambda c, x: ((c[0] + jnp.tanh(x.T @ x),), None), normal(6, 6))
    assert stays(lambda c, x: ((c[0] + c[0],), (x @ x.T).sum()), normal(6, 6))
    assert stays(lambda c, x: ((c[0] + jnp.reshape(1.0, (1,)),), (x @ x.T).sum()), normal(1))


def gram(x):
    """A product whose operands are stacked already."""
    return jnp.einsum("bi,bj->ij", x, x)


def test_a_product_that_the_loop_needs_is_not_computed_twice():
    assert not stays(lambda c, x: ((c[0] + gram(x),), None), normal(6, 6))
    assert not stays(lambda c, x: ((c[0] + gram(x),), (gram(x) ** 2).sum()), normal(6, 6)), "another product"

    def shared(c, x):
        product = gram(x)
        return (c[0] + product,), (product**2).sum()

    assert stays(shared, normal(6, 6))


def test_what_a_turn_gives_is_stacked_once():
    def turn(c, each):
        x, other = each
        y = jnp.sin(x)
        return (c[0] + jnp.einsum("bi,bj->ij", x, y),), (y, other)

    def looped(begin, inputs):
        return lax.scan(turn, begin, inputs)

    given = (normal(6, 6),), (normal(5, 2, 6), normal(5, 2, 6))
    assert carried(rewritten(looped), *given) == [0]
    (loop,) = (e for e in jax.make_jaxpr(rewritten(looped))(*given).jaxpr.eqns if e.primitive.name == "scan")
    assert len(loop.outvars) == 1
    close(rewritten(looped)(*given), looped(*given))


def test_types_that_a_sum_after_the_loop_would_change():
    """Whole parts are no sum of halves, and a sum of float16 ends at 65,504."""
    half = jnp.full((5, 2, 6), 0.5)
    assert stays(lambda c, x: ((c[0] + gram(x).astype(jnp.int32),), None), jnp.zeros((6, 6), jnp.int32), inputs=half)
    large = jnp.full((100, 1, 6), 30, jnp.float16)
    assert stays(lambda c, x: ((c[0] + gram(x).astype(jnp.float32),), None), jnp.zeros((6, 6)), inputs=large)


def test_constants_that_print_alike_are_not_the_same():
    a, b = np.float32(0.000123454), np.float32(0.00012345)

    def turn(c, each):
        x, _ = each
        return (c[0] + jnp.einsum("bi,bj->ij", x * a, x * b) * 1.0, c[1] + jnp.einsum("bi,bj->ij", x * a, x * b)), None

    def looped(x):
        return lax.scan(turn, (jnp.zeros((6, 6)),) * 2, (x, jnp.zeros((5, 4, 6))))[0]

    x = normal(5, 2, 6)
    assert carried(rewritten(looped), x) == [1]
    np.testing.assert_allclose(rewritten(looped)(x)[1], np.float64(a) * b * np.einsum("tbi,tbj->ij", x, x), rtol=1e-5)


def test_what_is_larger_than_the_sum_is_not_stacked():
    def beside(turn):
        """The same, which also stacks twice as much for something else."""
        return lambda c, each: (turn(c, each[0])[0], each[1].sum())

    def kept(turn, *begin, inputs):
        return stays(beside(turn), *begin, inputs=(inputs, jnp.concatenate([inputs, inputs], -1)))

    x, narrow = normal(5, 2, 6), normal(5, 2, 1)
    assert not kept(lambda c, x: ((c[0] + gram(jnp.sin(x)),), None), normal(6, 6), inputs=x)
    assert kept(lambda c, x: ((c[0] + gram(jnp.sin(x)),), None), normal(1, 1), inputs=narrow), "2 numbers for 1"
    # Less than the sum, and still more than all that the loop stacks otherwise.
    assert stays(lambda c, x: ((c[0] + jnp.einsum("bi,bj->ij", jnp.sin(x), jnp.cos(x)),), None), normal(6, 6), inputs=x)


@pytest.mark.parametrize("features", [3, 784])
def test_microbatches_stay_small(features):
    """A loop over microbatches is there to keep little of all, and what it reads all lanes share."""
    weights = normal(features, 32), normal(32, 32), normal(32, 2)

    def loss(weights, x):
        for w in weights:
            x = jnp.tanh(x @ w)
        return x.sum()

    def total(weights, batches):
        def turn(total, x):
            return jax.tree.map(jnp.add, total, jax.grad(loss)(weights, x)), None

        return lax.scan(turn, jax.tree.map(jnp.zeros_like, weights), batches)[0]

    batches = normal(6, 2, features)
    close(jax.jit(rewritten(total))(weights, batches), jax.jit(total)(weights, batches))
    assert carried(rewritten(total), weights, batches) == [3]


def test_bfloat16_rounds_once():
    def total(x, y):
        def turn(total, each):
            return total + jnp.einsum("bi,bj->ji", *each).astype(jnp.bfloat16), None

        return lax.scan(turn, jnp.zeros((6, 6), jnp.bfloat16), (x, y))[0]

    x, y = normal(64, 4, 6), normal(64, 4, 6)
    assert carried(rewritten(total), x, y) == [0]
    exact = np.einsum("tbi,tbj->ji", np.float64(x), np.float64(y))
    ours, theirs = (np.float64(f(total)(x, y).astype(jnp.float32)) for f in (rewritten, lambda f: f))
    assert (np.abs(ours - exact) <= 2.0**-8 * np.abs(exact)).all()
    assert (np.abs(theirs - exact) > 2.0**-8 * np.abs(exact)).any()


@pytest.mark.parametrize("kind", [np.int8, np.int32])
def test_sums_of_integers(kind):
    def total(x):
        def turn(c, x):
            return (c[0] + gram(x), c[1] + lax.reduce_sum_p.bind(x, axes=(0,), out_sharding=None)), None

        return lax.scan(turn, (jnp.zeros((6, 6), kind), jnp.zeros(6, kind)), x)[0]

    ones = jnp.ones((5, 2, 6), kind)
    assert carried(rewritten(total), ones) == [0]
    products, sums = rewritten(total)(ones)
    assert products.tolist() == [[10] * 6] * 6
    assert sums.tolist() == [10] * 6
    assert products.dtype == sums.dtype == kind


def test_a_loop_of_another_jax_is_told_once(monkeypatch):
    def unknown(*_):
        raise AttributeError("no such thing")

    monkeypatch.setattr("hpjax.engine.lowering.loop_sums", unknown)
    warn_once.cache_clear()
    given = normal(5, 2, 6), normal(5, 2, 7), normal(6, 7)
    told = rf"^scan: computed as JAX has it, .*jax {jax.__version__} is not known to hpjax here"
    with pytest.warns(RuntimeWarning, match=told) as caught:
        ours = [rewritten(summed)(*given) for _ in range(2)]
    assert len(caught) == 1
    close(ours[1], summed(*given))
