"""Draws populations: who was cloned into whom, and the schedules of hyperparameters that came of it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.results import plot_data
from hpjax.results.drawing import add_legend, check_names, placed, set_categories, set_scale, set_steps
from hpjax.results.style import BLUE, GREY, RED
from hpjax.results.table import TrialTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_lineage(table: TrialTable, ax: "Axes") -> "Axes":
    """Draws a population: one row per trial, the best at the bottom; an arrow leads from a trial to its clone.

    Steps run to the right. From an arrow's head on the trial of that row trains with the state of the trial of the row
    where the arrow begins. The ancestry of the best trial, which trained its weights, is red.

    Args:
      table: the trials, some of which went on from the states of others.
      ax: where to draw.

    Returns:
      ``ax``.
    """
    from matplotlib.ticker import MaxNLocator

    order = [*table.ranking, *(t for t in range(len(table)) if t not in set(table.ranking))]
    row = {trial: number for number, trial in enumerate(order, 1)}
    ends = table.lane_step.max(axis=1)[order]
    ax.hlines(range(1, len(order) + 1), 0, ends, color=GREY, linewidth=0.6, alpha=0.6, label="a trial trains")
    clones = [(each.step, row[each.source], row[each.trial]) for each in table.lineage]
    _draw_arrows(ax, clones, BLUE, "cloned into")
    if table.ranking:
        mine = plot_data.ancestry(table, table.ranking[0])
        rows = [row[trial] for trial, _, _ in mine]
        for (_, begin, end), height in zip(mine, rows, strict=True):
            label = "" if begin else "ancestry of the best"
            ax.plot([begin, end], [height] * 2, color=RED, linewidth=1.8, label=label)
        steps = [begin for _, begin, _ in mine[1:]]
        _draw_arrows(ax, list(zip(steps, rows[:-1], rows[1:], strict=True)), RED)
    set_steps(ax)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1, prune=None))
    ax.set(ylabel="rank at the end", ylim=(0.3, len(order) + 0.7))
    add_legend(ax)
    return ax


def _draw_arrows(ax: "Axes", clones: list[tuple[int, int, int]], color: str, label: str = "") -> None:
    """Draws an arrow for each (step, row of the source, row of the clone)."""
    if not clones:
        return
    steps, sources, targets = np.array(clones, float).T
    heads: dict[str, Any] = {"width": 0.012, "headwidth": 6, "headlength": 6, "headaxislength": 5.5, "minlength": 0}
    data: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "units": "inches"}
    ax.quiver(steps, sources, np.zeros(len(steps)), targets - sources, color=color, zorder=3, **heads, **data)
    if label:
        ax.plot([], [], color=color, marker="^", markersize=4, linewidth=0.8, label=label)


def draw_schedules(table: TrialTable, name: str, ax: "Axes") -> "Axes":
    """Draws the values of a hyperparameter over the steps of all trials of a population, that of the best in front.

    Grey is what each trial trained with, whatever was thrown away since. Red is the schedule that trained the weights
    of the best trial: of its ancestors, up to the step at which their states were cloned, and then its own.

    Args:
      table: the trials, whose hyperparameters a scheduler changed; a result is one.
      name: the name of the hyperparameter.
      ax: where to draw.

    Returns:
      ``ax``.

    Raises:
      InputError: there is no such hyperparameter.

    Example:
      >>> from matplotlib.figure import Figure
      >>> sweep = hpx.Sweep(program, space, trials=8, scheduler=hpx.PBT(every=5))
      >>> ax = hpx.plot.draw_schedules(sweep.run(progress=False), "rate", Figure().subplots())
      >>> ax.get_ylabel(), ax.get_yscale()
      ('rate', 'log')
    """
    check_names(table, [name])
    found, scale = plot_data.schedules(table, name), table.scales[name]
    label = "trials"
    for steps, values in found.trials:
        ax.plot(steps, placed(values, scale), color=GREY, linewidth=0.7, alpha=0.6, drawstyle="steps-post", label=label)
        label = ""
    if found.best is not None:
        steps, values = found.best
        label = "ancestry of the best"
        ax.plot(steps, placed(values, scale), color=RED, linewidth=1.8, drawstyle="steps-post", label=label)
    if found.categories:
        set_categories(ax, "y", found.categories)
    set_scale(ax, "y", name, scale)
    set_steps(ax)
    add_legend(ax)
    return ax
