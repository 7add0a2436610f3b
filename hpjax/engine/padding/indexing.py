"""Rules of operations that read or write parts of padded values, at places that are computed. Pure."""

from collections.abc import Sequence
from typing import Any

from hpjax.engine.padding.values import Fill, NotPaddableError, Padded, joined, shape_of, varies
from hpjax.engine.padding.walk import Equation, Rule


def _dynamic_slice(equation: Equation) -> list[Padded]:
    (x, *begin), (sizes,) = equation.given, equation.sizes
    _whole(equation, zip(x.sizes, sizes, strict=True), begin)
    (array,) = equation.bind(x.array, *(each.array for each in begin), slice_sizes=shape_of(sizes))
    return [Padded(array, sizes, x.fill)]


def _dynamic_update_slice(equation: Equation) -> list[Padded]:
    (x, update, *begin), (sizes,) = equation.given, equation.sizes
    _whole(equation, zip(x.sizes, update.sizes, strict=True), begin)
    (array,) = equation.bind(x.array, update.array, *(each.array for each in begin))
    return [Padded(array, sizes, joined([x, update]))]


def _whole(equation: Equation, pairs: Any, begin: Sequence[Padded]) -> None:
    """Raises ``NotPaddableError`` unless a part is all of each axis whose size differs."""
    for (own, part), at in zip(pairs, begin, strict=True):
        if (varies(own) or varies(part)) and (own != part or at.fill != 0):
            raise NotPaddableError(f"{equation.name} takes a part of an axis whose size differs")


def _gather(equation: Equation) -> list[Padded]:
    (x, indices), (sizes,) = equation.given, equation.sizes
    numbers = equation.param("dimension_numbers")
    windows = list(zip(*(params["slice_sizes"] for params in equation.params), strict=True))
    batching = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    for axis, own in enumerate(x.sizes):
        taken = windows[axis] == own and axis not in (*numbers.collapsed_slice_dims, *numbers.start_index_map)
        if varies(own) and not (taken or (axis in batching and indices.sizes[batching[axis]] == own)):
            raise NotPaddableError("gather takes single elements along an axis whose size differs")
    (array,) = equation.bind(x.array, indices.array, slice_sizes=shape_of(windows))
    dropping = "fill" in str(equation.param("mode")).lower()
    kept = not indices.padded and not (dropping and x.padded)
    return [Padded(array, sizes, (x.fill if x.padded else Fill.COPIES) if kept else Fill.UNKNOWN)]


def _scatter(equation: Equation) -> list[Padded]:
    (x, indices, updates), (sizes,) = equation.given, equation.sizes
    numbers = equation.param("dimension_numbers")
    single = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    windows = [axis for axis in range(len(x.sizes)) if axis not in single]
    of_updates = dict(zip(windows, numbers.update_window_dims, strict=True))
    for axis, own in enumerate(x.sizes):
        if varies(own) and not (axis in of_updates and updates.sizes[of_updates[axis]] == own):
            raise NotPaddableError(f"{equation.name} changes single elements along an axis whose size differs")
    others = [own for axis, own in enumerate(updates.sizes) if axis not in of_updates.values()]
    if indices.padded or any(map(varies, others)):
        raise NotPaddableError(f"{equation.name} has as many updates as a size that differs")
    (array,) = equation.bind(x.array, indices.array, updates.array, besides=("update_jaxpr", "update_consts"))
    fill = 0 if equation.name == "scatter-add" and x.fill == 0 and updates.fill == 0 else Fill.UNKNOWN
    return [Padded(array, sizes, fill if x.padded else Fill.COPIES)]


RULES: dict[str, Rule] = {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": _scatter,
    "scatter-add": _scatter,
    "scatter-max": _scatter,
    "scatter-min": _scatter,
    "scatter-mul": _scatter,
}
