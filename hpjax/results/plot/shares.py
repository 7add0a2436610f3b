"""Draws all hyperparameters beside each other: trials as lines across their axes, and how much each matters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpjax.core.objective import Objective
from hpjax.results import plot_data
from hpjax.results.drawing import add_colorbar, add_legend, best_label, check_names, colors_of, literal, name_on
from hpjax.results.importance import importance
from hpjax.results.store.rows import Status
from hpjax.results.style import BLUE, ORANGE, RED
from hpjax.results.table import TrialTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_parallel(table: TrialTable, metric: str, ax: "Axes", names: Sequence[str] | None = None) -> "Axes":
    """Draws each trial as a line across the axes of its hyperparameters, coloured by a metric at the end of training.

    Each axis goes from the lowest value to the highest, on the scale of the domain. The best trial is red and in front,
    better trials are in front of worse ones. Trials that diverged are orange and behind; a line is broken where a trial
    lacks a hyperparameter.

    Args:
      table: the trials; a result is one.
      metric: the name of the metric.
      ax: where to draw.
      names: hyperparameters, in the order of the axes; by default all that vary.

    Returns:
      ``ax``.

    Raises:
      InputError: there is no such hyperparameter or metric.

    Example:
      >>> from matplotlib.figure import Figure
      >>> both = space & hpx.Space(scale=hpx.Uniform(0, 1))
      >>> result = hpx.Sweep(program, both, trials=8).run(progress=False)
      >>> ax = hpx.plot.draw_parallel(result, "valid/loss", Figure().subplots())
      >>> [label.get_text() for label in ax.get_xticklabels()]
      ['rate', 'scale']
    """
    check_names(table, names or ())
    names = list(names or table.varied)
    found, ends = plot_data.parallel(table, names), plot_data.reached(table, metric)
    columns, worst = np.arange(len(names)), table.ranking[::-1]
    diverged = np.flatnonzero(table.statuses == Status.DIVERGED)
    ax.plot(columns, found.places[diverged].T, color=ORANGE, linewidth=0.6, alpha=0.6, linestyle="--")
    if len(diverged):
        ax.plot([], [], color=ORANGE, linewidth=0.8, linestyle="--", label=f"{len(diverged)} diverged")
    if worst:
        from matplotlib.cm import ScalarMappable

        colors = ScalarMappable(**colors_of(ends[worst], table, metric))
        for trial, color in zip(worst[:-1], colors.to_rgba(ends[worst]), strict=False):
            # A trial of an alternative with one hyperparameter is no line.
            marker = "o" if np.isfinite(found.places[trial]).sum() == 1 else ""
            ax.plot(columns, found.places[trial], color=color, linewidth=0.8, alpha=0.8, marker=marker, markersize=2)
        best = found.places[worst[-1]]
        ax.plot(columns, best, "o-", color=RED, markersize=3, linewidth=2, label=best_label(table))
        add_colorbar(colors, ax, table, metric)
    for column, ticks in enumerate(found.ticks):
        ax.axvline(column, color="black", linewidth=0.6)
        _write_ticks(ax, column, ticks)
    labels = [name_on(name, "") for name in names]
    turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, labels)) > 50 else {}
    ax.set_xticks(columns, labels, **turned)  # type: ignore[arg-type]
    ax.set(yticks=[], ylim=(-0.08, 1.08), xlim=(-0.3, len(names) - 0.7))
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params("x", length=0)
    ax.grid(False)
    add_legend(ax)
    return ax


def _write_ticks(ax: "Axes", column: int, ticks: Sequence[tuple[float, str]]) -> None:
    """Writes values beside an axis: its ends below and above it, options of a choice to its right."""
    boxed = {"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.7, "linewidth": 0}
    for place, text in ticks:
        at = "top" if place == 0 else "bottom" if place == 1 else "center"
        side, shift = ("left", (2, 0)) if at == "center" else ("center", (0, -2 if at == "top" else 2))
        ax.annotate(
            literal(text),
            (column, place),
            shift,
            textcoords="offset points",
            ha=side,
            va=at,
            fontsize=6,
            bbox=boxed,
        )


def draw_importance(
    table: TrialTable,
    ax: "Axes",
    metric: str | Objective | None = None,
    method: str = "ped-anova",
    resamples: int = 50,
    top: int = 15,
) -> "Axes":
    """Draws how much each hyperparameter matters for a metric, the most important on top, with 90 % intervals.

    Args:
      table: the trials; a result is one.
      ax: where to draw.
      metric, method, resamples: as for ``result.importance()``, which computes the shares.
      top: how many hyperparameters at most.

    Returns:
      ``ax``.

    Raises:
      InputError: there is no such metric or method, or there are too few complete trials.
      ImportError: Optuna is missing.

    Example:
      >>> from matplotlib.figure import Figure
      >>> both = space & hpx.Space(scale=hpx.Uniform(0, 1))
      >>> result = hpx.Sweep(program, both, trials=32).run(progress=False)
      >>> ax = hpx.plot.draw_importance(result, Figure().subplots(), resamples=5)
      >>> [label.get_text() for label in ax.get_yticklabels()]
      ['rate', 'scale']
    """
    found = importance(table, metric, method, resamples, 0)
    shown, rows = found[:top], np.arange(len(found[:top]))
    values = np.array([each.value for each in shown])
    ax.barh(rows, values, height=0.6, color=BLUE, alpha=0.8)
    if resamples:
        ends = np.array([(each.low, each.high) for each in shown]).T
        middle = np.clip(values, *ends)
        spread = [(middle - ends[0]).tolist(), (ends[1] - middle).tolist()]
        ax.errorbar(middle, rows, xerr=spread, fmt="none", color="black", linewidth=0.8, capsize=2)
    ax.set_yticks(rows, [literal(each.name) for each in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    name = metric.metric if isinstance(metric, Objective) else metric or table.objective.metric
    ax.set(xlabel=literal(f"share of {name}, {method}"), xlim=(0, None))
    ax.grid(False, axis="y")
    if len(found) > top:
        ax.set_title(f"{top} of {len(found)} hyperparameters", loc="left")
    return ax
