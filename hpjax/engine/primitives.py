"""The primitives of a jaxpr, by name."""

from collections.abc import Iterator

from jax.extend import core


def primitive_names(jaxpr: core.Jaxpr) -> frozenset[str]:
    """Returns the names of all primitives in a jaxpr and in those within it.

    Example:
      >>> sorted(primitive_names(jax.make_jaxpr(jax.jit(lambda x: jnp.sin(x) + 1))(1.0).jaxpr))
      ['add', 'jit', 'sin']
    """
    return frozenset(_names(jaxpr))


def _names(jaxpr: core.Jaxpr) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in core.jaxprs_in_params(equation.params):
            yield from _names(inner)
