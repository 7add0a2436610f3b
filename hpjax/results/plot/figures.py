"""Whole figures of a sweep, each as wide as a column of a paper."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.results import plot_data
from hpjax.results.drawing import check_names, new_figure, share_legend
from hpjax.results.plot.curves import draw_cost, draw_curves, draw_quantiles, draw_rungs
from hpjax.results.plot.isolation import draw_isolation
from hpjax.results.plot.points import draw_axis, draw_contour, draw_map
from hpjax.results.plot.population import draw_lineage, draw_schedules
from hpjax.results.plot.shares import draw_importance, draw_parallel
from hpjax.results.store.rows import Status
from hpjax.results.style import Width
from hpjax.results.table import TrialTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of a figure with parallel axes: more would be too close to each other.
MOST_AXES = {"single": 5, "double": 10}


def overview(table: TrialTable, names: Sequence[str] | None = None, width: Width = "double") -> "Figure":
    """Draws the objective's curves, and the value by which trials rank against each hyperparameter.

    Args:
      table: the trials; a result is one.
      names: hyperparameters; by default all that vary.
      width: that of the figure: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

    Raises:
      InputError: there is no such hyperparameter or width.
      ImportError: matplotlib is missing.

    Example:
      >>> result = hpx.Sweep(program, space, trials=4).run(progress=False)
      >>> [panel.get_xlabel() for panel in hpx.plot.overview(result).axes]
      ['step', 'rate']
    """
    check_names(table, names or ())
    chosen = list(names) if names else table.varied
    most = 3 if width == "double" and len(chosen) != 3 else 2  # four panels in a square
    columns = min(most, len(chosen) + 1)
    with new_figure(len(chosen) + 1, columns, width) as (figure, panels):
        metric = table.objective.metric
        draw_curves(table, metric, panels[0])
        for name, panel in zip(chosen, panels[1:], strict=True):
            draw_axis(table, name, metric, panel)
        _label_first_column(panels[2:])
        share_legend(figure, panels)
    return figure


def pictures(table: TrialTable, width: Width = "double") -> "dict[str, Figure]":
    """Returns all figures that apply to a sweep, by name.

    These are ``overview``; ``quantiles``, ``cost`` and ``isolation`` where there are several trials, ``parallel`` where
    several hyperparameters vary, ``importance`` with so many trials that it can be told, and Optuna; ``map`` and
    ``contour`` of learning rate and weight decay where the sweep has them, else of the first two numbers that vary;
    ``rungs`` of a race, ``lineage`` and ``schedules`` of a population.

    Args:
      table: the trials; a result is one.
      width: that of the figures: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

    Raises:
      InputError: there is no such width.
      ImportError: matplotlib is missing.
    """
    metric, varied = table.objective.metric, table.varied
    found = {"overview": overview(table, width=width)}
    several = len(table.ranking) > 1
    if several:
        found["quantiles"] = _alone(width, draw_quantiles, table, metric)
        found["cost"] = _cost(table, width)
    if several and varied and all(any(name in table.hparams[trial] for trial in table.ranking) for name in varied):
        found["isolation"] = _isolation(table, width)
    if several and len(varied) > 1:
        axes = varied[: MOST_AXES[width]]
        found["parallel"] = _alone(width, lambda ax: draw_parallel(table, metric, ax, axes))
    if several and len(varied) > 1 and (important := _importance(table, width)) is not None:
        found["importance"] = important
    pair = sorted(plot_data.numbers(table), key=lambda name: name not in ("learning_rate", "weight_decay"))[:2]
    if len(pair) > 1:
        across, up = pair
        found["map"] = _alone(width, draw_map, table, across, up, metric)
        if plot_data.contour(table, plot_data.map_of(table, across, up, metric)) is not None:
            found["contour"] = _alone(width, draw_contour, table, across, up, metric)
    if (table.statuses == Status.STOPPED).any():
        found["rungs"] = _alone(width, draw_rungs, table)
    if table.lineage:
        found["lineage"] = _alone(width, draw_lineage, table)
        found["schedules"] = _schedules(table, width)
    return found


def _cost(table: TrialTable, width: Width) -> "Figure":
    """Returns the figure of quality against steps, and against seconds."""
    with new_figure(2, 2 if width == "double" else 1, width) as (figure, panels):
        draw_cost(table, panels[0], "steps")
        draw_cost(table, panels[1], "seconds")
        share_legend(figure, panels)
    return figure


def _isolation(table: TrialTable, width: Width) -> "Figure":
    """Returns a figure of what each hyperparameter that varies does once the others are as good as they get."""
    names = table.varied
    most = 3 if width == "double" and len(names) != 4 else 2  # four panels in a square
    with new_figure(len(names), min(len(names), most), width) as (figure, panels):
        for name, panel in zip(names, panels, strict=True):
            draw_isolation(table, name, panel)
        _label_first_column(panels)
        share_legend(figure, panels)
    return figure


def _label_first_column(panels: "Sequence[Axes]") -> None:
    """Leaves the label of the vertical axis, the same in all panels, to those of the first column."""
    for panel in panels:
        if panel.get_subplotspec().colspan.start > 0:  # type: ignore[union-attr]
            panel.set_ylabel("")


def _importance(table: TrialTable, width: Width) -> "Figure | None":
    """Returns the figure of importance, or None without Optuna or with too few trials."""
    try:
        return _alone(width, draw_importance, table)
    except (ImportError, ValueError):  # of Optuna, too
        return None


def _schedules(table: TrialTable, width: Width) -> "Figure":
    """Returns a figure with the schedules of all hyperparameters that a population changed."""
    names = [name for name in table.names if _changes(table, name)] or table.varied or list(table.names)
    columns = min(len(names), 3 if width == "double" else 1)
    with new_figure(len(names), columns, width) as (figure, panels):
        for name, panel in zip(names, panels, strict=True):
            draw_schedules(table, name, panel)
        share_legend(figure, panels)
    return figure


def _changes(table: TrialTable, name: str) -> bool:
    """Returns whether a trial trained with several values of a hyperparameter."""
    return any(np.any(np.diff(values)) for _, values in plot_data.schedules(table, name).trials)


def _alone(width: Width, draw: "Callable[..., Axes]", *of: Any) -> "Figure":
    """Returns a figure of one panel that ``draw(*of, panel)`` fills."""
    with new_figure(1, width=width) as (figure, panels):
        draw(*of, panels[0])
    return figure
