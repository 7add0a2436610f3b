"""Estimates with bootstrap intervals, and what a statistic of scores is given."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, check_float, check_int

# Resamples that are held in memory at once, in values.
BLOCK = 10_000_000


class Estimate(NamedTuple):
    """A number, and the interval in which it lies.

    Attributes:
      value: the estimate.
      low, high: the ends of its interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def as_scores(field: str, scores: ArrayLike, least: int = 2) -> Array:
    """Returns scores as floats (runs, tasks); a vector is of one task.

    Args:
      field: the argument as the user wrote it.
      scores: (runs,) or (runs, tasks).
      least: how many runs there must be.

    Raises:
      InputError: they are not finite numbers of this shape, or too few.
    """
    try:
        found = np.asarray(scores, float)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or len(found) < least or found.shape[1] == 0 or not np.isfinite(found).all():
        allowed = f"must be finite numbers (runs,) or (runs, tasks), of {least} runs or more"
        remedy = 'Write result.last("valid/loss").T, with a row for each replicate and a column for each trial.'
        raise InputError(field, _shown(found), allowed, remedy)
    return found


def _shown(scores: Array) -> str:
    """Returns in a few words what was given for scores."""
    lost = int((~np.isfinite(scores)).sum())
    return f"an array {scores.shape}" + (f" with {lost} values that are not finite" if lost else "")


def bootstrap(
    statistic: Callable[..., Array], *scores: Array, confidence: float, resamples: int, seed: int
) -> tuple[Array, Array]:
    """Returns the ends of the percentile interval of a statistic, by a bootstrap that resamples each task alone.

    Args:
      statistic: of arrays (resamples, runs, tasks); gives (resamples, ...).
      *scores: each (runs, tasks).
      confidence: of the interval, such as 0.95.
      resamples: how many.
      seed: of the resamples.

    Raises:
      InputError: ``confidence`` is not between 0 and 1, or ``resamples`` no whole number.
    """
    confidence = check_float("confidence", confidence, 0.0, 1.0)
    resamples, rng = check_int("resamples", resamples, least=100), np.random.default_rng(seed)
    # A statistic of two methods may compare each run of one with each of the other.
    block = max(1, BLOCK // (math.prod(len(each) for each in scores) * scores[0].shape[1]))
    found = []
    for begin in range(0, resamples, block):
        many = min(block, resamples - begin)
        found.append(statistic(*(_resampled(rng, each, many) for each in scores)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail], axis=0)
    return low, high


def _resampled(rng: np.random.Generator, scores: Array, many: int) -> Array:
    runs, tasks = scores.shape
    drawn: Array = scores[rng.integers(0, runs, (many, runs, tasks)), np.arange(tasks)]
    return drawn
