"""Rounding: whether two programs differ in a step by more than the order of their sums explains. Pure.

How much rounding changes depends on the program. So one of them says it: it takes the same step from states whose
numbers are off by about as much as sums in another order are.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array
from hpjax.engine.padding.program import resized
from hpjax.engine.primitives import spacing
from hpjax.engine.shapes import ProgramShapes

# Two sums of n numbers in different orders are about √n roundings apart: 64 where 4,096 numbers are added up. So a
# number of the first state is off by at most 64 times the distance between neighbouring numbers of its size. What that
# changes, another program may change, too, and so many times as much, since a few such states are only a sample. In
# float32 most arrays may then differ by 1 part in 20,000, in float64 by 1 in 10 trillion.
ROUNDINGS, SLACK = 64, 4
# The states from which a program takes the step: its first state, and those that are off by such shares of that.
SHARES = (0.0, 1.0, -1.0, 0.5, -0.5)
# What rounding changes by more than this share of its size is made of rounding alone, and is not compared: the bias
# before a norm, whose gradient is 0, and of which Adam makes a step of any size.
NOISE = 0.1
# The distance between neighbouring numbers of float32, and that between those which accelerators see of it where they
# multiply matrices.
SINGLE, PRODUCTS = 2.0**-23, {"cpu": 2.0**-23, "gpu": 2.0**-10, "tpu": 2.0**-7}


class Step(NamedTuple):
    """What one step of a lane, and the evaluation after it, give.

    Attributes:
      metrics: name to value, ().
      first, last: the arrays of the state before and after both.
    """

    metrics: dict[str, Any]
    first: Sequence[Any]
    last: Sequence[Any]


def off_by(shapes: ProgramShapes, platform: str) -> float:
    """Returns by how much of their size the numbers of a first state may be off, as sums in another order are."""
    coarsest = shapes.coarsest
    if coarsest >= SINGLE:  # numbers of less precision are multiplied as they are, and added up in float32
        return max(coarsest, PRODUCTS.get(platform, PRODUCTS["tpu"]), ROUNDINGS * SINGLE)
    return ROUNDINGS * coarsest


def beyond_rounding(shapes: ProgramShapes, own: Sequence[Step], found: Step, off: float) -> Iterator[str]:
    """Yields what a padded program gives that differs by more than rounding.

    Args:
      shapes: what tracing found out about a group's own program.
      own: what that gives from each of the states of ``SHARES``.
      found: what the padded program gives.
      off: by how much of their size the numbers of these states are off.
    """
    exact, *others = [_compared(shapes, step, found, off) for step in own]
    for name, (there, _) in _compared(shapes, found, found, off).items():
        value, least = exact[name]
        alike = (np.isfinite(there) == np.isfinite(value)).all()
        apart = _largest(_minus(there, value)) if alike else np.inf
        rounding = max(_largest(_minus(other[name][0], value)) for other in others)
        allowed = SLACK * (rounding + least)
        if apart > allowed and rounding <= NOISE * _largest(value):
            yield f"gives {name} off by {apart:.3g}, of which rounding explains {allowed:.3g}"


def _compared(shapes: ProgramShapes, step: Step, like: Step, off: float) -> dict[str, tuple[Array, float]]:
    """Returns what is compared of a step, by name, and how far each may be off by rounding at least.

    They are the metrics, the first state, and its changes, which may be far smaller than the state. Arrays have the
    shapes of the padded program, so that its padding is compared with zeros.
    """
    metrics = {name: np.asarray(value, float) for name, value in step.metrics.items()}
    found = {name: (value, off * _largest(value)) for name, value in metrics.items()}
    for path, *arrays, padded in zip(shapes.names, step.first, step.last, like.last, strict=True):
        name, kind = ".".join(map(str, path)), padded.dtype
        first, last = (resized(np.asarray(x), padded.shape).astype(np.result_type(kind, float)) for x in arrays)
        change = np.where(np.isfinite(first), _minus(last, first), last)
        each = spacing(kind)
        share = off if each else 0.0
        found[f"the first {name}"] = first, share * _largest(first)
        found[f"the change of {name}"] = change, share * _largest(change) + each * _largest(first)
    return found


def _minus(one: Array, other: Array) -> Array:
    """Returns a difference, NaN where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        found: Array = one - other
    return found


def _largest(values: Array) -> float:
    """Returns the largest size of the finite ones among some numbers, 0 where there are none."""
    sizes = np.abs(values)
    return float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))
