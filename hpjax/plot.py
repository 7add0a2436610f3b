"""Pictures of a result, drawn with matplotlib from the numbers of ``analysis``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax import analysis
from hpjax.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hpjax.result import Result

# From Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#9A9A9A"
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "text.parse_math": False,  # names are names
}
SHOWN_CURVES = 300


def overview(result: "Result", names: Sequence[str] | None = None) -> "Figure":
    """The objective's curves, and its last value against each hyperparameter.

    Args:
      result: what to draw.
      names: hyperparameters; by default all that vary.

    Raises:
      InputError: no such hyperparameter.
      ImportError: matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install 'hpjax[plot]'") from None
    for name in names or ():
        if name not in result.names:
            raise InputError("plot", name, "must be a hyperparameter", did_you_mean(name, result.names))
    chosen = list(names) if names else analysis.varied(result)
    columns = min(3, len(chosen) + 1)
    rows = -(-(len(chosen) + 1) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        draw_curves(result, result.objective.metric, panels[0])
        for name, panel in zip(chosen, panels[1:], strict=False):
            draw_axis(result, name, result.objective.metric, panel)
        for panel in panels[len(chosen) + 1 :]:
            panel.set_visible(False)
    return figure


def draw_curves(result: "Result", metric: str, ax: "Axes") -> "Axes":
    """A metric over the steps: all trials thin, the best in front."""
    steps, values, best = analysis.curves(result, metric)
    every = max(1, len(steps) // SHOWN_CURVES)
    ax.plot(steps[:-1:every].T, values[:-1:every].T, color=GREY, linewidth=0.6, alpha=0.4)
    if best is not None:
        ax.plot(steps[-1], values[-1], color=RED, linewidth=1.8, label=f"trial {best}, the best")
        ax.legend(frameon=False, fontsize=8)
    _limit(ax, values[:, -1] if values.size else values, result)
    ax.set(xlabel="step", ylabel=metric)
    return ax


def draw_axis(result: "Result", name: str, metric: str, ax: "Axes") -> "Axes":
    """The last value of a metric against one hyperparameter; diverged trials stand at the upper edge."""
    trials, x, y, diverged, categories, logarithmic = analysis.axis(result, name, metric)
    if categories:
        # Side by side, so that points of one category do not hide each other.
        x = x + np.random.default_rng(0).uniform(-0.15, 0.15, len(x))
        ax.set_xticks(range(len(categories)), categories)
    _limit(ax, y, result)
    inside = (y >= ax.get_ylim()[0]) & (y <= ax.get_ylim()[1])
    edge = 0.98 if result.objective.direction == "minimize" else 0.02
    ax.scatter(x[inside], y[inside], s=10, color=BLUE, alpha=0.6, linewidths=0)
    if not inside.all():
        beyond = np.full((~inside).sum(), edge)
        label = f"{(~inside).sum()} beyond"
        ax.plot(x[~inside], beyond, "^", color=GREY, markersize=3, transform=ax.get_xaxis_transform(), label=label)
    if logarithmic:
        ax.set_xscale("log")
    if metric == result.objective.metric and result.ranking:
        best = trials == result.ranking[0]
        ax.scatter(x[best], y[best], s=60, color=RED, marker="*", zorder=3)
    if len(diverged):
        ax.plot(
            diverged,
            np.full(len(diverged), edge),
            "x",
            color=ORANGE,
            markersize=4,
            transform=ax.get_xaxis_transform(),
            label=f"{len(diverged)} diverged",
        )
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=8)
    ax.set(xlabel=name, ylabel=metric)
    return ax


def _limit(ax: "Axes", values: Any, result: "Result") -> None:
    sign = 1 if result.objective.direction == "minimize" else -1
    low, high = analysis.limits(sign * values)
    ax.set_ylim(*sorted((sign * low, sign * high)))
