"""What one program for all values costs, against a program for each: arithmetic against compilations."""

from collections.abc import Sequence
from typing import Any

from hpjax.engine.lane import Shapes
from hpjax.engine.trace import Tracer
from hpjax.space import Point

# Distinct values whose programs are counted; of more, as many spread over them.
MOST = 3


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
    if many == 1:
        return ""
    spread = values if many <= MOST else [values[round(i * (many - 1) / (MOST - 1))] for i in range(MOST)]
    others = [other for other in traced if other != name]
    found = [tracer.shapes(points[0] | {name: value}, others) for value in spread]
    apart, one = (sum(each.step.seconds(platform) for each in group) / len(group) for group in (found, [together]))
    share = together.step.arithmetic / (sum(each.step.arithmetic for each in found) / len(found))
    compiling = sum(each.compile_seconds for each in found) / len(found) * (many - 1)
    advice = "cheaper here" if (one - apart) * lane_steps <= compiling else "static=True would be cheaper here"
    return f"{share:.2g} × the arithmetic of {many} groups, in 1 program for {many}: {advice}"


def _order(value: Any) -> Any:
    return value if isinstance(value, int | float) else getattr(value, "__qualname__", repr(value))
