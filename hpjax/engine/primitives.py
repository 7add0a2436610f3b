"""The primitives of a jaxpr, by name, and whether lanes can share a program that consists of them.

It goes by the primitives that ``jax.extend.core.primitives``, ``jax.lax`` and ``jax.lax.linalg`` list, as they are in
jax 0.10.2 (the oldest that hpjax takes) to 0.12. Fallback: a program with a primitive that no longer is among them is
traced once more when it is planned.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend.core import primitives

from hpjax.core.hashing import digest

# Listed ones that may fail once lanes share a program, or where the mesh of the lanes is current.
_DEPENDENT = {
    *("all_gather", "all_to_all", "axis_index", "pmax", "pmin", "ppermute", "psum", "ragged_all_to_all"),
    *("sharding_constraint", "rng_uniform", "create_token", "after_all", "custom_lin"),
}


def primitive_names(jaxpr: core.Jaxpr) -> frozenset[str]:
    """Returns the names of all primitives in a jaxpr and in those within it.

    Example:
      >>> sorted(primitive_names(jax.make_jaxpr(jax.jit(lambda x: jnp.sin(x) + 1))(1.0).jaxpr))
      ['add', 'jit', 'sin']
    """
    return frozenset(_names(jaxpr))


def operations(jaxpr: core.Jaxpr) -> str:
    """Returns a digest of the operations of a jaxpr and of those within it, in their order, whatever the sizes."""
    return digest(" ".join(_names(jaxpr)))


def coarsest(jaxpr: core.Jaxpr) -> float:
    """Returns the distance from 1 to the next number in the least precise floating-point type of a jaxpr's values.

    Those of jaxprs within it count, too. It is 0 where there are none.

    Example:
      >>> coarsest(jax.make_jaxpr(lambda x: jnp.sin(x.astype(jnp.bfloat16)))(1.0).jaxpr)
      0.0078125
    """
    values: list[Any] = [v.aval for equation in equations(jaxpr) for v in equation.outvars]
    return max(map(spacing, {value.dtype for value in values if hasattr(value, "dtype")}), default=0.0)


def spacing(dtype: Any) -> float:
    """Returns the distance from 1 to the next number of a floating-point type, 0 for any other."""
    finfo: Any = jnp.finfo
    return float(finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def zeros(jaxpr: core.Jaxpr) -> tuple[bool, ...]:
    """Returns for each output of a jaxpr whether it is plain to see that all of its numbers are zeros.

    An output of -0.0 does not count as zeros, because its bits are others than those of 0.0.
    """
    filled = {e.outvars[0]: e.invars[0] for e in jaxpr.eqns if e.primitive.name == "broadcast_in_dim"}

    def zero(atom: Any) -> bool:
        atom = atom if isinstance(atom, core.Literal) else filled.get(atom)
        return isinstance(atom, core.Literal) and not np.any(atom.val) and not np.any(np.signbit(atom.val))

    return tuple(map(zero, jaxpr.outvars))


def uncertain(closed: core.ClosedJaxpr) -> tuple[str, ...]:
    """Returns what in a traced program may fail for many lanes on several devices, by name; none is the rule.

    That is all but arithmetic of JAX's own on arrays of one device: callbacks, side effects, operations that name
    devices, and those of other libraries.
    """
    several = any(isinstance(c, jax.Array) and len(c.sharding.device_set) > 1 for c in closed.consts)
    effects = ["side effects"] * bool(closed.effects) + ["arrays on several devices"] * several
    return (*sorted(primitive_names(closed.jaxpr) - _certain()), *effects)


@cache
def _certain() -> frozenset[str]:
    """Returns the primitives that neither other lanes nor the devices matter to."""
    listed = [value for module in (primitives, lax, lax.linalg) for value in vars(module).values()]
    names = {value.name for value in listed if isinstance(value, core.Primitive)}
    return frozenset((names | {"random_wrap", "random_unwrap", "platform_index"}) - _DEPENDENT)


def equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Yields the equations of a jaxpr and of those within it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def _names(jaxpr: core.Jaxpr) -> Iterator[str]:
    return (equation.primitive.name for equation in equations(jaxpr))


def moves_examples(jaxpr: core.Jaxpr) -> bool:
    """Returns whether something may move what lies along the first axis of an array, as that of examples, along it."""
    return any(_moves(equation) for equation in equations(jaxpr))


def _moves(equation: core.JaxprEqn) -> bool:
    params, name = equation.params, equation.primitive.name
    if name == "rev":
        return 0 in params["dimensions"]
    if name == "concatenate":
        return bool(params["dimension"] == 0)
    if name.startswith("cum"):
        return bool(params["axis"] == 0)
    if name in ("slice", "dynamic_slice", "pad", "reduce_window_sum", "reduce_window_max", "reduce_window_min"):
        given: Any = equation.invars[0].aval
        made: Any = equation.outvars[0].aval
        before, after = given.shape, made.shape
        return bool(before and (before[0] != after[0] or name.startswith("reduce_window")))
    return False
