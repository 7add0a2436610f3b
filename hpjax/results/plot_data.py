"""The numbers that pictures of a sweep show; ``plot`` draws them."""

from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.format import show
from hpjax.results.store.rows import LOST, Status
from hpjax.results.table import TrialTable

# A value is far from the others if it is so many times farther from the best than nine in ten of them.
FAR = 3.0


class Curves(NamedTuple):
    """A metric over the steps, one row per lane.

    Rows of diverged trials come first, then those of the others from the worst trial to the best.

    Attributes:
      trials: int (lanes,), the trial of each lane.
      steps, values: (lanes, evaluations), padded with NaN.
    """

    trials: Array
    steps: Array
    values: Array


class Axis(NamedTuple):
    """A metric against one hyperparameter, at the end of training as tables have it.

    Attributes:
      trials: int (points,), the trials shown.
      x: (points,), values of the hyperparameter; of a choice the index into ``categories``.
      y: (points,), the metric.
      diverged: (diverged trials,), their values of the hyperparameter, on the scale of ``x``.
      categories: the options of a choice, as text; else empty.
      scale: the scale of the domain, as ``Space.scale`` has it.
    """

    trials: Array
    x: Array
    y: Array
    diverged: Array
    categories: tuple[str, ...]
    scale: str


def curves(table: TrialTable, metric: str) -> Curves:
    """Returns the curves of all lanes of a sweep.

    Raises:
      InputError: the sweep has no such metric.
    """
    order = [*np.setdiff1d(np.arange(len(table)), table.ranking), *table.ranking[::-1]]
    lanes, evaluations = table.lane_status.size, table.curves("step").shape[-1]
    steps, values = (table.curves(name)[order].reshape(lanes, evaluations) for name in ("step", metric))
    return Curves(np.repeat(order, table.lane_status.shape[1]), steps, values)


def axis(table: TrialTable, name: str, metric: str) -> Axis:
    """Returns a metric against one hyperparameter, over the trials that have it.

    Args:
      table: the trials.
      name: the name of the hyperparameter.
      metric: the name of the metric.
    """
    has = np.array([name in hparams for hparams in table.hparams])
    column: list[Any] = [hparams.get(name) for hparams in table.hparams]
    categories: tuple[str, ...] = ()
    if table.scales[name] == "category":
        present = [value for value, there in zip(column, has, strict=True) if there]
        numeric = all(isinstance(value, int | float) for value in present)
        distinct = sorted(set(present)) if numeric else list(dict.fromkeys(present))
        categories = tuple(map(show, distinct))
        column = [distinct.index(value) if there else np.nan for value, there in zip(column, has, strict=True)]
    x = np.array(column, float)
    diverged = table.statuses == Status.DIVERGED
    y = reached(table, metric)
    kept = np.flatnonzero(has & ~diverged & np.isfinite(y))
    return Axis(kept, x[kept], y[kept], x[has & diverged], categories, table.scales[name])


class Map(NamedTuple):
    """A metric over two hyperparameters, at the end of training as tables have it.

    Attributes:
      trials: int (points,), the trials shown.
      x, y: (points,), values of the hyperparameters.
      z: (points,), the metric.
      diverged: (diverged trials, 2), their values of both hyperparameters.
      scales: the scales of both domains, as ``Space.scale`` has them.
    """

    trials: Array
    x: Array
    y: Array
    z: Array
    diverged: Array
    scales: tuple[str, str]


def map_of(table: TrialTable, across: str, up: str, metric: str) -> Map:
    """Returns a metric over two numeric hyperparameters, over the trials that have both.

    Args:
      table: the trials.
      across, up: the hyperparameters on the horizontal and the vertical axis.
      metric: the name of the metric.
    """
    places = np.array([[_number(hparams.get(name)) for name in (across, up)] for hparams in table.hparams])
    there, diverged = np.isfinite(places).all(axis=1), table.statuses == Status.DIVERGED
    z = reached(table, metric)
    kept = np.flatnonzero(there & ~diverged & np.isfinite(z))
    scales = table.scales[across], table.scales[up]
    return Map(kept, places[kept, 0], places[kept, 1], z[kept], places[there & diverged], scales)


class Rungs(NamedTuple):
    """How a scheduler thinned out the trials.

    Attributes:
      steps: int (rungs,), the steps at which trials were stopped, ascending.
      live: int (rungs + 1,), how many trials trained up to the first rung, between each two rungs, and after the last.
      ended: int (trials,), the step at which each trial ended.
      stopped: bool (trials,), whether the scheduler stopped it there.
    """

    steps: Array
    live: Array
    ended: Array
    stopped: Array


def rungs(table: TrialTable) -> Rungs:
    """Returns at which steps trials were stopped, and how many went on."""
    ended, stopped = table.lane_step.max(axis=1), table.statuses == Status.STOPPED
    steps = np.unique(ended[stopped])
    lost = np.isin(table.statuses, LOST)
    begin = np.concatenate([[0], steps])
    # A diverged trial was live for as long as it trained. One that was stopped at a rung is not live after it, while
    # one that completed its steps right there is.
    live = np.array([np.sum((ended > step) | (~stopped & ~lost)) for step in begin])
    return Rungs(steps, live, ended, stopped)


def ancestry(table: TrialTable, trial: int) -> list[tuple[int, int, int]]:
    """Returns which trials trained the weights of one: (id, from step, to step), oldest first."""
    descent = table.descent(trial)
    ends = [step for _, step, _ in descent[1:]] + [int(table.lane_step[trial].max())]
    return [(each, step, end) for (each, step, _), end in zip(descent, ends, strict=True)]


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


def numbers(table: TrialTable) -> list[str]:
    """Returns the hyperparameters that vary and are numbers on a scale, in the order of the space."""
    return [name for name in table.varied if table.scales[name] != "category"]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def limits(values: Array, whole: Array | None = None) -> tuple[float, float]:
    """Returns the range of an axis, with a margin: from the lowest value to the highest, or to the 90th percentile.

    The latter where the highest is far beyond it: a few bad trials would otherwise press all others into one line.

    Args:
      values: what is drawn, lower being better; NaN is left out.
      whole: what must be inside, such as the values of the best trial.
    """
    finite = values[np.isfinite(values)]
    inside = np.array([]) if whole is None else whole[np.isfinite(whole)]
    if finite.size + inside.size == 0:
        return 0.0, 1.0
    low = float(min(finite.min(initial=np.inf), inside.min(initial=np.inf)))
    most, worst = (float(np.quantile(finite, q)) if finite.size else low for q in (0.9, 1.0))
    high = max(worst if worst - low <= FAR * (most - low) else most, float(inside.max(initial=-np.inf)))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin
