"""How much of the spread of scores comes from hyperparameters, how much from seeds, and how much from neither alone."""

from typing import NamedTuple

from numpy.typing import ArrayLike

from hpjax.core.errors import InputError
from hpjax.results.analysis.intervals import as_scores


class Variances(NamedTuple):
    """The components of the variance of scores, of trials and replicates drawn at random.

    Attributes:
      trial: of what the hyperparameters do.
      seed: of what a seed does to all trials alike.
      residual: of what is left: seeds that suit some trials more than others, and noise.
    """

    trial: float
    seed: float
    residual: float

    @property
    def share(self) -> float:
        """The share of the hyperparameters, from 0 to 1; the intraclass correlation ICC(2, 1) of Shrout and Fleiss."""
        whole = self.trial + self.seed + self.residual
        return self.trial / whole if whole > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"variance {self.trial:.3g} of trials ({self.share:.0%}), {self.seed:.3g} of seeds, "
            f"{self.residual:.3g} of both together"
        )


def variances(scores: ArrayLike) -> Variances:
    """Returns the components of the variance of trials that all had the same seeds, by a two-way analysis of variance.

    With the mean squares of trials, of seeds and of the residual, MS_T, MS_S and MS_R, of n trials and k seeds they are
    (MS_T − MS_R) / k, (MS_S − MS_R) / n and MS_R; what would be negative is 0. P. E. Shrout and J. L. Fleiss,
    "Intraclass Correlations", Psychological Bulletin 1979.

    Args:
      scores: (trials, replicates), such as ``result.last("valid/loss")``; trials with a NaN must be left out.

    Raises:
      InputError: they are not finite, or of fewer than two trials or replicates.

    Example:
      >>> print(hpx.analysis.variances([[1.0, 1.2], [2.0, 2.1], [3.0, 3.3]]))
      variance 1.05 of trials (98%), 0.0183 of seeds, 0.005 of both together
    """
    found = as_scores("scores", scores)
    trials, seeds = found.shape
    if seeds < 2:
        remedy = "Write hpx.Sweep(..., replicates=3)."
        raise InputError("scores", f"an array {found.shape}", "must have 2 replicates or more", remedy)
    mean = found.mean()
    of_trials, of_seeds = found.mean(axis=1, keepdims=True), found.mean(axis=0, keepdims=True)
    square_trials = float(((of_trials - mean) ** 2).sum()) * seeds / (trials - 1)
    square_seeds = float(((of_seeds - mean) ** 2).sum()) * trials / (seeds - 1)
    left = found - of_trials - of_seeds + mean
    residual = float((left**2).sum()) / ((trials - 1) * (seeds - 1))
    return Variances(
        max((square_trials - residual) / seeds, 0.0), max((square_seeds - residual) / trials, 0.0), residual
    )
