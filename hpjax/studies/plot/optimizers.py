"""Draws a comparison of optimizers: over the steps, and to a target."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.results.analysis import Estimate
from hpjax.results.drawing import add_legend, limits_of, literal, new_figure, set_log
from hpjax.results.style import DOTS, GREY, PALETTE, Width
from hpjax.studies.plot.dots import draw_dots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hpjax.studies.optimizers_result import OptimizersResult

ARROW = {"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0, "color": DOTS["color"], "linewidth": DOTS["linewidth"]}


def optimizers(answer: "OptimizersResult", width: Width = "double") -> "Figure":
    """Draws the best trial of each optimizer over the steps, and with a target the steps to it; see ``draw_steps``.

    Args:
      answer: the answer of a comparison of optimizers.
      width: that of the figure: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

    Raises:
      ImportError: matplotlib is missing; the message says how to install it.
      InputError: there is no such width.
    """
    panels_shown = 1 if answer.target is None else 2
    with new_figure(panels_shown, panels_shown if width == "double" else 1, width) as (figure, panels):
        draw_optimizers(answer, panels[0])
        if answer.target is not None:
            draw_steps(answer, panels[1])
    return figure


def draw_optimizers(answer: "OptimizersResult", ax: "Axes") -> "Axes":
    """Draws the best trial of each optimizer over the steps: its median over the seeds that judge.

    Args:
      answer: the answer of a comparison of optimizers.
      ax: where to draw.

    Returns:
      ``ax``.
    """
    result, points = answer.result, [point for point in answer.points if point.trial is not None]
    name = result.objective.metric
    colors, shown = hues([point.optimizer for point in answer.points]), []
    for point in points:
        values = result.curves(name)[point.trial, answer.choosing :]
        steps = result.curves("step")[point.trial, answer.choosing :]
        there = np.isfinite(values).all(axis=0)
        median = np.median(values[:, there], axis=0)
        color = colors[point.optimizer]
        ax.plot(steps[0, there], median, "-", color=color, linewidth=1.2, label=literal(point.optimizer))
        shown.append(median)
    found = np.concatenate(shown) if shown else np.array([])
    low, high, logarithmic = limits_of(found, result, name, [point.value for point in points])
    if logarithmic:
        set_log(ax, "y")
    ax.set_ylim(low, high)
    if answer.target is not None:
        ax.axhline(answer.target, color=GREY, linewidth=0.8, linestyle=":", label="target")
    ax.set(xlabel="step", ylabel=literal(name))
    add_legend(ax)
    return ax


def draw_steps(answer: "OptimizersResult", ax: "Axes") -> "Axes":
    """Draws a dot for the steps of each optimizer to the target, the fewest on top, and a bar for their interval.

    The bar is an arrow where its upper end is infinite. An optimizer that does not reach the target has no dot, but a
    word.

    Args:
      answer: the answer of a comparison of optimizers.
      ax: where to draw.

    Returns:
      ``ax``.
    """
    points = sorted(answer.points, key=lambda point: -point.steps.value)
    steps, nothing = [point.steps for point in points], Estimate(np.nan, np.nan, np.nan)
    draw_dots(ax, [point.optimizer for point in points], [each if each.value < np.inf else nothing for each in steps])
    ax.set_xlim(left=0)
    ends = [end for each in steps for end in each if np.isfinite(end)]
    if any(each.value < np.inf == each.high for each in steps):
        # The rightmost dot has place for its arrow, too.
        ax.set_xlim(right=1.1 * max(ends))
    across: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "annotation_clip": False}
    for place, each in enumerate(steps):
        if each.value == np.inf:
            beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate("not reached", (0, place), **across, **beside, fontsize=7, color=GREY)
        elif each.high == np.inf:
            ax.annotate("", (1, place), (each.value, place), **across, textcoords="data", arrowprops=ARROW)
    ax.set_xlabel("steps to the target")
    return ax


def hues(names: Sequence[str]) -> dict[str, Any]:
    """Returns a colour for each optimizer, the same ones in all pictures of the same optimizers."""
    from matplotlib import colormaps

    many = len(names) > len(PALETTE)
    colors = colormaps["cividis"](np.linspace(0, 0.9, len(names))) if many else PALETTE
    return dict(zip(sorted(names), colors, strict=False))
