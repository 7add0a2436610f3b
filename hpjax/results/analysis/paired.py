"""Whether one method is better than another, from runs that differ in nothing else: X. Bouthillier et al. 2021.

"Accounting for Variance in Machine Learning Benchmarks", MLSys 2021: report how probable it is that a run of A is
better than its pair of B. A difference counts if that is more than chance, and matters if it may be more than 0.75.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, check_float
from hpjax.results.analysis.intervals import as_scores, bootstrap

# From here on an improvement matters.
MEANINGFUL = 0.75


class Comparison(NamedTuple):
    """How probable it is that A is better than B, and what follows.

    Attributes:
      value: the probability.
      low, high: the ends of its interval.
      threshold: from which on an improvement matters.
    """

    value: float
    low: float
    high: float
    threshold: float

    @property
    def significant(self) -> bool:
        """Whether A is better than B more often than by chance: the interval lies above one half."""
        return self.low > 0.5

    @property
    def meaningful(self) -> bool:
        """Whether the improvement may matter: the interval reaches beyond the threshold."""
        return self.high > self.threshold

    def __str__(self) -> str:
        if not self.significant:
            verdict = "not significant"
        else:
            verdict = "significant and meaningful" if self.meaningful else "significant, but not meaningful"
        return f"P(A > B) = {self.value:.3g} [{self.low:.3g}, {self.high:.3g}]: {verdict}"


def probability_of_outperforming(
    a: ArrayLike,
    b: ArrayLike,
    threshold: float = MEANINGFUL,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Returns the probability that A scores higher than B on one pair of runs; ties count half.

    The runs of a pair share all that varies besides the method: the seed, the order of the data, the split. Replicates
    of two sweeps with ``randomness="shared"`` are such pairs.

    Args:
      a, b: the scores of both methods, each (pairs,); higher is better, so give the negative of a loss.
      threshold: from which on an improvement matters, between 0.5 and 1.
      confidence: of the interval.
      resamples, seed: of the bootstrap, which resamples pairs.

    Raises:
      InputError: the scores are not finite numbers of equally many runs, or another argument cannot be used.

    Example:
      >>> print(hpx.analysis.probability_of_outperforming([3.0] * 29, [1.0] * 29))
      P(A > B) = 1 [1, 1]: significant and meaningful
    """
    left, right = as_scores("a", a), as_scores("b", b)
    if left.shape != right.shape or left.shape[1] != 1:
        allowed = f"must be (pairs,), as many as a has: {len(left)}"
        raise InputError("b", f"an array {right.shape}", allowed, "Name the runs of both methods in the same order.")
    threshold = check_float("threshold", threshold, 0.5, 1.0)
    wins = (left > right) + 0.5 * (left == right)

    def statistic(drawn: Array) -> Array:
        share: Array = drawn.mean(axis=(1, 2))
        return share

    low, high = bootstrap(statistic, wins, confidence=confidence, resamples=resamples, seed=seed)
    return Comparison(float(wins.mean()), float(low), float(high), threshold)


def pairs_needed(threshold: float = MEANINGFUL, false_positives: float = 0.05, false_negatives: float = 0.05) -> int:
    """Returns how many pairs tell an improvement at the threshold from none, by Noether's formula.

    It is ((Φ⁻¹(1 − α) − Φ⁻¹(β)) / (√6 · (½ − γ)))² for the threshold γ, as in the paper, which names 29 for 0.75.

    Args:
      threshold: γ, above 0.5 and up to 1.
      false_positives: α.
      false_negatives: β.

    Raises:
      InputError: an argument is not such a probability.

    Example:
      >>> pairs_needed()
      29
    """
    threshold = check_float("threshold", threshold, 0.501, 1.0)
    alpha = check_float("false_positives", false_positives, 1e-9, 0.5)
    beta = check_float("false_negatives", false_negatives, 1e-9, 0.5)
    return math.ceil(float((norm.ppf(1 - alpha) - norm.ppf(beta)) / (np.sqrt(6) * (0.5 - threshold))) ** 2)
