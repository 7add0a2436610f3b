"""Operations on padded arrays give what they give on the small ones, whatever the padding holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.extend import core

from hpjax.engine.padding.rules import rule_of
from hpjax.engine.padding.values import Fill, NotPaddableError, Padded, shape_of, varies
from hpjax.engine.padding.walk import evaluate, sizes_of

SIZES = (3, 5, 4)


def grown(function, *, of=(0,)):
    """The function and its gradient with respect to some arguments, both from one trace."""

    def both(*arguments):
        value = function(*arguments)
        return value, jax.grad(lambda *own: jnp.sum(jnp.sin(function(*own))), argnums=of)(*arguments)

    return both


def scanned(x, w):
    return lax.scan(lambda c, row: (jnp.tanh(c @ w + row), c.sum()), x[0], x)


def looped(x, w):
    return lax.while_loop(lambda c: c[0] < 4, lambda c: (c[0] + 1, jax.nn.sigmoid(c[1] @ w)), (0, x))[1]


def convolved(x, k):
    return lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


# Of a size: the function, and the shapes of what it takes. Numbers are drawn; those of "int" are small and whole.
OPERATIONS = {
    "product": lambda n: (grown(jnp.matmul, of=(0, 1)), (2, n), (n, n + 1)),
    "products": lambda n: (grown(lambda x, y: jnp.einsum("bij,bkj->bik", x, y)), (n, 2, 3), (n, 4, 3)),
    "sigmoid between": lambda n: (grown(lambda x, v, w: jax.nn.sigmoid(x @ v) @ w, of=(1, 2)), (2, 4), (4, n), (n, 3)),
    "softmax": lambda n: (grown(lambda x: jax.nn.softmax(x)), (2, n)),
    "norm": lambda n: (grown(lambda x: jax.nn.standardize(x)), (2, n)),
    "mean and variance": lambda n: (grown(lambda x: x.mean(1) + x.var(0).max()), (2, n)),
    "largest": lambda n: (lambda x: (x.max(), x.min(), x.argmax(1), x.argmin(1), (x > 9).any(), (x < 9).all()), (2, n)),
    "whole numbers": lambda n: (lambda x: (x.max(), x.min(), x.sum(), x.prod()), (2, n, "int")),
    "products of padding": lambda n: (lambda x: (jnp.cos(x) + 1).prod(0), (3, n)),
    "sums along": lambda n: (lambda x: (jnp.cumsum(x, 1), jnp.cumsum(x, 0), lax.cumsum(x, 1, reverse=True)), (2, n)),
    "sorted across": lambda n: (lambda x: jnp.sort(x, 0), (3, n)),
    "reshaped": lambda n: (grown(lambda x: x.reshape(2, 2 * n) ** 2), (2, 2, n)),
    "heads": lambda n: (grown(lambda x: x.reshape(2, 3, n).transpose(1, 2, 0)), (2, 3 * n)),
    "gates": lambda n: (grown(lambda x: jnp.split(x, [n], 1)[1] ** 2), (2, 2 * n)),
    "thirds": lambda n: (grown(lambda x: lax.split(x, [n, 1, n], 1)[2] * 2), (2, 2 * n + 1)),
    "ranges": lambda n: (grown(lambda x: jnp.stack([x[:, 1:n], x[:, : n - 1]])), (2, n)),
    "joined": lambda n: (grown(lambda x, y: jnp.concatenate([x, y, x], 1) ** 2, of=(0, 1)), (2, n), (2, 2)),
    "stacked": lambda n: (grown(lambda x: jnp.stack([x, jnp.exp(x)])), (2, n)),
    "bordered": lambda n: (grown(lambda x: jnp.pad(x, ((0, 1), (n - 2, 3)))), (2, n)),
    "embedded": lambda n: (grown(lambda table, i: table[i]), (6, n), (4, "int")),
    "updated": lambda n: (lambda x, y: lax.dynamic_update_slice(x, y, (1, 0)), (3, n), (1, n)),
    "at a place": lambda n: (lambda x, i: lax.dynamic_index_in_dim(x, i[0], 0), (4, n), (1, "int")),
    "triangle": lambda n: (lambda x: jnp.where(jnp.tri(n, dtype=bool), x, -1).sum(1), (n, n)),
    "constants": lambda n: (lambda x: x * n**-0.5 + jnp.arange(n)[None] / n + jnp.asarray([n, 2 * n]).sum(), (2, n)),
    "turned around": lambda n: (lambda x: x[::-1], (2, n)),
    "if": lambda n: (lambda x: lax.cond(x[0, 0] > 0, jnp.exp, lambda x: x * 2, x).sum(1), (2, n)),
    "scan": lambda n: (scanned, (4, n), (n, n)),
    "while": lambda n: (looped, (2, n), (n, n)),
    "remat": lambda n: (lambda x, w: jax.checkpoint(lambda x: jnp.tanh(x @ w))(x), (2, n), (n, n)),
    "jit": lambda n: (jax.jit(grown(lambda x: jax.nn.gelu(x).sum(1))), (2, n)),
    "convolution": lambda n: (grown(convolved, of=(0, 1)), (2, 4, 4, n), (3, 3, n, n + 1)),
    "pooling": lambda n: (
        grown(lambda x: nn.max_pool(x, (2, 2), (2, 2)) + nn.avg_pool(x, (2, 2), (2, 2))),
        (2, 4, 4, n),
    ),
    "attention": lambda n: (grown(lambda q: nn.dot_product_attention(q, q, 2 * q)), (2, 3, 2, n)),
}


def given(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 4, shape[:-1]).astype(np.int32) if shape[-1] == "int" else rng.normal(size=shape).astype("f")
        for shape in shapes
    ]


def padded(small, number, fill):
    """Each argument of one size in an array as large as any; NaN in the padding where nothing may be known of it."""
    found = []
    for arrays in zip(*small, strict=True):
        sizes, own = sizes_of(arrays), arrays[number]
        inexact = own.dtype.kind == "f"
        content = fill if fill == 0 else np.nan if inexact else 9
        array = np.full(shape_of(sizes), content, own.dtype)
        array[tuple(map(slice, own.shape))] = own
        found.append(Padded(jnp.asarray(array), sizes, 0 if fill == 0 else Fill.UNKNOWN))
    return found


def check(build, fill):
    functions, small = [build(n)[0] for n in SIZES], [given(build(n)[1:]) for n in SIZES]
    jaxprs = [jax.make_jaxpr(function)(*arrays) for function, arrays in zip(functions, small, strict=True)]
    known = []

    @jax.jit
    def together(number, arrays):
        like = padded(small, 0, fill)
        own = [x._replace(array=array) for x, array in zip(like, arrays, strict=True)]
        found = evaluate(jaxprs, own, number, rule_of)
        known[:] = [(x.sizes, x.fill) for x in found]
        return [x.array for x in found]

    for number, arrays in enumerate(small):
        found = together(number, [x.array for x in padded(small, number, fill)])
        expected = core.jaxpr_as_fun(jaxprs[number])(*arrays)
        for array, (sizes, content), own in zip(found, known, expected, strict=True):
            assert array.shape == shape_of(sizes)
            inside = tuple(map(slice, own.shape))
            np.testing.assert_allclose(array[inside], own, rtol=1e-4, atol=1e-5)
            if not isinstance(content, Fill) and any(map(varies, sizes)):
                rest = np.ones(array.shape, bool)
                rest[inside] = False
                assert (np.asarray(array)[rest] == content).all()


@pytest.mark.parametrize("fill", [0, Fill.UNKNOWN], ids=["zeros", "anything"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_see_no_padding(name, fill):
    check(OPERATIONS[name], fill)


@pytest.mark.parametrize(
    "draw", [jax.random.normal, jax.random.bits, lambda key, shape: jax.random.bernoulli(key, 0.3, shape)]
)
def test_random_numbers_are_those_of_the_small_array(draw):
    key = jax.random.key(3)
    jaxprs = [jax.make_jaxpr(lambda key, n=n: draw(jax.random.fold_in(key, 1), (n, 2, n)))(key) for n in SIZES]
    drawn = jax.jit(lambda number: evaluate(jaxprs, [Padded(key, ())], number, rule_of)[0].array)
    for number, n in enumerate(SIZES):
        assert (drawn(number)[:n, :, :n] == draw(jax.random.fold_in(key, 1), (n, 2, n))).all()


def test_arithmetic_on_zeros_needs_no_mask():
    """A dense network with ReLU and Adam keeps the zeros in its padding by itself: nothing is selected for it."""

    def step(w, v, m, x):
        def loss(w):
            return jnp.mean((jax.nn.relu(x @ w) @ v) ** 2)

        slope = jax.grad(loss)(w)
        m = 0.9 * m + 0.1 * slope
        return w - 0.1 * m / (jnp.sqrt(slope**2) + 1e-8) - 0.01 * w, m

    shapes = [((4, n), (n, 2), (4, n), (3, 4)) for n in SIZES]
    jaxprs = [jax.make_jaxpr(step)(*map(np.zeros, own)) for own in shapes]
    sizes = [tuple(zip(*own, strict=True)) for own in zip(*shapes, strict=True)]
    arrays = [Padded(jnp.zeros(shape_of(own)), own, 0 if any(map(varies, own)) else Fill.COPIES) for own in sizes]
    assert [x.fill for x in evaluate(jaxprs, arrays, 0, rule_of)] == [0, 0]


UNPADDABLE = {
    "sort is along": lambda n: (jnp.sort, (n,)),
    "different operations": lambda n: ((lambda x: x * 2) if n == 3 else jnp.exp, (2,)),
    "reduce_sum has another axes": lambda n: (lambda x: x.sum(int(n > 3)), (2, 2)),
    "close over different arrays": lambda n: (lambda x: x + np.full((99, 99), n), (99, 99)),
    "single elements along": lambda n: (lambda x: x[jnp.array([0, 2])], (n,)),
}


@pytest.mark.parametrize("why", UNPADDABLE)
def test_what_cannot_be_padded_is_named(why):
    with pytest.raises(NotPaddableError, match=why):
        check(UNPADDABLE[why], 0)
