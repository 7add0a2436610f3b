"""The work in a jaxpr, against counts by hand; what is not counted is told."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from hpjax.core.fallback import warn_once
from hpjax.engine import flops
from hpjax.engine.flops import Work, mark, parts
from hpjax.engine.primitives import primitive_names


def work(function, *shapes):
    return parts(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).jaxpr)


def test_products_and_convolutions_and_loops():
    (product,) = work(jnp.matmul, (3, 4), (4, 5))
    assert product == Work(2 * 3 * 4 * 5, equations=1)
    (batched,) = work(jnp.matmul, (7, 3, 4), (7, 4, 5))
    assert batched.flops == 7 * 2 * 3 * 4 * 5
    (convolved,) = work(lambda x, k: lax.conv(x, k, (1, 1), "VALID"), (2, 3, 6, 6), (8, 3, 3, 3))
    assert convolved.flops == 2 * (2 * 8 * 4 * 4) * (3 * 3 * 3)
    (grouped,) = work(
        lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "VALID", feature_group_count=3), (2, 3, 6, 6), (6, 1, 3, 3)
    )
    assert grouped.flops == 2 * (2 * 6 * 4 * 4) * (3 * 3)
    (looped,) = work(lambda x: lax.fori_loop(0, 9, lambda _, x: x @ x, x), (4, 4))
    assert looped.flops == 9 * 2 * 4**3


def test_products_of_16_bits_are_told_apart():
    half = jax.ShapeDtypeStruct((4, 4), jnp.bfloat16)

    def both(x, y):
        return lax.fori_loop(0, 3, lambda _, x: x @ x, x).astype(jnp.float32) @ y

    (found,) = parts(jax.make_jaxpr(both)(half, jax.ShapeDtypeStruct((4, 5), jnp.float32)).jaxpr)
    assert found.narrow == 3 * 2 * 4**3
    assert found.flops == found.narrow + 2 * 4 * 4 * 5


def test_what_takes_a_core_longer_counts_more():
    assert work(lambda x: jnp.tanh(x) + x, (3, 5)) == [Work(0, 2 * 15, (3 + 1) * 15, 2)]
    assert work(jnp.transpose, (3, 5)) == [Work(0, 15, 8 * 15, 1)]
    assert work(lambda x: x[None], (3, 5)) == [Work(0, 15, 0, 1)]


def test_reductions_count_by_what_they_read():
    for reduced in (jnp.sum, jnp.max, lambda x: x.sum(0), lambda x: lax.cumsum(x)):
        assert work(reduced, (3, 5)) == [Work(0, 15, 32 * 15, 1)]
    (mean,) = work(lambda x: lax.reduce_precision(x, 8, 7), (3, 5))
    assert mean.weighted == 15


X = jnp.ones((3, 5))
# Public functions, each with the primitive by which JAX computes it.
PUBLIC = {
    "cbrt": lambda: jnp.cbrt(X),
    "cos": lambda: jnp.cos(X),
    "div": lambda: X / X,
    "erf": lambda: jax.scipy.special.erf(X),
    "erf_inv": lambda: jax.scipy.special.erfinv(X),
    "exp": lambda: jnp.exp(X),
    "exp2": lambda: jnp.exp2(X),
    "expm1": lambda: jnp.expm1(X),
    "log": lambda: jnp.log(X),
    "log1p": lambda: jnp.log1p(X),
    "logistic": lambda: jax.nn.sigmoid(X),
    "pow": lambda: X**X,
    "rsqrt": lambda: lax.rsqrt(X),
    "sin": lambda: jnp.sin(X),
    "sqrt": lambda: jnp.sqrt(X),
    "tan": lambda: jnp.tan(X),
    "tanh": lambda: jnp.tanh(X),
    "broadcast_in_dim": lambda: jnp.broadcast_to(X, (2, 3, 5)),
    "copy": lambda: jnp.copy(X),
    "iota": lambda: lax.iota(int, 3),
    "reshape": lambda: X.reshape(5, 3),
    "squeeze": lambda: X[:1].squeeze(0),
    "concatenate": lambda: jnp.concatenate([X, X]),
    "dynamic_slice": lambda: lax.dynamic_slice(X, (0, 0), (1, 2)),
    "dynamic_update_slice": lambda: lax.dynamic_update_slice(X, X[:1], (1, 0)),
    "gather": lambda: X[jnp.array([2, 0])],
    "pad": lambda: jnp.pad(X, 1),
    "rev": lambda: X[::-1],
    "scatter": lambda: X.at[jnp.array([2, 0])].set(0.0),
    "scatter-add": lambda: X.at[jnp.array([2, 0])].add(1.0),
    "slice": lambda: lax.slice(X, (0, 0), (2, 2)),
    "split": lambda: jnp.split(X, 3),
    "transpose": lambda: X.T,
    "random_bits": lambda: jax.random.bits(jax.random.key(0), (3,)),
    "sort": lambda: jnp.sort(X),
}


@pytest.mark.parametrize("name", flops.WEIGHTS)
def test_jax_has_the_operations_that_take_longer_under_these_names(name):
    names = primitive_names(jax.make_jaxpr(PUBLIC[name])().jaxpr)
    assert name in names


@pytest.mark.parametrize(
    ("function", "names"), [(jnp.sum, "reduce_sum"), (jnp.argmax, "argmax"), (jnp.cumsum, "cumsum")]
)
def test_jax_has_reductions_under_these_names(function, names):
    assert names in primitive_names(jax.make_jaxpr(function)(X).jaxpr)
    assert flops.REDUCTION.match(names)


def test_marks_part_a_program():
    def three(x):
        x = x @ x
        mark()
        x = jnp.negative(x)
        mark()
        return x

    assert [(each.flops, each.elements) for each in work(three, (2, 2))] == [(16, 0), (0, 4), (0, 0)]


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("dot_general", "dimension_numbers"), ("conv_general_dilated", "dimension_numbers"), ("scan", "length")],
)
def test_a_parameter_of_another_name_is_told_once(name, parameter, monkeypatch):
    """As a later JAX may have it."""
    known = flops._work_of

    def without(equation):
        if equation.primitive.name != name:
            return known(equation)
        return known(equation.replace(params={k: v for k, v in equation.params.items() if k != parameter}))

    warn_once.cache_clear()
    monkeypatch.setattr(flops, "_work_of", without)
    monkeypatch.setattr(flops, "_miscounted", flops._miscounted.__wrapped__)
    told = rf"^{name}: its work is not counted, because jax {jax.__version__}"
    with pytest.warns(RuntimeWarning, match=told) as caught:
        assert [work(jnp.negative, (n,)) for n in (2, 3)] == [[Work(0, 2, 2, 1)], [Work(0, 3, 3, 1)]]
    assert len(caught) == 1
