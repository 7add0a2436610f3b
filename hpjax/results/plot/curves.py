"""Draws curves over the steps of training: of all lanes, as bands, of a race, and the best value over what it cost."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hpjax.core.errors import InputError
from hpjax.results import plot_data
from hpjax.results.drawing import (
    add_legend,
    best_label,
    literal,
    set_limits,
    set_steps,
)
from hpjax.results.style import BLUE, GREY, RED
from hpjax.results.table import TrialTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# About so many trials' curves are drawn: with more, a picture takes long and shows no more.
SHOWN_CURVES = 300
# What quality is drawn against, and the label of its axis.
SPENT = {"steps": "optimizer steps of all lanes", "seconds": "seconds of the run"}
# Of the width of a logarithmic axis: rungs that are closer share one label.
CLOSE = 0.09


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
    set_limits(ax, table.last(metric)[table.ranking], table, metric, _whole(table, trials, values, shown))
    set_steps(ax)
    ax.set_ylabel(literal(metric))
    add_legend(ax)
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
        width, label = 1.8 / len(best) ** 0.5, best_label(table) if row == best[0] else ""
        # One evaluation alone is no line.
        marker = "o" if np.isfinite(values[row]).sum() == 1 else ""
        ax.plot(
            steps[row],
            values[row],
            marker=marker,
            markersize=3,
            color=RED,
            linewidth=width,
            label=label,
        )


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


def draw_quantiles(table: TrialTable, metric: str, ax: "Axes") -> "Axes":
    """Draws how good the trials are over the steps: their median, bands of 25–75 % and 5–95 %, and the best trial.

    Each step has the trials that were evaluated at it; one that diverged counts as worse than any other from then on,
    one that a scheduler stopped no more. Replicates combine as the objective says.

    Args:
      table: the trials; a result is one.
      metric: the name of the metric.
      ax: where to draw.

    Returns:
      ``ax``.

    Raises:
      InputError: there is no such metric.

    Example:
      >>> from matplotlib.figure import Figure
      >>> result = hpx.Sweep(program, space, trials=8).run(progress=False)
      >>> ax = hpx.plot.draw_quantiles(result, "valid/loss", Figure().subplots())
      >>> ax.get_legend_handles_labels()[1][:3]
      ['5–95 % of trials', '25–75 %', 'median']
    """
    steps, values, _ = plot_data.quantiles(table, metric)
    trials, all_steps, curves = plot_data.curves(table, metric)
    best = curves[np.isin(trials, table.ranking[:1])]
    inside = np.concatenate([best.ravel(), values[0], values[2]])
    set_limits(ax, table.last(metric)[table.ranking].ravel(), table, metric, inside)
    # A band that reaches trials that diverged reaches beyond the axes.
    beyond = 10 * np.abs(ax.get_ylim()).max() * (1 if table.objective.direction == "minimize" else -1)
    edges = np.where(np.isinf(values), beyond, values)
    lone = "o" if len(steps) == 1 else ""
    for low, high, alpha, label in ((0, 4, 0.15, "5–95 % of trials"), (1, 3, 0.3, "25–75 %")):
        ax.fill_between(steps, edges[low], edges[high], color=BLUE, alpha=alpha, linewidth=0, label=label)
    ax.plot(steps, np.where(np.isinf(values[2]), np.nan, values[2]), marker=lone, color=BLUE, label="median")
    _draw_best(table, trials, all_steps, curves, ax)
    set_steps(ax)
    ax.set_ylabel(literal(metric))
    add_legend(ax)
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
    ends_at = plot_data.reached(table, table.objective.metric)[table.ranking]
    metric = table.objective.metric
    set_limits(ax, ends_at, table, metric, _whole(table, trials, values, np.isin(trials, table.ranking)))
    ax.plot([], [], color=GREY, linewidth=0.8, label="stopped")
    ends = [*found.steps.tolist(), int(found.ended.max(initial=1))]
    first = min([*ends, *steps[np.isfinite(steps)].astype(int).tolist()])
    ax.set_xlim(first / (ends[-1] / first) ** 0.12 / 1.02, ends[-1] * 1.02)
    named = _apart(ends, CLOSE * np.log(ends[-1] / ax.get_xlim()[0]))
    for step, live in zip(ends, found.live, strict=True):
        ax.axvline(
            step, color=GREY, linewidth=0.6, linestyle=":", label="" if step > ends[0] else "rung, with its trials"
        )
        if step in named:
            ax.annotate(f"{live} ", (step, 0.98), xycoords=("data", "axes fraction"), ha="right", va="top", fontsize=7)
    ax.minorticks_off()
    ax.set_xticks(named, [f"{step:,}" for step in named])
    ax.set(xlabel="step", ylabel=literal(metric))
    add_legend(ax)
    return ax


def _apart(steps: list[int], distance: float) -> list[int]:
    """Returns those steps whose logarithms are so far from each other, the last and the first of each few."""
    kept = [steps[-1]]
    for step in reversed(steps[:-1]):
        if np.log(kept[-1] / step) >= distance:
            kept.append(step)
    return kept[::-1]


def draw_cost(table: TrialTable, ax: "Axes", against: Literal["steps", "seconds"] = "steps") -> "Axes":
    """Draws quality against cost: the best value so far over the optimizer steps of all lanes together, or over time.

    Where steps count, the trials of a round do so as if they trained side by side; seconds are those of the run, with
    compilation and without interruptions. A value is the best of all evaluations up to there, so
    that the last may be better than that of the trial that ranks first, which ranks by its value at the end. Dotted
    lines are where rounds begin.

    Args:
      table: the trials; a result is one.
      ax: where to draw.
      against: ``"steps"`` or ``"seconds"``.

    Returns:
      ``ax``.

    Raises:
      InputError: ``against`` is neither.

    Example:
      >>> from matplotlib.figure import Figure
      >>> result = hpx.Sweep(program, space, trials=4).run(progress=False)
      >>> ax = hpx.plot.draw_cost(result, Figure().subplots())
      >>> ax.get_xlabel(), ax.get_ylabel()
      ('optimizer steps of all lanes', 'best valid/loss so far')
    """
    if against not in SPENT:
        raise InputError("draw_cost.against", against, f"must be one of {', '.join(SPENT)}", 'Write against="seconds".')
    spent, values, rounds = plot_data.cost(table, against)
    set_limits(ax, values, table, table.objective.metric, values)
    ax.plot(spent, values, "o-", drawstyle="steps-post", color=BLUE, linewidth=1.4, markersize=2.5)
    for begin in rounds[1:]:
        ax.axvline(begin, color=GREY, linewidth=0.6, linestyle=":", label="" if begin > rounds[1] else "a round begins")
    set_steps(ax)
    ax.set_xlim(left=0)
    ax.set(xlabel=SPENT[against], ylabel=literal(f"best {table.objective.metric} so far"))
    add_legend(ax)
    return ax
