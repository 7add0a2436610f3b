"""The end of each trial, by which trials rank, and the limits of axes that show it."""

import numpy as np

from hpjax.core.arrays import Array
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable

# A value is far from the others if it is so many times farther from the best than nine in ten of them.
FAR = 3.0
# On a linear axis values of a tenth of most others lie in a line.
DECADE = 10.0
# Of the ends of a logarithmic axis, so that their quotient has a logarithm.
SMALLEST, LARGEST = 1e-300, 1e300


def reached(table: TrialTable, metric: str) -> Array:
    """Returns a metric at the end of each trial: (trials,), NaN for those that diverged or failed.

    Of the objective's metric it is the value by which trials rank: with a quantile that of the replicates, else their
    mean, as of all other metrics.
    """
    if metric != table.objective.metric:
        last: Array = table.last(metric).mean(axis=1)
        return last
    ranked_by: Array = table.objective.value(table.objective.aggregate(table.last(metric)))
    return ranked_by


def final_label(table: TrialTable, metric: str) -> str:
    """Returns what values at the end of training are called, with how replicates combine unless by their mean."""
    quantile = table.objective.quantile if metric == table.objective.metric else None
    return f"final {metric}" if quantile is None else f"final {metric}, quantile {quantile:g}"


def ended_earlier(table: TrialTable) -> Array:
    """Returns which trials ended before those that rank first: bool (trials,).

    A trial that was stopped, or still runs, ranks behind every complete one, and without any behind those that ran
    longer, whatever its value is.
    """
    complete = table.statuses == Status.COMPLETE
    steps = table.lane_step.min(axis=1)
    first = complete if complete.any() else steps == steps[table.ranking[:1]].max(initial=0)
    behind: Array = ~first
    return behind


def limits(values: Array, whole: Array | None = None, logarithmic: bool = False) -> tuple[float, float]:
    """Returns the range of an axis, with a margin: from the lowest value to the highest, or to the 90th percentile.

    The latter where the highest is far beyond it: a few bad trials would otherwise press all others into one line.

    Args:
      values: what is drawn, lower being better; NaN is left out.
      whole: what must be inside, such as the values of the best trial.
      logarithmic: of a logarithmic axis, so that all values are positive.
    """
    if not (np.isfinite(values).any() or np.isfinite(_array(whole)).any()):
        return 0.0, 1.0
    low, high = _shown(values, whole)
    if logarithmic:
        factor = 10 ** (0.05 * (np.log10(high) - np.log10(low)))
        return max(low / factor, SMALLEST), min(high * factor, LARGEST)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def spans_decades(values: Array, whole: Array | None = None) -> bool:
    """Returns whether values are better seen on a logarithmic axis.

    All that are finite are positive then, and the highest that the axis holds is ten times the lowest.

    Args:
      values: what is drawn, lower being better.
      whole: what must be inside.
    """
    low, high = _shown(values, whole)
    return bool(low > 0 and high > DECADE * low)


def _shown(values: Array, whole: Array | None) -> tuple[float, float]:
    """Returns the lowest and the highest value that an axis holds, without a margin; two zeros where there is none."""
    finite, inside = values[np.isfinite(values)], _array(whole)
    inside = inside[np.isfinite(inside)]
    if finite.size + inside.size == 0:
        return 0.0, 0.0
    low = float(min(finite.min(initial=np.inf), inside.min(initial=np.inf)))
    most, worst = (float(np.quantile(finite, q)) if finite.size else low for q in (0.9, 1.0))
    return low, max(worst if worst - low <= FAR * (most - low) else most, float(inside.max(initial=-np.inf)))


def _array(whole: Array | None) -> Array:
    return np.array([]) if whole is None else whole
