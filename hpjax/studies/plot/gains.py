"""Draws what schedules gain over a baseline."""

from typing import TYPE_CHECKING

import numpy as np

from hpjax.results.drawing import literal, new_figure
from hpjax.results.style import GREY, Width
from hpjax.studies.plot.dots import draw_dots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hpjax.studies.schedules_result import SchedulesResult


def gains(answer: "SchedulesResult", width: Width = "single") -> "Figure":
    """Draws the gain of each family over the baseline, with its interval; see ``draw_gains``.

    Args:
      answer: the answer of a study of schedules.
      width: that of the figure: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

    Raises:
      ImportError: matplotlib is missing; the message says how to install it.
      InputError: there is no such width.
    """
    with new_figure(1, 1, width) as (figure, panels):
        draw_gains(answer, panels[0])
    return figure


def draw_gains(answer: "SchedulesResult", ax: "Axes") -> "Axes":
    """Draws a dot for the gain of each family but the baseline, the largest on top, and a bar for its interval.

    Args:
      answer: the answer of a study of schedules.
      ax: where to draw.

    Returns:
      ``ax``.
    """
    points = [p for p in answer.points if p.family != answer.baseline and np.isfinite(p.gain.value)]
    points.sort(key=lambda point: point.gain.value)
    ax.axvline(0, color=GREY, linewidth=1, linestyle="--")
    draw_dots(ax, [point.family for point in points], [point.gain for point in points])
    ax.set_xlabel(literal(f"gain in {answer.result.objective.metric} over {answer.baseline}"))
    return ax
