"""Padded values: arrays as large as in the largest of several programs, and what is known of their padding. Pure."""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# The sizes of one axis, one for each program.
Sizes = tuple[int, ...]


class NotPaddableError(Exception):
    """Raised where several programs are not one but for sizes and constants; the message says where they differ."""


class Fill(Enum):
    """What the padding of a value holds where that is no known number.

    Attributes:
      COPIES: what the value holds elsewhere at the same place of the other axes: it was broadcast. It is finite where
        the value is.
      UNKNOWN: anything, NaN too.
    """

    COPIES = 0
    UNKNOWN = 1


class Padded(NamedTuple):
    """An array of which a part, at the beginning of each axis, is the value; the rest is padding.

    Attributes:
      array: the array, as large along each axis as the largest of ``sizes``.
      sizes: for each axis the size of the value in each program.
      fill: what the padding holds: a number, or a ``Fill``. Of a value without padding a number means that it is that
        number everywhere.
    """

    array: Any
    sizes: tuple[Sizes, ...]
    fill: Any = Fill.COPIES

    @property
    def padded(self) -> bool:
        """Whether it has padding in some program."""
        return any(map(varies, self.sizes))

    @property
    def uniform(self) -> bool:
        """Whether it does not vary along the axes that have padding."""
        return self.fill is Fill.COPIES or not self.padded


def varies(sizes: Sizes) -> bool:
    """Returns whether an axis has another size in some program."""
    return len(set(sizes)) > 1


def shape_of(sizes: Sequence[Sizes]) -> tuple[int, ...]:
    """Returns the shape of the array that holds a value of these sizes."""
    return tuple(map(max, sizes))


def chosen(numbers: Sequence[Any], program: Any) -> Any:
    """Returns the number of one program: a Python number where all have the same, else an array, ().

    Args:
      numbers: a number for each program.
      program: the number of the program, int32 ().
    """
    return numbers[0] if len(set(numbers)) == 1 else jnp.asarray(np.array(numbers, np.int32))[program]


def inside(sizes: Sequence[Sizes], program: Any) -> jax.Array:
    """Returns which elements of a padded array are the value, bool, of its shape or 1 along axes without padding."""
    shape, found = shape_of(sizes), jnp.ones((1,) * len(sizes), bool)
    for axis, own in enumerate(sizes):
        if varies(own):
            place = lax.broadcasted_iota(jnp.int32, tuple(n if i == axis else 1 for i, n in enumerate(shape)), axis)
            found &= place < chosen(own, program)
    return found


def filled(x: Padded, number: Any, program: Any) -> Padded:
    """Returns a value with a number in its padding."""
    if not x.padded or x.fill == number:
        return x
    mask = jnp.broadcast_to(inside(x.sizes, program), x.array.shape)
    return x._replace(array=lax.select(mask, x.array, jnp.full_like(x.array, number)), fill=number)


def joined(values: Sequence[Padded]) -> Any:
    """Returns the fill of what may be any of several values of the same sizes."""
    fills = [x.fill for x in values]
    if all(fill == fills[0] for fill in fills):
        return fills[0]
    return Fill.COPIES if all(x.uniform for x in values) else Fill.UNKNOWN


# What operations make of numbers. An operation that is missing here gives an unknown fill, no wrong one.
NUMBERS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "copy": np.positive,
    "cos": np.cos,
    "div": np.divide,
    "eq": np.equal,
    "exp": np.exp,
    "expm1": np.expm1,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "log": np.log,
    "log1p": np.log1p,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "one_minus_square": lambda x: 1 - x * x,
    "or": np.bitwise_or,
    "pow": np.power,
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": np.square,
    "sub": np.subtract,
    "tanh": np.tanh,
}


def fill_of(name: str, values: Sequence[Padded], params: Mapping[str, Any], out: Any) -> Any:
    """Returns the fill of what an elementwise operation gives.

    Args:
      name: the primitive.
      values: its operands.
      params: its parameters.
      out: the dtype of what it gives.
    """
    fills = [x.fill for x in values]
    if name == "integer_pow" and fills[0] == 0 and params["y"] > 0:
        return 0
    if name == "select_n" and all(not isinstance(fill, Fill) and fill == fills[1] for fill in fills[1:]):
        return fills[1]
    if not any(isinstance(fill, Fill) for fill in fills):
        return _computed(name, values, out)
    # Zero times, or by, what is finite wherever the value is.
    zero = [fill == 0 for fill in fills]
    known = all(x.fill is not Fill.UNKNOWN for x in values)
    if known and ((name == "mul" and any(zero)) or (name == "div" and zero[0] and values[1].uniform)):
        return 0
    return _mixed(values)


def _mixed(values: Sequence[Padded]) -> Fill:
    return Fill.COPIES if all(x.uniform for x in values) else Fill.UNKNOWN


def _computed(name: str, values: Sequence[Padded], out: Any) -> Any:
    if name in ("convert_element_type", "stop_gradient", "reduce_precision"):
        found = values[0].fill
    elif name in NUMBERS:
        with np.errstate(all="ignore"):
            found = NUMBERS[name](*(np.asarray(x.fill, x.array.dtype) for x in values))
    else:
        return _mixed(values)
    # What XLA makes of a division of whole numbers by zero, and of a number beyond those of a dtype, is not followed.
    if np.isnan(found) or (np.isinf(found) and not jnp.issubdtype(out, jnp.inexact)):
        return Fill.UNKNOWN
    return np.asarray(found).astype(out).item()
