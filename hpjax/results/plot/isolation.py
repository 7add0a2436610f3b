"""Draws what one hyperparameter does once the others are as good as they get."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.results import plot_data
from hpjax.results.analysis.isolation import isolate
from hpjax.results.drawing import add_legend, metric_label, placed, set_categories, set_limits, set_scale
from hpjax.results.style import BLUE, GREY, RED
from hpjax.results.table import TrialTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_isolation(
    table: TrialTable, name: str, ax: "Axes", fixed: Mapping[str, Any] | None = None, buckets: int = 8
) -> "Axes":
    """Draws the best trial of each value of a hyperparameter, or of each bucket of values, before all that count.

    Squares are what is expected of as many trials as the value or bucket with the fewest has: see
    ``hpx.analysis.isolate``, which has these numbers and the source of the method.

    Args:
      table: the trials; a result is one.
      name: the scientific hyperparameter.
      ax: where to draw.
      fixed: name to value of hyperparameters that are held: only trials with these count.
      buckets: a number with more values than this is divided into so many buckets, even on its scale.

    Raises:
      InputError: as of ``hpx.analysis.isolate``.

    Example:
      >>> from matplotlib.figure import Figure
      >>> both = space & hpx.Space(scale=hpx.Choice(0.5, 1.0))
      >>> result = hpx.Sweep(program, both, trials=16).run(progress=False)
      >>> hpx.plot.draw_isolation(result, "rate", Figure().subplots(), fixed={"scale": 0.5}).get_ylabel()
      'final valid/loss'
    """
    found, metric, held = isolate(table, name, fixed, buckets), table.objective.metric, dict(fixed or {}).items()
    trials, x, y, _, categories, scale = plot_data.axis(table, name, metric)
    if categories:
        set_categories(ax, "x", categories)
    at = dict(zip(trials.tolist(), placed(x, scale), strict=True))
    kept = np.array([held <= table.hparams[trial].items() for trial in trials])
    reached, expected = np.array([(each.reached, each.expected) for each in found]).T
    best = [at[each.best] for each in found]
    set_limits(ax, y[kept], table, metric, np.append(reached, expected))
    ax.scatter(placed(x, scale)[kept], y[kept], s=8, color=GREY, alpha=0.5, linewidths=0, label="trials")
    line = "none" if categories else "-"
    ax.plot(best, reached, linestyle=line, marker="o", color=RED, markersize=3, linewidth=1.2, label="best of each")
    ax.plot(best, expected, "s", color=BLUE, markersize=6, fillstyle="none", label="expected best of equally many")
    set_scale(ax, "x", name, scale)
    add_legend(ax)
    ax.set_ylabel(metric_label(table, metric))
    return ax
