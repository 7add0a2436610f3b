"""The expected best of n trials: what a search of any budget would have found."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln
from scipy.stats import t

from hpjax.core.arrays import Array, Ints
from hpjax.core.errors import InputError, check_float


class BestOf(NamedTuple):
    """The expected best value of n trials, for n from 1 to all trials.

    Attributes:
      trials: n, int (budgets,).
      expected: the expectation, float (budgets,).
      low, high: the ends of its interval, each (budgets,); NaN for all trials, of which there is only one subset.
    """

    trials: Ints
    expected: Array
    low: Array
    high: Array


def expected_best(values: ArrayLike, direction: str = "minimize", confidence: float = 0.95) -> BestOf:
    """Returns the expected best value of n random trials, without bias, from the values of N ≥ n trials.

    Of the values in order from the worst, x₁ … x_N, the expectation over all subsets of n is
    Σᵢ C(i−1, n−1) / C(N, n) · xᵢ. J. Dodge et al., "Show Your Work: Improved Reporting of Experimental Results", EMNLP
    2019, draw subsets with replacement, which is biased; R. Tang et al., "Showing Your Work Doesn't Always Work", ACL
    2020, have this estimator, and show that a bootstrap's intervals are too narrow. Those here are of the jackknife
    with Student's t, which are less so: report n up to N / 4. ``tests/results/analysis`` counts how often they hold
    the truth.

    The trials must have been drawn independently of each other: by ``hpx.Random()``, or nearly so by ``hpx.Sobol()``;
    not by a sampler that learns, and without a scheduler.

    Args:
      values: of N trials, such as ``result.table()["valid/loss"]``. A NaN, of a trial that diverged, counts as the
        worst of the others.
      direction: ``"minimize"`` or ``"maximize"``: which values are best.
      confidence: of the intervals, one for each n.

    Raises:
      InputError: there are fewer than three values, or none is finite; or another argument cannot be used.

    Example:
      >>> best = hpx.analysis.expected_best([3.0, 1.0, 2.0, 4.0])
      >>> [round(float(value), 4) for value in best.expected]
      [2.5, 1.6667, 1.25, 1.0]
    """
    if direction not in ("minimize", "maximize"):
        raise InputError("direction", direction, 'must be "minimize" or "maximize"', 'Write direction="minimize".')
    found, sign = np.asarray(values, float), 1 if direction == "maximize" else -1
    if found.ndim != 1 or len(found) < 3 or not np.isfinite(found).any():
        allowed = "must be (trials,), of 3 trials or more of which one is finite"
        raise InputError("values", f"an array {found.shape}", allowed, 'Write result.table()["valid/loss"].')
    confidence = check_float("confidence", confidence, 0.0, 1.0)
    scores = sign * found
    scores = np.sort(np.where(np.isfinite(scores), scores, scores[np.isfinite(scores)].min()))
    many = len(scores)
    expected = _weights(many) @ scores
    without = _without_each(scores)
    error = np.sqrt((many - 1) / many * ((without - without.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    error = np.append(error, np.nan) * t.ppf((1 + confidence) / 2, many - 1)
    ends = np.sort([sign * (expected - error), sign * (expected + error)], axis=0)
    return BestOf(np.arange(1, many + 1, dtype=np.int32), sign * expected, ends[0], ends[1])


def _without_each(scores: Array) -> Array:
    """Returns the estimates without each of the scores: of n up to N − 1, and then of the score that is left out."""
    weights = _weights(len(scores) - 1)
    none = np.zeros((len(weights), 1))
    # Of the sorted scores those before the one that is left out keep their place, and those behind move down by one.
    before = np.cumsum(weights * scores[:-1], axis=1)
    behind = np.cumsum((weights * scores[1:])[:, ::-1], axis=1)[:, ::-1]
    found: Array = np.hstack([none, before]) + np.hstack([behind, none])
    return found


def expected_of(scores: Array, trials: int) -> float:
    """Returns the expected highest of n of N ≥ n scores, of which none is NaN, as ``expected_best`` has it."""
    return float(_weights(len(scores), np.array([trials]))[0] @ np.sort(scores))


def _weights(many: int, trials: Array | None = None) -> Array:
    """Returns C(i − 1, n − 1) / C(N, n), float (budgets, N), of n and then of i; by default of n from 1 to N."""
    n, i = (np.arange(1, many + 1) if trials is None else trials)[:, None], np.arange(1, many + 1)[None, :]
    with np.errstate(invalid="ignore"):
        log = (gammaln(i) - gammaln(n) - gammaln(np.maximum(i - n, 0) + 1)) - (
            gammaln(many + 1) - gammaln(n + 1) - gammaln(many - n + 1)
        )
    found: Array = np.where(i >= n, np.exp(log), 0.0)
    return found
