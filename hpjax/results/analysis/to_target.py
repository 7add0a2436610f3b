"""How long methods take to a target, when each has to tune its hyperparameters first: as AlgoPerf scores them.

G. E. Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023, arXiv 2306.07179.
"""

import numpy as np
from numpy.typing import ArrayLike

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, check_float, check_int
from hpjax.results.analysis.intervals import Estimate
from hpjax.results.table import TrialTable


def steps_to_target(table: TrialTable, target: float, metric: str | None = None) -> Array:
    """Returns the optimizer step of the first evaluation at which each lane was strictly better than a target.

    Args:
      table: the result of a sweep.
      target: a value of the metric.
      metric: the name of the metric, of which lower or higher values are better as of the objective's; by default that.

    Returns:
      Float (trials, replicates); infinite where a lane has no such evaluation.

    Raises:
      InputError: the target is no number, or there is no such metric.
    """
    target, scores = check_float("target", target, -np.inf), table.objective.scores
    values, steps = table.curves(metric or table.objective.metric), table.curves("step")
    # Compared in the type of the values, as lanes do: so a lane ends at the very evaluation that is found here.
    better = scores(values) < scores(np.array(target, values.dtype))
    found: Array = np.where(better, steps, np.inf).min(axis=-1, initial=np.inf)
    return found


def median_of_studies(
    times: ArrayLike, studies: int = 5, trials: int = 5, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Estimate:
    """Returns the median over some studies of the time of the fastest of their trials, as AlgoPerf tunes.

    Each of the studies draws its trials from all that there are, without replacement; the value is the median over many
    such draws, and the interval has the given share of them.

    Args:
      times: to the target, of all trials, (all trials,); infinite where a trial never reached it.
      studies: how many studies there are, AlgoPerf's k.
      trials: how many trials each has, AlgoPerf's n.
      confidence: the share of draws in the interval.
      draws: how many draws of all studies.
      seed: of the draws.

    Raises:
      InputError: there are fewer trials than the studies need together, or a time is NaN or not positive.

    Example:
      >>> hpx.analysis.median_of_studies([5.0, 3.0, 4.0, 1.0, 2.0, 6.0], studies=3, trials=2, seed=1).value
      2.0
    """
    medians = np.sort(draws_of_studies(times, studies, trials, draws, seed))
    tail = (1 - check_float("confidence", confidence, 0.0, 1.0)) / 2
    # Without interpolation, in which infinite times would make NaN.
    low, value, high = np.quantile(medians, [tail, 0.5, 1 - tail], method="inverted_cdf")
    return Estimate(float(value), float(low), float(high))


def draws_of_studies(times: ArrayLike, studies: int, trials: int, draws: int = 2000, seed: int = 0) -> Array:
    """Returns the median over some studies of the time of the fastest of their trials, in each of many draws.

    Args:
      times: to the target, of all trials, (all trials,); infinite where a trial never reached it.
      studies: how many studies there are.
      trials: how many trials each has.
      draws: how many draws of all studies.
      seed: of the draws.

    Returns:
      float (draws,).

    Raises:
      InputError: there are fewer trials than the studies need together, or a time is NaN or not positive.
    """
    found = np.asarray(times, float)
    studies, trials = check_int("studies", studies), check_int("trials", trials)
    if found.ndim != 1 or len(found) < studies * trials or not (found > 0).all():
        allowed = f"must be {studies * trials} or more positive times, infinite where the target was not reached"
        raise InputError("times", f"an array {found.shape}", allowed, "Write studies=3, trials=5 for fewer.")
    draws, rng = check_int("draws", draws), np.random.default_rng(seed)
    drawn = np.array([rng.permutation(found)[: studies * trials] for _ in range(draws)])
    medians: Array = np.median(drawn.reshape(draws, studies, trials).min(axis=2), axis=1)
    return medians


def profile_scores(times: ArrayLike, worst: float = 4.0) -> Array:
    """Returns the score of each method over several workloads: the area under its performance profile.

    With r the time of a method over that of the fastest on the same workload, the profile at τ is the share of
    workloads with r ≤ τ, and the score its mean over τ from 1 to ``worst``: 1 for a method that is fastest on all of
    them, 0 for one that is never within ``worst`` times the fastest. E. D. Dolan and J. J. Moré, "Benchmarking
    Optimization Software with Performance Profiles", Mathematical Programming 2002; AlgoPerf's ``worst`` is 4.

    Args:
      times: (methods, workloads), infinite where a method did not reach the target.
      worst: τ at most.

    Returns:
      float (methods,).

    Raises:
      InputError: a time is NaN or not positive, no method reached a target, or ``worst`` is 1 or less.

    Example:
      >>> hpx.analysis.profile_scores([[1.0, 4.0], [2.0, 2.0]]).round(3).tolist()
      [0.833, 0.833]
    """
    found, worst = np.asarray(times, float), check_float("worst", worst, 1.001)
    if found.ndim != 2 or not (found > 0).all() or not np.isfinite(found.min(axis=0, initial=np.inf)).all():
        allowed = "must be positive, (methods, workloads), with a method that reached the target on each workload"
        raise InputError("times", f"an array {found.shape}", allowed, "Leave out workloads that nobody trained.")
    return areas_of(found, worst)


def areas_of(times: Array, worst: float) -> Array:
    """Returns the scores of ``profile_scores``; a workload whose target nobody reached counts 0 for all.

    Args:
      times: (..., methods, workloads), positive.
      worst: τ at most.

    Returns:
      float (..., methods).
    """
    fastest = times.min(axis=-2, keepdims=True)
    ratios = np.divide(times, fastest, out=np.full(times.shape, np.inf), where=np.isfinite(times))
    scores: Array = (np.clip(worst - ratios, 0, None) / (worst - 1)).mean(axis=-1)
    return scores
