"""Curves over the steps of training: those of all lanes, and what share of the trials is how good at each step."""

from typing import NamedTuple

import numpy as np

from hpjax.core.arrays import Array
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable

# The ends of the bands, and the median.
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
# Stands for the score of a trial that diverged, which is worse than any other.
WORST = 1e300


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


def curves(table: TrialTable, metric: str) -> Curves:
    """Returns the curves of all lanes of a sweep.

    Raises:
      InputError: the sweep has no such metric.
    """
    order = [*np.setdiff1d(np.arange(len(table)), table.ranking), *table.ranking[::-1]]
    lanes, evaluations = table.lane_status.size, table.curves("step").shape[-1]
    steps, values = (table.curves(name)[order].reshape(lanes, evaluations) for name in ("step", metric))
    return Curves(np.repeat(order, table.lane_status.shape[1]), steps, values)


class Quantiles(NamedTuple):
    """How good the trials are over the steps of training.

    Attributes:
      steps: int (steps,), ascending, at which a trial was evaluated.
      values: float (levels, steps), the 5, 25, 50, 75 and 95 % quantiles over trials, counted from the best; infinite,
        in the direction that is worse, where so many trials diverged.
      counts: int (steps,), of how many trials.
    """

    steps: Array
    values: Array
    counts: Array


def quantiles(table: TrialTable, metric: str) -> Quantiles:
    """Returns quantiles over trials of a metric at each step.

    Each step has the trials that were evaluated at it, by the mean over their replicates or by the objective's
    quantile; and those that diverged at it or before, as worse than any other. So nothing gets better because bad
    trials fall out, unless a scheduler stops them.

    Raises:
      InputError: the sweep has no such metric.
    """
    steps, scores = by_trial(table, metric)
    found = np.unique(steps[np.isfinite(steps)])
    lost = table.statuses == Status.DIVERGED
    ended = table.lane_step.max(axis=1)
    values, counts = np.full((len(LEVELS), len(found)), np.nan), np.zeros(len(found), int)
    for at, step in enumerate(found):
        there = scores[steps == step]
        gone = np.sum(lost & (ended <= step) & ~((steps == step) & np.isfinite(scores)).any(axis=1))
        present = np.append(there[np.isfinite(there)], np.full(gone, WORST))
        counts[at] = len(present)
        if len(present):
            with np.errstate(over="ignore"):
                values[:, at] = np.quantile(present, LEVELS)
    return Quantiles(found.astype(int), table.objective.value(np.where(values > WORST / 1e6, np.inf, values)), counts)


def by_trial(table: TrialTable, metric: str) -> tuple[Array, Array]:
    """Returns step and score of each evaluation of each trial: two of (trials, evaluations), padded with NaN.

    Scores are lower where they are better, and combine replicates as the objective does; of other metrics they are
    means. They are NaN where a replicate has no value.
    """
    steps = table.curves("step")
    by_replicate = np.moveaxis(table.curves(metric), 1, -1)
    own = metric == table.objective.metric
    scores = table.objective.aggregate(by_replicate) if own else table.objective.scores(by_replicate).mean(axis=-1)
    # Replicates are evaluated at the same steps, as long as they train.
    latest = np.where(np.isfinite(steps), steps, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(latest), latest, np.nan), scores
