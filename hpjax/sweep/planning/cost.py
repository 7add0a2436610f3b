"""Costs: one program for all values of a hyperparameter, which computes more, or one for each, which compile longer."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from hpjax.core import format as text
from hpjax.core.arrays import ceil_div
from hpjax.core.program import TrialLength
from hpjax.core.space import Point
from hpjax.engine.shapes import ProgramShapes
from hpjax.engine.tracing import Tracer

# Of how many distinct values the programs are traced; of more values, so many spread over them stand for all.
MOST = 3


def compare(
    tracer: Tracer,
    points: Sequence[Point],
    traced: Sequence[str],
    name: str,
    lane_steps: int,
    platform: str,
    together: ProgramShapes,
) -> str:
    """Returns a clause on what tracing a hyperparameter costs against a group for each value, and which is cheaper.

    Args:
      tracer: traces the program abstractly.
      points: the hyperparameters of the trials of one group.
      traced: the names of the traced hyperparameters, ``name`` among them.
      name: a hyperparameter that is traced by selection or by a mask.
      lane_steps: how many steps all these trials take together.
      platform: the platform of the devices.
      together: the shapes of the program that traces all of ``traced``.

    Returns:
      The clause; empty where all trials have the same value.
    """
    values = sorted({point[name] for point in points}, key=_order)
    many = len(values)
    if many == 1:
        return ""
    spread = _few(values)
    others = [other for other in traced if other != name]
    found = [tracer.shapes(points[0] | {name: value}, others) for value in spread]
    apart, one = (sum(each.step.seconds(platform) for each in group) / len(group) for group in (found, [together]))
    share = together.step.arithmetic / (sum(each.step.arithmetic for each in found) / len(found))
    compiling = sum(each.compile_seconds for each in found) / len(found) * (many - 1)
    advice = "cheaper here" if (one - apart) * lane_steps <= compiling else "static=True would be cheaper here"
    return f"{share:.2g} × the arithmetic of {many} groups, in 1 program for {many}: {advice}"


def compare_batches(
    tracer: Tracer,
    points: Sequence[Point],
    lengths: Sequence[TrialLength],
    traced: Collection[str],
    sized: Collection[str],
    platform: str,
    devices: int,
) -> str:
    """Returns a clause on what a program for each batch size costs against one that takes all in microbatches.

    Args:
      tracer: traces the program abstractly.
      points: per trial, its hyperparameters.
      lengths: per trial, how long it takes.
      traced: the names of the traced hyperparameters.
      sized: the names of the hyperparameters that the batch size depends on.
      platform: the platform of the devices.
      devices: how many devices there are.

    Returns:
      The clause; empty where all trials have the same batch size.
    """
    batches = tracer.program.batches
    assert batches is not None
    sizes = [int(batches.size(tracer.hparams(point, ()))) for point in points]
    if len(set(sizes)) == 1:
        return ""
    microbatch = batches.microbatch or math.gcd(*sizes)
    in_wholes, in_parts = (tracer.program.with_microbatch(m) for m in (None, microbatch))
    if in_wholes is None or in_parts is None:
        return ""
    whole, parts = (tracer._replace(program=program) for program in (in_wholes, in_parts))
    shown = _few(sorted(set(sizes)))
    apart = [whole.shapes(points[sizes.index(size)], set(traced) - set(sized)) for size in shown]
    one = parts.shapes(points[0], {*traced, *sized})
    steps = [length.steps for length in lengths]
    groups = [
        [(_static(point, {*traced, *sized}), each) for point, each in zip(points, own, strict=True)]
        for own in (sizes, [0] * len(sizes))
    ]
    alone, together = (len(set(each)) for each in groups)
    seconds = np.interp(sizes, shown, [each.step.seconds(platform) for each in apart])
    many = float(np.dot(steps, seconds)) / devices + alone * sum(each.compile_seconds for each in apart) / len(apart)
    calls = float(np.dot(steps, [ceil_div(size, microbatch) for size in sizes]))
    few = calls * one.step.seconds(platform) / devices + together * one.compile_seconds
    whole_batches = f"{text.count(alone, 'program')} for {len(set(sizes))} batch sizes, {text.duration(many)}"
    microbatches = f"{text.count(together, 'program')} with microbatch={microbatch}, {text.duration(few)}"
    if batches.microbatch is None:
        return f"{whole_batches}; {microbatches}{_advised(few < many)}"
    return f"{microbatches}; {whole_batches} without{_advised(many < few)}"


def _advised(cheaper: bool) -> str:
    """Returns the end of a clause: whether what stands before it would be cheaper than what the sweep does."""
    return " in all, would be cheaper here" if cheaper else " in all"


def _static(point: Point, besides: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Returns the values of the other hyperparameters, as text: trials that differ in it need programs apart."""
    return tuple((name, repr(value)) for name, value in sorted(point.items()) if name not in besides)


def _few(values: Sequence[Any]) -> list[Any]:
    """Returns at most ``MOST`` of some values, spread evenly over them."""
    last = len(values) - 1
    return list(values) if last < MOST else [values[round(i * last / (MOST - 1))] for i in range(MOST)]


def _order(value: Any) -> Any:
    """Returns what values are sorted by: a number by itself, a function by its name."""
    return value if isinstance(value, int | float) else getattr(value, "__qualname__", repr(value))
