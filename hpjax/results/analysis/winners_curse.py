"""The winner's curse: how much better the best trial looks than it is."""

import math

import numpy as np

from hpjax.core.errors import InputError
from hpjax.results.analysis.variance import variances
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable


def winners_curse(result: TrialTable, draws: int = 10_000) -> float:
    """Returns how much better the best trial looks than it is, expected because it was chosen for looking best.

    The noise of a trial's mean is estimated from its replicates, less what a replicate does to all trials alike, which
    favours none. True values are estimated by shrinking the better half of the trials towards their mean, as far as
    noise explains their spread; then the choice is simulated on these values with fresh noise.

    B. Efron, "Tweedie's Formula and Selection Bias", JASA 2011, of which this is the normal case.

    Args:
      result: the result of a sweep with two replicates or more (seeds or folds), and three complete trials or more.
      draws: how often the choice is simulated.

    Returns:
      The optimism in units of the objective, 0 or more: worsen the best trial's value by so much.

    Raises:
      InputError: there are too few replicates or trials.

    Example:
      >>> sweep = hpx.Sweep(program, space, trials=8, replicates=3)
      >>> 0 <= winners_curse(sweep.run(progress=False)) < 1
      True
    """
    complete = (result.lane_status == Status.COMPLETE).all(axis=1)
    scores = result.objective.scores(result.last(result.objective.metric))[complete]
    scores = scores[np.isfinite(scores).all(axis=1)]
    trials, replicates = scores.shape
    if replicates < 2:
        allowed = "must be 2 or more, to know the noise"
        raise InputError("replicates", replicates, allowed, "Write hpx.Sweep(..., replicates=3) or folds=5.")
    if trials < 3:
        allowed = "must be 3 or more that are complete"
        raise InputError("trials", trials, allowed, "Write hpx.Sweep(..., trials=16), or train without a scheduler.")
    means = scores.mean(axis=1)
    noise = variances(scores).residual / replicates
    truth = np.sort(means)
    half = truth[: max(trials // 2, 2)]
    spread = max(float(half.var(ddof=1)) - noise, 0.0)
    share = spread / (spread + noise) if spread + noise > 0 else 1.0
    truth[: len(half)] = half.mean() + share * (half - half.mean())
    seen = truth + math.sqrt(noise) * np.random.default_rng(0).standard_normal((draws, trials))
    chosen = seen.argmin(axis=1)
    return max(float((truth[chosen] - seen[np.arange(draws), chosen]).mean()), 0.0)
