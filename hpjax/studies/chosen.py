"""Trials that some seeds choose and others judge, so that the luck of the choice is no part of the judgement."""

from typing import Any

import numpy as np

from hpjax.core.arrays import Array, Floats
from hpjax.core.domains import Range
from hpjax.core.errors import InputError, check_int
from hpjax.core.hparams import Hparams
from hpjax.core.objective import Objective
from hpjax.results.analysis import Comparison, Estimate, probability_of_outperforming
from hpjax.results.analysis.intervals import bootstrap
from hpjax.results.result import Result
from hpjax.results.store.rows import Status
from hpjax.sweep.sweep import Sweep

CONFIDENCE, RESAMPLES = 0.95, 2000


def check_search(study: str, trials: Any, rounds: Any, replicates: Any, objective: Objective) -> None:
    """Raises ``InputError`` unless some seeds can choose, and others judge, by an objective without a quantile."""
    check_int(f"{study}.trials", trials)
    check_int(f"{study}.rounds", rounds)
    check_int(f"{study}.replicates", replicates, least=4)
    if objective.quantile is not None:
        allowed = "must be without a quantile, since the median over the first half of the seeds chooses"
        remedy = f'Write objective=hpx.{objective.direction}("{objective.metric}").'
        raise InputError(f"{study}.objective", str(objective), allowed, remedy)


def common_steps(field: str, sweep: Sweep) -> int:
    """Returns the optimizer steps of the trials; raises ``InputError`` unless all take equally many."""
    lengths = {sweep.program.length(Hparams(point)).steps for point in sweep.plan().points}
    if len(lengths) > 1:
        allowed = "must be the same for all trials, which are compared at one budget"
        raise InputError(field, f"steps {sorted(lengths)}", allowed, f"Write steps={max(lengths)}.")
    return lengths.pop()


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
