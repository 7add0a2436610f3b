"""Costs: one program for all values of a hyperparameter, which computes more, or one for each, which compile longer."""

import math
from collections.abc import Collection, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from hpjax.core import format as text
from hpjax.core.arrays import ceil_div
from hpjax.core.program import TrialLength
from hpjax.core.space import Point
from hpjax.engine.shapes import ProgramShapes
from hpjax.engine.tracing import Tracer

# Programs are traced for at most so many distinct values: of more values, so many spread over them stand for all.
MOST = 3


def compare(
    tracer: Tracer,
    points: Sequence[Point],
    traced: Sequence[str],
    name: str,
    lane_steps: int,
    platform: str,
    traced_shapes: ProgramShapes,
) -> str:
    """Returns a clause on what tracing a hyperparameter costs against a group for each value, and which is cheaper.

    Args:
      tracer: traces the program abstractly.
      points: the hyperparameters of the trials of one group.
      traced: the names of the traced hyperparameters, ``name`` among them.
      name: a hyperparameter that is traced by selection or by a mask.
      lane_steps: how many steps all these trials take together.
      platform: the platform of the devices.
      traced_shapes: the shapes of the program that traces all of ``traced``.

    Returns:
      The clause; empty where all trials have the same value.
    """
    values = sorted({point[name] for point in points}, key=_order)
    count = len(values)
    if count == 1:
        return ""
    others = [other for other in traced if other != name]
    static_shapes = [tracer.shapes(points[0] | {name: value}, others) for value in _sample(values)]
    static_step = fmean(shapes.step.seconds(platform) for shapes in static_shapes)
    ratio = traced_shapes.step.arithmetic / fmean(shapes.step.arithmetic for shapes in static_shapes)
    training = (traced_shapes.step.seconds(platform) - static_step) * lane_steps
    compiling = fmean(shapes.compile_seconds for shapes in static_shapes) * (count - 1)
    advice = "cheaper here" if training <= compiling else "static=True would be cheaper here"
    return f"{ratio:.2g} × the arithmetic of {count} groups, in 1 program for {count}: {advice}"


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
    batch_program, micro_program = (tracer.program.with_microbatch(m) for m in (None, microbatch))
    if batch_program is None or micro_program is None:
        return ""
    batch_tracer, micro_tracer = (tracer._replace(program=program) for program in (batch_program, micro_program))
    sample = _sample(sorted(set(sizes)))
    batch_shapes = [batch_tracer.shapes(points[sizes.index(size)], set(traced) - set(sized)) for size in sample]
    micro_shapes = micro_tracer.shapes(points[0], {*traced, *sized})
    statics = [_static(point, {*traced, *sized}) for point in points]
    batch_programs, micro_programs = len(set(zip(statics, sizes, strict=True))), len(set(statics))
    steps = [length.steps for length in lengths]
    step_seconds = np.interp(sizes, sample, [shapes.step.seconds(platform) for shapes in batch_shapes])
    batch_seconds = float(np.dot(steps, step_seconds)) / devices
    batch_seconds += batch_programs * fmean(shapes.compile_seconds for shapes in batch_shapes)
    microsteps = float(np.dot(steps, [ceil_div(size, microbatch) for size in sizes]))
    micro_seconds = microsteps * micro_shapes.step.seconds(platform) / devices
    micro_seconds += micro_programs * micro_shapes.compile_seconds
    count_batch, count_micro = (text.count(number, "program") for number in (batch_programs, micro_programs))
    whole_batches = f"{count_batch} for {len(set(sizes))} batch sizes, {text.duration(batch_seconds)}"
    microbatches = f"{count_micro} with microbatch={microbatch}, {text.duration(micro_seconds)}"
    if batches.microbatch is None:
        return f"{whole_batches}; {microbatches}{_advised(micro_seconds < batch_seconds)}"
    return f"{microbatches}; {whole_batches} without{_advised(batch_seconds < micro_seconds)}"


def _advised(cheaper: bool) -> str:
    """Returns the end of a clause, which says whether the other way would be cheaper than that of the sweep."""
    return " in all, would be cheaper here" if cheaper else " in all"


def _static(point: Point, besides: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Returns the values of the other hyperparameters, as text: trials that differ in it need programs of their own."""
    return tuple((name, repr(value)) for name, value in sorted(point.items()) if name not in besides)


def _sample(values: Sequence[Any]) -> list[Any]:
    """Returns at most ``MOST`` of some values, spread evenly over them."""
    last = len(values) - 1
    return list(values) if last < MOST else [values[round(i * last / (MOST - 1))] for i in range(MOST)]


def _order(value: Any) -> Any:
    """Returns what values are sorted by: a number by itself, a function by its name."""
    return value if isinstance(value, int | float) else getattr(value, "__qualname__", repr(value))
