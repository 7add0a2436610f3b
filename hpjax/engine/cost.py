"""What a group costs to compile and to run, by the work that its jaxpr counts: to an order of magnitude."""

from collections.abc import Sequence
from typing import Any

from hpjax.engine.lane import Shapes
from hpjax.engine.trace import Tracer
from hpjax.engine.work import Work
from hpjax.space import Point

# Distinct values whose programs are counted; of more, as many spread over them.
MOST = 3


def seconds(work: Work, platform: str) -> float:
    """What a device takes for it: on a CPU one core, on an accelerator one that is kept busy."""
    if platform == "cpu":
        return work.flops / 30e9 + work.elements / 0.5e9
    return work.flops / 10e12 + work.elements / 100e9


def compile_seconds(shapes: Shapes) -> float:
    """What compiling the program of a group takes."""
    return 1.0 + 0.004 * (shapes.step.equations + shapes.evaluation.equations)


def compare(
    tracer: Tracer,
    points: Sequence[Point],
    traced: Sequence[str],
    name: str,
    lane_steps: int,
    platform: str,
    together: Shapes,
) -> str:
    """What tracing ``name`` costs against a group for each of its values, and which is cheaper, as a clause.

    Args:
      tracer: what abstract tracing needs to know.
      points: of the trials of one group.
      traced: the traced hyperparameters, ``name`` among them.
      name: one that is traced by selection or by a mask.
      lane_steps: steps of all these trials together.
      platform: of the devices.
      together: what the program gives where all of ``traced`` are.
    """
    values = sorted({point[name] for point in points}, key=_order)
    many = len(values)
    spread = values if many <= MOST else [values[round(i * (many - 1) / (MOST - 1))] for i in range(MOST)]
    others = [other for other in traced if other != name]
    found = [tracer.shapes(points[0] | {name: value}, others) for value in spread]
    apart, one = sum(seconds(each.step, platform) for each in found) / len(spread), seconds(together.step, platform)
    if not (one > 0 and apart > 0) or many == 1:
        return ""
    compiling = sum(map(compile_seconds, found)) / len(spread) * (many - 1)
    advice = "cheaper here" if (one - apart) * lane_steps <= compiling else "static=True would be cheaper here"
    return f"{one / apart:.2g} × the arithmetic of {many} groups, in 1 program for {many}: {advice}"


def _order(value: Any) -> Any:
    return value if isinstance(value, int | float) else getattr(value, "__qualname__", repr(value))
