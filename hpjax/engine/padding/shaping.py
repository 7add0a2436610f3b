"""Rules of operations that change the shapes of padded values, or draw one. Pure."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.core.threefry import bits_at
from hpjax.engine.padding.values import Fill, NotPaddableError, Padded, Sizes, chosen, filled, joined, shape_of, varies
from hpjax.engine.padding.walk import Equation, Rule, unpadded


def _broadcast(equation: Equation) -> list[Padded]:
    (x, *rest), (sizes,) = equation.given, equation.sizes
    if rest:
        raise NotPaddableError("broadcast_in_dim has sizes that are computed")
    axes = equation.param("broadcast_dimensions")
    for own, axis in zip(x.sizes, axes, strict=True):
        if own != sizes[axis] and set(own) != {1}:
            raise NotPaddableError("broadcast_in_dim has sizes that are 1 in some only")
    (array,) = equation.bind(x.array, shape=shape_of(sizes))
    kept = {axis for own, axis in zip(x.sizes, axes, strict=True) if varies(own)}
    whole = {axis for axis, own in enumerate(sizes) if varies(own)} == kept
    return [Padded(array, sizes, x.fill if whole or not x.padded or x.fill is Fill.COPIES else Fill.UNKNOWN)]


def _reshape(equation: Equation) -> list[Padded]:
    (x, *rest), (sizes,) = equation.given, equation.sizes
    if rest or equation.param("dimensions") is not None:
        raise NotPaddableError("reshape has sizes that are computed")
    if not equation.padded:
        (array,) = equation.bind(x.array)
    elif [own for own in x.sizes if set(own) != {1}] == [own for own in sizes if set(own) != {1}]:
        array = x.array.reshape(shape_of(sizes))
    else:
        return [_regrouped(x, sizes, equation.program)]
    return [Padded(array, sizes, x.fill)]


def _regrouped(x: Padded, sizes: tuple[Sizes, ...], program: Any) -> Padded:
    """Returns a value in another shape, its elements in the same order: each is gathered from its place."""
    place: Any = 0
    for number, axis in zip(_strides(sizes, program), range(len(sizes)), strict=True):
        place = place + lax.broadcasted_iota(jnp.int32, shape_of(sizes), axis) * number
    indices = []
    for own, number in zip(x.sizes, _strides(x.sizes, program), strict=True):
        indices.append(jnp.clip(place // number % chosen(own, program), 0, max(own) - 1))
    return Padded(x.array[tuple(indices)], sizes, Fill.UNKNOWN)


def _strides(sizes: Sequence[Sizes], program: Any) -> list[Any]:
    """Returns how many elements apart neighbours along each axis are."""
    products = [[prod(own[i] for own in sizes[axis + 1 :]) for i in range(len(sizes[0]))] for axis in range(len(sizes))]
    return [chosen(each, program) for each in products]


def _moved(equation: Equation) -> list[Padded]:
    """Evaluates an operation that moves, adds or drops whole axes."""
    (x,), (sizes,) = equation.given, equation.sizes
    return [Padded(equation.bind(x.array)[0], sizes, x.fill)]


def _stack(equation: Equation) -> list[Padded]:
    (array,), (sizes,) = equation.bind(*(x.array for x in equation.given)), equation.sizes
    return [Padded(array, sizes, joined(equation.given))]


def _unstack(equation: Equation) -> list[Padded]:
    (x,) = equation.given
    if varies(x.sizes[equation.param("axis")]):
        raise NotPaddableError("unstack is along an axis whose size differs")
    found = equation.bind(x.array)
    return [Padded(array, sizes, x.fill) for array, sizes in zip(found, equation.sizes, strict=True)]


def _rev(equation: Equation) -> list[Padded]:
    if any(varies(equation.sizes[0][axis]) for axis in equation.param("dimensions")):
        raise NotPaddableError("rev turns an axis around whose size differs")
    return _moved(equation)


def _iota(equation: Equation) -> list[Padded]:
    (sizes,) = equation.sizes
    axis, padded = equation.param("dimension"), {i for i, own in enumerate(sizes) if varies(own)}
    fill = Fill.UNKNOWN if axis in padded else Fill.COPIES
    return [Padded(equation.bind(*(x.array for x in equation.given), shape=shape_of(sizes))[0], sizes, fill)]


def _concatenate(equation: Equation) -> list[Padded]:
    given, (sizes,), axis = equation.given, equation.sizes, equation.param("dimension")
    if not varies(sizes[axis]) and not any(varies(x.sizes[axis]) for x in given):
        (array,) = equation.bind(*(x.array for x in given))
        return [Padded(array, sizes, joined(given))]
    given = [filled(x, 0, equation.program) for x in given]
    shape = list(shape_of(sizes))
    shape[axis] = sum(max(x.sizes[axis]) for x in given)
    array, at = jnp.zeros(shape, equation.dtypes[0]), [0] * len(sizes[0])
    for x in given:  # each overwrites the padding of the one before
        begin = [jnp.int32(chosen(at, equation.program) if i == axis else 0) for i in range(len(sizes))]
        array = lax.dynamic_update_slice(array, x.array, begin)
        at = [n + own for n, own in zip(at, x.sizes[axis], strict=True)]
    array = lax.slice_in_dim(array, 0, max(sizes[axis]), axis=axis)
    return [Padded(array, sizes, 0 if all(x.fill == 0 for x in given) else Fill.UNKNOWN)]


def _slice(equation: Equation) -> list[Padded]:
    (x,), (sizes,) = equation.given, equation.sizes
    begins = list(zip(*(params["start_indices"] for params in equation.params), strict=True))
    strides = equation.param("strides") or (1,) * len(sizes)
    return [_part(x, sizes, begins, strides, equation.program)]


def _part(x: Padded, sizes: tuple[Sizes, ...], begins: Sequence[Sizes], strides: Sequence[int], program: Any) -> Padded:
    """Returns a part of a value: of each axis the elements from ``begins`` on, with steps of ``strides``."""
    array, fill = x.array, x.fill
    for axis, (own, out, begin, stride) in enumerate(zip(x.sizes, sizes, begins, strides, strict=True)):
        if own == out and not any(begin):
            continue
        if not (varies(own) or varies(out) or varies(begin)):
            array = lax.slice_in_dim(array, begin[0], begin[0] + (out[0] - 1) * stride + 1, stride, axis)
            continue
        if stride != 1:
            raise NotPaddableError("slice takes each second element, or fewer, along an axis whose size differs")
        # The part may begin so late that it would reach beyond the array, and then begin earlier.
        array = lax.pad(array, jnp.zeros((), array.dtype), [(0, max(out) * (i == axis), 0) for i in range(array.ndim)])
        array = lax.dynamic_slice_in_dim(array, chosen(begin, program), max(out), axis)
        fill = Fill.UNKNOWN
    return Padded(array, sizes, fill)


def _split(equation: Equation) -> list[Padded]:
    (x,), axis = equation.given, equation.param("axis")
    found, at = [], [0] * len(x.sizes[axis])
    for sizes in equation.sizes:
        begins = [tuple(at) if i == axis else (0,) * len(at) for i in range(len(sizes))]
        found.append(_part(x, sizes, begins, (1,) * len(sizes), equation.program))
        at = [n + own for n, own in zip(at, sizes[axis], strict=True)]
    return found


def _pad(equation: Equation) -> list[Padded]:
    (x, value), (sizes,), program = equation.given, equation.sizes, equation.program
    if not equation.padded:
        return [Padded(equation.bind(x.array, value.array)[0], sizes, joined([x, value]))]
    axes = zip(*(params["padding_config"] for params in equation.params), strict=True)
    configs = [list(zip(*axis, strict=True)) for axis in axes]
    if isinstance(value.fill, Fill):
        raise NotPaddableError("pad adds a number that is computed")
    array, fill = filled(x, value.fill, program).array, value.fill
    for axis, (low, high, interior) in enumerate(configs):
        along = varies(x.sizes[axis]) or varies(sizes[axis])
        if along and any(interior):
            raise NotPaddableError("pad is between the numbers of an axis whose size differs")
        config = [(0, 0, 0)] * array.ndim
        # There is room for the value wherever it is moved to; what is taken away of it may end in the padding.
        fill = Fill.UNKNOWN if along and min(high) < 0 else fill
        config[axis] = (0, max(sizes[axis]), 0) if along else (low[0], high[0], interior[0])
        array = lax.pad(array, value.array, config)
        if along:
            array = jnp.roll(array, chosen(low, program), axis)
            array = lax.slice_in_dim(array, 0, max(sizes[axis]), axis=axis)
    return [Padded(array, sizes, fill)]


def _random_bits(equation: Equation) -> list[Padded]:
    (key,), (sizes,) = equation.given, equation.sizes
    if not equation.padded:
        return unpadded(equation)
    if key.sizes:
        raise NotPaddableError("random_bits draws with several keys")
    # As JAX draws them: each element by its place among all of the small array.
    place: Any = jnp.uint32(0)
    for axis, stride in enumerate(_strides(sizes, equation.program)):
        along = lax.broadcasted_iota(jnp.uint32, shape_of(sizes), axis)
        place = place + along * jnp.asarray(stride, jnp.uint32)
    found = bits_at(jax.random.key_data(key.array), equation.param("bit_width"), place)
    if found is None:
        raise NotPaddableError("random numbers are drawn in another order")
    return [Padded(found, sizes, Fill.UNKNOWN)]


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "iota": _iota,
    "pad": _pad,
    "random_bits": _random_bits,
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "split": _split,
    "squeeze": _moved,
    "stack": _stack,
    "transpose": _moved,
    "unstack": _unstack,
}
