"""Sums of arrays that have axes of size 1, such as second derivatives leave in them.

On a CPU XLA sums a product that it has not yet computed many times as slowly where there is such an axis.
"""

from math import prod
from typing import Any

import jax
from jax import lax
from jax.extend import core

from hpjax.engine.conv_kernels import NotRewrittenError
from hpjax.engine.primitives import equations

# Arrays of fewer numbers take no time either way.
LEAST = 2**12


def has_thin_sums(closed: core.ClosedJaxpr) -> bool:
    """Returns whether a jaxpr, or one within it, has sums for which ``thin_sum`` is faster."""
    for equation in equations(closed.jaxpr):
        if equation.primitive.name == "reduce_sum":
            operand: Any = equation.invars[0].aval
            if _is_thin(operand.shape, equation.params.get("axes")):
                return True
    return False


def _is_thin(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> bool:
    return axes is not None and 1 in shape and prod(shape) >= LEAST and any(shape[axis] > 1 for axis in axes)


def thin_sum(operand: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Computes ``reduce_sum`` of an array without its axes of size 1.

    Args:
      operand: numbers of any shape.
      params: the parameters of ``reduce_sum``.

    Raises:
      NotRewrittenError: it has no such axis, or is small.
    """
    shape, axes = operand.shape, params["axes"]
    if not _is_thin(shape, axes):
        raise NotRewrittenError("no axis of it is in the way")
    wide = [axis for axis, size in enumerate(shape) if size > 1]
    found = lax.reduce_sum(operand.reshape([shape[axis] for axis in wide]), [wide.index(a) for a in axes if a in wide])
    return found.reshape([size for axis, size in enumerate(shape) if axis not in axes])
