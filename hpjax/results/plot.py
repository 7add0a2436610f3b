"""Pictures of a sweep, drawn with matplotlib from the numbers that ``plot_data`` computes.

Each ``draw_*`` function draws into axes that it is given, and returns them:

  >>> from matplotlib.figure import Figure
  >>> result = hpx.Sweep(program, space, trials=4).run(progress=False)
  >>> hpx.plot.draw_axis(result, "rate", "valid/loss", Figure().subplots()).get_xscale()
  'log'
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError, did_you_mean
from hpjax.results import plot_data
from hpjax.results.drawing import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    limits_of,
    literal,
    metric_label,
    name_behind,
    new_figure,
    placed,
    set_limits,
    set_scale,
)
from hpjax.results.drawing import STYLE as STYLE
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_axis", "draw_curves", "draw_lineage", "draw_map", "draw_rungs", "overview", "pictures"]

# About so many trials' curves are drawn: with more, a picture takes long and shows no more.
SHOWN_CURVES = 300


def overview(table: TrialTable, names: Sequence[str] | None = None) -> "Figure":
    """Draws the objective's curves, and the value by which trials rank against each hyperparameter.

    Args:
      table: the trials; a result is one.
      names: hyperparameters; by default all that vary.

    Raises:
      InputError: there is no such hyperparameter.
      ImportError: matplotlib is missing.

    Example:
      >>> result = hpx.Sweep(program, space, trials=4).run(progress=False)
      >>> [panel.get_xlabel() for panel in hpx.plot.overview(result).axes]
      ['step', 'rate']
    """
    for name in names or ():
        if name not in table.names:
            raise InputError("plot", name, "must be a hyperparameter", did_you_mean(name, table.names))
    chosen = list(names) if names else table.varied
    columns = 2 if len(chosen) == 3 else min(3, len(chosen) + 1)  # four in a square
    with new_figure(columns, ceil_div(len(chosen) + 1, columns)) as (figure, panels):
        draw_curves(table, table.objective.metric, panels[0])
        for name, panel in zip(chosen, panels[1:], strict=False):
            draw_axis(table, name, table.objective.metric, panel)
        for panel in panels[len(chosen) + 1 :]:
            panel.set_visible(False)
    return figure


def draw_curves(table: TrialTable, metric: str, ax: "Axes") -> "Axes":
    """Draws a metric over the steps: all lanes as thin lines, those of the best trial in front.

    Args:
      table: the trials.
      metric: the name of the metric.
      ax: where to draw.

    Raises:
      InputError: there is no such metric.
    """
    trials, steps, values = plot_data.curves(table, metric)
    shown = np.isin(trials, trials[:: table.lane_status.shape[1] * max(1, len(trials) // SHOWN_CURVES)])
    shown &= ~np.isin(trials, table.ranking[:1])
    ax.plot(steps[shown].T, values[shown].T, color=GREY, linewidth=0.6, alpha=0.4)
    _draw_best(table, trials, steps, values, ax)
    if table.ranking:
        ax.legend(frameon=False, fontsize=8)
    set_limits(ax, table.last(metric)[table.ranking], table, _whole(table, trials, values, shown))
    ax.set(xlabel="step", ylabel=literal(metric))
    return ax


def _draw_best(table: TrialTable, trials: Any, steps: Any, values: Any, ax: "Axes") -> None:
    """Draws the curves of the best trial.

    Args:
      table: the trials.
      trials, steps, values: as ``plot_data.Curves`` has them.
      ax: where to draw.
    """
    best = np.flatnonzero(np.isin(trials, table.ranking[:1]))
    for row in best:
        label = f"trial {trials[row]}, the best" if row == best[0] else ""
        ax.plot(steps[row], values[row], color=RED, linewidth=1.8 / len(best) ** 0.5, label=label)


def _whole(table: TrialTable, trials: Any, values: Any, shown: Any) -> Any:
    """Returns values of a metric that the limits of a picture of curves hold: the best trial's, and the best of all.

    Args:
      table: the trials.
      trials, values: as ``plot_data.Curves`` has them.
      shown: bool (lanes,), whose curves are drawn beside the best trial's.
    """
    best = values[np.isin(trials, table.ranking[:1])].ravel()
    drawn = table.objective.scores(values[shown & np.isin(trials, table.ranking)])
    lowest = drawn[np.isfinite(drawn)].min(initial=np.inf)
    return np.append(best, table.objective.value(lowest))


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
        ax.set_xticks(range(len(categories)), map(literal, categories))
    best = (trials == (table.ranking[0] if table.ranking else -1)) & (metric == table.objective.metric)
    set_limits(ax, y, table, y[best])
    inside = (y >= ax.get_ylim()[0]) & (y <= ax.get_ylim()[1])
    edge = 0.98 if table.objective.direction == "minimize" else 0.02
    behind = plot_data.ended_earlier(table)[trials]
    colors = np.where(behind, GREY, BLUE)
    ax.scatter(x[inside], y[inside], s=10, c=colors[inside], alpha=0.6, linewidths=0)
    name_behind(ax, behind, 4)
    if not inside.all():
        beyond = np.full((~inside).sum(), edge)
        label = f"{(~inside).sum()} beyond"
        ax.plot(x[~inside], beyond, "^", color=GREY, markersize=3, transform=ax.get_xaxis_transform(), label=label)
    set_scale(ax, "x", name, scale)
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
    lost = [placed(values, scale) for values, scale in zip(found.diverged.T, found.scales, strict=True)]
    if len(found.z):
        low, high = limits_of(found.z, table)
        shades, beyond = ("cividis_r", "max") if table.objective.direction == "minimize" else ("cividis", "min")
        behind = plot_data.ended_earlier(table)[found.trials]
        sizes = np.where(behind, 6, 18)
        dots = ax.scatter(x, y, c=found.z, vmin=low, vmax=high, cmap=shades, s=sizes, linewidths=0)
        figure = ax.get_figure()
        if figure is not None:
            figure.colorbar(dots, ax=ax, label=metric_label(table, metric), extend=beyond)
        name_behind(ax, behind, 2.5)
        best = found.trials == (table.ranking[0] if table.ranking else -1)
        ax.scatter(x[best], y[best], s=90, color=RED, marker="*", zorder=3, label="the best")
    if len(found.diverged):
        label = f"{len(found.diverged)} diverged"
        ax.plot(*lost, "x", color=ORANGE, markersize=4, label=label)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    for which, name, scale in zip("xy", (across, up), found.scales, strict=True):
        set_scale(ax, which, name, scale)
    return ax


def draw_rungs(table: TrialTable, ax: "Axes") -> "Axes":
    """Draws the curves of an early-stopping race, those of stopped trials grey.

    Vertical lines are rungs, each with the number of trials that trained up to it.

    Args:
      table: the trials, some of which a scheduler stopped.
      ax: where to draw.
    """
    trials, steps, values = plot_data.curves(table, table.objective.metric)
    found, last = plot_data.rungs(table), table.last(table.objective.metric)
    ax.set_xscale("log")
    for row in np.flatnonzero(np.isin(trials, table.ranking)):
        trial = trials[row]
        color, wide = (GREY, 0.6) if found.stopped[trial] else (BLUE, 1.0)
        ax.plot(steps[row], values[row], color=color, linewidth=wide, alpha=0.6)
        if found.stopped[trial]:
            stop = np.full(last.shape[1], found.ended[trial])
            ax.plot(stop, last[trial], ".", color=GREY, markersize=3, alpha=0.6)
    _draw_best(table, trials, steps, values, ax)
    if table.ranking:
        ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    ends_at = plot_data.reached(table, table.objective.metric)[table.ranking]
    set_limits(ax, ends_at, table, _whole(table, trials, values, np.isin(trials, table.ranking)))
    ends = [*found.steps.tolist(), int(found.ended.max(initial=1))]
    for step, live in zip(ends, found.live, strict=True):
        ax.axvline(step, color=GREY, linewidth=0.6, linestyle=":")
        ax.annotate(f"{live} ", (step, 0.97), xycoords=("data", "axes fraction"), ha="right", va="top", fontsize=8)
    ax.minorticks_off()
    ax.set_xticks(ends, [f"{step:,}" for step in ends])
    ax.set(xlabel="step", ylabel=literal(table.objective.metric))
    return ax


def draw_lineage(table: TrialTable, ax: "Axes") -> "Axes":
    """Draws a population: one row per trial, the best at the bottom; lines lead from a cloned trial to its clone.

    The ancestry of the best trial is red.

    Args:
      table: the trials, some of which went on from the states of others.
      ax: where to draw.
    """
    order = [*table.ranking, *(t for t in range(len(table)) if t not in set(table.ranking))]
    row = {trial: number for number, trial in enumerate(order)}
    for trial in order:
        ax.plot([0, table.lane_step[trial].max()], [row[trial]] * 2, color=GREY, linewidth=0.6, alpha=0.6)
    for each in table.lineage:
        ax.plot([each.step] * 2, [row[each.source], row[each.trial]], color=BLUE, linewidth=0.5, alpha=0.5)
        ax.plot(each.step, row[each.trial], "o", color=BLUE, markersize=1.5)
    if table.ranking:
        mine = plot_data.ancestry(table, table.ranking[0])
        for at, (trial, begin, end) in enumerate(mine):
            ax.plot([begin, end], [row[trial]] * 2, color=RED, linewidth=1.8, label="" if at else "the best's ancestry")
            if at:
                ax.plot([begin] * 2, [row[mine[at - 1][0]], row[trial]], color=RED, linewidth=1.2)
        ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    ax.set(xlabel="step", ylabel="trials, by rank", ylim=(-0.7, len(order) - 0.3))
    return ax


def pictures(table: TrialTable) -> "dict[str, Figure]":
    """Returns all figures that apply to a sweep, by name: ``overview``, ``map``, ``rungs`` and ``lineage``.

    The map is of learning rate and weight decay where the sweep has them, else of the first two numbers that vary.

    Raises:
      ImportError: matplotlib is missing.
    """
    found = {"overview": overview(table)}
    names = sorted(plot_data.numbers(table), key=lambda name: name not in ("learning_rate", "weight_decay"))
    if len(names) > 1:
        found["map"] = _alone(draw_map, table, names[0], names[1], table.objective.metric)
    if (table.statuses == Status.STOPPED).any():
        found["rungs"] = _alone(draw_rungs, table)
    if table.lineage:
        found["lineage"] = _alone(draw_lineage, table)
    return found


def _alone(draw: "Callable[..., Axes]", *of: Any) -> "Figure":
    """Returns a figure of one panel that ``draw(*of, panel)`` fills."""
    with new_figure(1, 1) as (figure, panels):
        draw(*of, panels[0])
    return figure
