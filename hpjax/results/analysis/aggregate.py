"""Scores of several runs on several tasks in one number, with intervals: as R. Agarwal et al. report them.

"Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021. Higher scores are better: of a
loss give its negative. Intervals are percentiles of a bootstrap that resamples the runs of each task alone.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError
from hpjax.results.analysis.intervals import Estimate, as_scores, bootstrap


class Profile(NamedTuple):
    """The share of runs whose scores are above each threshold.

    Attributes:
      thresholds: float (thresholds,).
      share: float (thresholds,).
      low, high: the ends of its interval, each (thresholds,).
    """

    thresholds: Array
    share: Array
    low: Array
    high: Array


def interquartile_mean(scores: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Returns the mean of the middle half of all scores, in which neither a few lucky nor a few lost runs count.

    Args:
      scores: (runs, tasks), or (runs,) of one task; normalized where tasks have different scales.
      confidence: of the interval.
      resamples, seed: of the bootstrap.

    Raises:
      InputError: the scores are not finite numbers of two runs or more, or another argument cannot be used.

    Example:
      >>> hpx.analysis.interquartile_mean([[1.0], [2.0], [3.0], [100.0]]).value
      2.5
    """
    found = as_scores("scores", scores)
    low, high = bootstrap(_middle, found, confidence=confidence, resamples=resamples, seed=seed)
    return Estimate(float(_middle(found[None])[0]), float(low), float(high))


def _middle(scores: Array) -> Array:
    """Returns the mean without the lowest and the highest quarter, of scores (..., runs, tasks)."""
    flat = np.sort(scores.reshape(len(scores), -1), axis=1)
    cut = flat.shape[1] // 4
    mean: Array = flat[:, cut : flat.shape[1] - cut].mean(axis=1)
    return mean


def performance_profile(
    scores: ArrayLike, thresholds: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Profile:
    """Returns the share of runs with a score above each threshold, averaged over tasks.

    Args:
      scores: (runs, tasks), or (runs,) of one task.
      thresholds: (thresholds,).
      confidence: of the intervals, one for each threshold.
      resamples, seed: of the bootstrap.

    Raises:
      InputError: the scores or thresholds are not finite numbers, or another argument cannot be used.

    Example:
      >>> hpx.analysis.performance_profile([[1.0], [2.0], [3.0], [4.0]], [0.5, 2.5]).share.tolist()
      [1.0, 0.5]
    """
    found, at = as_scores("scores", scores), as_scores("thresholds", thresholds, least=1)[:, 0]

    def statistic(drawn: Array) -> Array:
        flat = np.sort(drawn.reshape(len(drawn), -1), axis=1)
        above = [flat.shape[1] - np.searchsorted(each, at, side="right") for each in flat]
        share: Array = np.array(above) / flat.shape[1]
        return share

    low, high = bootstrap(statistic, found, confidence=confidence, resamples=resamples, seed=seed)
    return Profile(at, statistic(found[None])[0], low, high)


def probability_of_improvement(
    x: ArrayLike, y: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Returns how probable it is that a run of x scores higher than one of y on a random task; ties count half.

    It is the statistic U of Mann and Whitney over the number of pairs, averaged over tasks.

    Args:
      x, y: the scores of both methods, each (runs, tasks) or (runs,); on the same tasks, with any numbers of runs.
      confidence: of the interval.
      resamples, seed: of the bootstrap.

    Raises:
      InputError: the scores are not finite numbers, of the same tasks; or another argument cannot be used.

    Example:
      >>> hpx.analysis.probability_of_improvement([2.0, 3.0], [1.0, 2.0]).value
      0.875
    """
    a, b = as_scores("x", x), as_scores("y", y)
    if a.shape[1] != b.shape[1]:
        raise InputError("y", f"an array {b.shape}", f"must have the {a.shape[1]} tasks of x", "Name the same tasks.")
    low, high = bootstrap(_above, a, b, confidence=confidence, resamples=resamples, seed=seed)
    return Estimate(float(_above(a[None], b[None])[0]), float(low), float(high))


def _above(x: Array, y: Array) -> Array:
    """Returns the share of pairs in which x is higher, of scores (..., runs, tasks)."""
    left, right = x[:, :, None, :], y[:, None, :, :]
    share: Array = ((left > right) + 0.5 * (left == right)).mean(axis=(1, 2, 3))
    return share
