"""Draws trials as points: against one hyperparameter, over two, and what lies between them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.results import plot_data
from hpjax.results.drawing import (
    add_colorbar,
    add_legend,
    best_label,
    colors_of,
    metric_label,
    name_behind,
    placed,
    set_categories,
    set_limits,
    set_scale,
)
from hpjax.results.style import BLUE, GREY, ORANGE, RED
from hpjax.results.table import TrialTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Shades of a contour.
LEVELS = 12


def draw_axis(table: TrialTable, name: str, metric: str, ax: "Axes") -> "Axes":
    """Draws a metric at the end of training against one hyperparameter; the star is the best trial.

    Crosses mark diverged trials, triangles values beyond the limits. Grey are trials that ended before those that rank
    first, such as stopped ones: they rank behind, however good their values are.

    Args:
      table: the trials.
      name: the name of the hyperparameter.
      metric: the name of the metric.
      ax: where to draw.

    Raises:
      InputError: there is no such metric.
    """
    trials, x, y, diverged, categories, scale = plot_data.axis(table, name, metric)
    x, diverged = placed(x, scale), placed(diverged, scale)
    if categories:
        # Spread out, so that points of one category do not hide each other.
        x = x + np.random.default_rng(0).uniform(-0.15, 0.15, len(x))
        set_categories(ax, "x", categories)
    best = (trials == (table.ranking[0] if table.ranking else -1)) & (metric == table.objective.metric)
    set_limits(ax, y, table, metric, y[best])
    inside = (y >= ax.get_ylim()[0]) & (y <= ax.get_ylim()[1])
    edge = 0.98 if table.objective.direction == "minimize" else 0.02
    behind = plot_data.ended_earlier(table)[trials]
    colors = np.where(behind, GREY, BLUE)
    ax.scatter(x[inside], y[inside], s=10, c=colors[inside], alpha=0.6, linewidths=0)
    name_behind(ax, behind, 4)
    if not inside.all():
        beyond = np.full((~inside).sum(), edge)
        label = f"{(~inside).sum()} beyond the axis"
        ax.plot(x[~inside], beyond, "^", color=GREY, markersize=3, transform=ax.get_xaxis_transform(), label=label)
    set_scale(ax, "x", name, scale)
    if best.any():
        ax.scatter(x[best], y[best], s=60, color=RED, marker="*", zorder=3, label=best_label(table))
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
    add_legend(ax)
    ax.set_ylabel(metric_label(table, metric))
    return ax


def draw_map(table: TrialTable, across: str, up: str, metric: str, ax: "Axes") -> "Axes":
    """Draws a metric at the end of training over two numeric hyperparameters, such as learning rate and weight decay.

    Crosses are diverged trials, the star is the best trial; small dots are trials that ended before those that rank
    first.

    Args:
      table: the trials.
      across, up: the hyperparameters on the horizontal and the vertical axis.
      metric: the name of the metric.
      ax: where to draw.

    Raises:
      InputError: there is no such metric.
    """
    found = plot_data.map_of(table, across, up, metric)
    x, y = (placed(values, scale) for values, scale in zip((found.x, found.y), found.scales, strict=True))
    if len(found.z):
        behind = plot_data.ended_earlier(table)[found.trials]
        sizes = np.where(behind, 6, 18)
        colors = colors_of(found.z, table, metric)
        dots = ax.scatter(x, y, c=found.z, s=sizes, linewidths=0, **colors)
        add_colorbar(dots, ax, table, metric)
        name_behind(ax, behind, 2.5)
    _mark(ax, table, found)
    for which, name, scale in zip("xy", (across, up), found.scales, strict=True):
        set_scale(ax, which, name, scale)
    add_legend(ax)
    return ax


def _mark(ax: "Axes", table: TrialTable, found: plot_data.Map) -> None:
    """Draws the star of the best trial, and crosses for those that diverged, into the axes of a map."""
    x, y = (placed(values, scale) for values, scale in zip((found.x, found.y), found.scales, strict=True))
    lost = [placed(values, scale) for values, scale in zip(found.diverged.T, found.scales, strict=True)]
    best = found.trials == (table.ranking[0] if table.ranking else -1)
    if best.any():
        ax.scatter(x[best], y[best], s=90, color=RED, marker="*", zorder=3, label=best_label(table))
    if len(found.diverged):
        ax.plot(*lost, "x", color=ORANGE, markersize=4, label=f"{len(found.diverged)} diverged")


def draw_contour(table: TrialTable, across: str, up: str, metric: str, ax: "Axes") -> "Axes":
    """Draws a metric at the end of training between trials, interpolated over two numeric hyperparameters.

    The metric is linear on each triangle of Delaunay's triangulation of the trials, on the scales of both domains, and
    its logarithm is where the axis of colours is logarithmic. Outside the outermost trials nothing is drawn, and trials
    that ended before those that rank first are left out. Dots are the trials themselves: every shade between them is a
    guess, and where other hyperparameters vary as well a rough one. Crosses are diverged trials, the star is the best.

    Args:
      table: the trials; a result is one.
      across, up: the hyperparameters on the horizontal and the vertical axis.
      metric: the name of the metric.
      ax: where to draw.

    Returns:
      ``ax``; with dots alone where the trials span no area, such as two of them.

    Raises:
      InputError: there is no such metric.

    Example:
      >>> from matplotlib.figure import Figure
      >>> both = space & hpx.Space(scale=hpx.Uniform(0, 1))
      >>> result = hpx.Sweep(program, both, trials=16).run(progress=False)
      >>> ax = hpx.plot.draw_contour(result, "rate", "scale", "valid/loss", Figure().subplots())
      >>> ax.get_xlabel(), ax.get_ylabel()
      ('rate', 'scale')
    """
    found = plot_data.map_of(table, across, up, metric)
    kept = ~plot_data.ended_earlier(table)[found.trials]
    if kept.any():
        colors = colors_of(found.z[kept], table, metric)
        x, y = (placed(values, scale) for values, scale in zip((found.x, found.y), found.scales, strict=True))
        shown = ax.scatter(x[kept], y[kept], c=found.z[kept], s=12, edgecolors="black", linewidths=0.4, **colors)
        add_colorbar(shown, ax, table, metric)
    _mark(ax, table, found)
    for which, name, scale in zip("xy", (across, up), found.scales, strict=True):
        set_scale(ax, which, name, scale)
    if kept.any():
        _fill(ax, table, found, colors)
    add_legend(ax)
    return ax


def _fill(ax: "Axes", table: TrialTable, found: plot_data.Map, colors: dict[str, Any]) -> None:
    """Draws the shades of a contour, of colours that ``colors_of`` gave."""
    from matplotlib.colors import LogNorm

    norm = colors["norm"]
    logarithmic = isinstance(norm, LogNorm)
    between = plot_data.contour(table, found, logarithmic)
    if between is None:
        return
    low, high = (float(np.log(end)) if logarithmic else end for end in (norm.vmin, norm.vmax))
    # Places are on the scales of the axes already, so that triangles have straight sides on logarithmic ones.
    levels = np.linspace(low, high, LEVELS + 1)
    shades: dict[str, Any] = {"levels": levels, "extend": "both", "cmap": colors["cmap"], "zorder": 0}
    on_scales = ax.transLimits + ax.transAxes
    # Limits are those of the dots, which Matplotlib would not know.
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    ax.tricontourf(between.x, between.y, between.triangles, between.z, transform=on_scales, **shades)
