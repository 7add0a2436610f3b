"""Rules of operations that make one number of several: reductions, pooling, sums along an axis, sorting. Pure."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from hpjax.engine.padding.values import Fill, NotPaddableError, Padded, filled, varies
from hpjax.engine.padding.walk import Equation, Rule


def _reducing(least: Callable[[Any], Any]) -> Rule:
    """Returns the rule of a reduction, whose identity ``least`` gives for a dtype."""

    def reduce(equation: Equation) -> list[Padded]:
        (x,), (sizes,) = equation.given, equation.sizes
        if any(varies(x.sizes[axis]) for axis in equation.param("axes")):
            x = filled(x, least(x.array.dtype), equation.program)
        (array,) = equation.bind(x.array)
        # Numbers that stay what they are, however many of them are summed, multiplied or compared.
        lasting = {"reduce_sum": (0,), "reduce_prod": (0, 1), "argmax": (), "argmin": ()}.get(equation.name)
        return [Padded(array, sizes, x.fill if lasting is None or x.fill in lasting else _rest(x))]

    return reduce


def _rest(x: Padded) -> Fill:
    return Fill.COPIES if x.uniform else Fill.UNKNOWN


def _smallest(dtype: Any) -> Any:
    return -np.inf if jnp.issubdtype(dtype, jnp.inexact) else False if dtype == jnp.bool_ else np.iinfo(dtype).min


def _greatest(dtype: Any) -> Any:
    return np.inf if jnp.issubdtype(dtype, jnp.inexact) else True if dtype == jnp.bool_ else np.iinfo(dtype).max


def _cumulative(equation: Equation) -> list[Padded]:
    (x,), (sizes,) = equation.given, equation.sizes
    if varies(x.sizes[equation.param("axis")]) and equation.param("reverse"):
        if equation.name not in ("cumsum", "cumprod"):
            raise NotPaddableError(f"{equation.name} is from the end of an axis whose size differs")
        x = filled(x, 0 if equation.name == "cumsum" else 1, equation.program)
    return [Padded(equation.bind(x.array)[0], sizes, Fill.UNKNOWN)]


def _across(axis: str) -> Rule:
    """Returns the rule of an operation along an axis of one size, which is in the parameter ``axis``."""

    def run(equation: Equation) -> list[Padded]:
        if any(varies(x.sizes[equation.param(axis)]) for x in equation.given):
            raise NotPaddableError(f"{equation.name} is along an axis whose size differs")
        found = equation.bind(*(x.array for x in equation.given))
        return [Padded(array, sizes, Fill.UNKNOWN) for array, sizes in zip(found, equation.sizes, strict=True)]

    return run


def _windows(equation: Equation) -> list[Padded]:
    """Evaluates pooling, and its gradient, where windows reach along axes of one size only."""
    axes = [equation.same((name,))[name] for name in ("window_dimensions", "window_strides", "padding")]
    for sizes in (*(x.sizes for x in equation.given), *equation.sizes):
        for own, window, stride, padding in zip(sizes, *axes, strict=False):
            if varies(own) and (window, stride, tuple(padding)) != (1, 1, (0, 0)):
                raise NotPaddableError(f"{equation.name} has windows along an axis whose size differs")
    (array,), (sizes,) = equation.bind(*(x.array for x in equation.given)), equation.sizes
    x = equation.given[0]
    if x.fill == 0 or (equation.name in ("reduce_window_max", "reduce_window_min") and not isinstance(x.fill, Fill)):
        return [Padded(array, sizes, x.fill)]
    return [Padded(array, sizes, Fill.COPIES if all(own.uniform for own in equation.given) else Fill.UNKNOWN)]


RULES: dict[str, Rule] = {
    "argmax": _reducing(_smallest),
    "argmin": _reducing(_greatest),
    "cumlogsumexp": _cumulative,
    "cummax": _cumulative,
    "cummin": _cumulative,
    "cumprod": _cumulative,
    "cumsum": _cumulative,
    "reduce_and": _reducing(lambda dtype: True),
    "reduce_max": _reducing(_smallest),
    "reduce_min": _reducing(_greatest),
    "reduce_or": _reducing(lambda dtype: False),
    "reduce_prod": _reducing(lambda dtype: 1),
    "reduce_sum": _reducing(lambda dtype: 0),
    "reduce_window_max": _windows,
    "reduce_window_min": _windows,
    "reduce_window_sum": _windows,
    "select_and_scatter_add": _windows,
    "sort": _across("dimension"),
    "top_k": _across("axis"),
}
