"""Trials that some seeds choose and others judge, so that the luck of the choice is no part of the judgement."""

import numpy as np

from hpjax.core.arrays import Array, Floats
from hpjax.core.domains import Range
from hpjax.results.analysis import Comparison, Estimate, probability_of_outperforming
from hpjax.results.analysis.intervals import bootstrap
from hpjax.results.result import Result
from hpjax.results.store.rows import Status

CONFIDENCE, RESAMPLES = 0.95, 2000


def choosing_of(replicates: int) -> int:
    """Returns how many replicates choose the best trial of several, the first ones; the others judge it."""
    return replicates // 2


def medians_of(result: Result, scores: Floats) -> Floats:
    """Returns the median of each trial's scores over the seeds that choose, infinite unless all are complete.

    Args:
      result: the result of the study.
      scores: (trials, seeds that choose), lower is better.
    """
    complete = (result.lane_status[:, : scores.shape[1]] == Status.COMPLETE).all(axis=1)
    return np.where(complete & np.isfinite(scores).all(axis=1), np.median(scores, axis=1), np.inf)


def goes_on(domain: Range, which: str) -> bool:
    """Returns whether there may be values beyond an end of a domain: not below 0, nor above 1 where 0 is the other."""
    return bool(domain.low != 0) if which == "lowest" else (domain.low, domain.high) != (0, 1)


def compared(scores: Floats, base: Floats) -> tuple[Estimate, Comparison]:
    """Returns the median of the paired gains over ``base``, and how probable a gain is, each with its interval."""
    if len(scores) < 2:
        return Estimate(np.nan, np.nan, np.nan), Comparison(np.nan, np.nan, np.nan, np.nan)
    gains = base - scores

    def median(drawn: Array) -> Array:
        found: Array = np.median(drawn, axis=(1, 2))
        return found

    low, high = bootstrap(median, gains[:, None], confidence=CONFIDENCE, resamples=RESAMPLES, seed=0)
    gain = Estimate(float(np.median(gains)), float(low), float(high))
    return gain, probability_of_outperforming(-scores, -base, confidence=CONFIDENCE, resamples=RESAMPLES)
