"""Array types that annotations use, the arithmetic of array sizes, and the precision of sums."""

from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int32]
# Nested dicts, lists, tuples and the like of arrays, or an array: Python has no type for these.
PyTree = Any


@overload
def ceil_div(total: int, part: int) -> int: ...
@overload
def ceil_div(total: Any, part: Any) -> Any: ...
def ceil_div(total: Any, part: Any) -> Any:
    """Returns how many parts hold the total: ``total / part`` rounded up, for integers, arrays and traced values."""
    return -(-total // part)


def squared(values: jax.Array) -> jax.Array:
    """Returns ``|values|²``, (...): of complex numbers real² + imaginary², whose derivative at 0 is 0."""
    if not jnp.issubdtype(values.dtype, jnp.complexfloating):
        return jnp.square(values)
    return jnp.square(values.real) + jnp.square(values.imag)


def at_least_float32(values: Any) -> jax.Array:
    """Returns an array with float16, bfloat16 and other narrow floats as float32, and any other dtype as it is.

    A sum or mean of narrow floats is rounded to their few digits: 295 of 297 is 1 in bfloat16, and 65,520 is infinite
    in float16.

    Args:
      values: an array or a number, (...).
    """
    array = jnp.asarray(values)
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return array.astype(jnp.float32) if narrow else array
