"""The objective of a sweep: which metric decides, in which direction, and how trials rank by it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError, check_float, did_you_mean


@dataclass(frozen=True)
class Objective:
    """A metric, its direction, and how the replicates of a trial combine. ``minimize`` and ``maximize`` make it.

    Args:
      metric: the name of the metric, ``valid/loss``.
      direction: ``"minimize"`` or ``"maximize"``.
      quantile: None judges a trial by the mean over its replicates; a number in [0, 1] by that quantile, counted
        from the best replicate to the worst.

    Raises:
      InputError: the metric is no string, or the quantile lies outside [0, 1].

    Example:
      >>> minimize("valid/loss").aggregate(np.array([[1.0, 3.0], [2.0, 2.5]]))
      array([2.  , 2.25])
    """

    metric: str
    direction: Literal["minimize", "maximize"]
    quantile: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str):
            remedy = f'Write hpx.{self.direction}("valid/loss").'
            raise InputError(f"{self.direction}.metric", self.metric, "must be the name of a metric", remedy)
        if self.quantile is not None:
            remedy = "Write quantile=0.9, or quantile=None for the mean."
            quantile = check_float(f"{self.direction}.quantile", self.quantile, 0, 1, remedy)
            object.__setattr__(self, "quantile", quantile)

    def __str__(self) -> str:
        return f"{self.direction} {self.metric}" + ("" if self.quantile is None else f", quantile {self.quantile:g}")

    def check(self, metrics: Collection[str]) -> None:
        """Raises ``InputError`` unless the metric is one of ``metrics``, and is measured on the validation split."""
        if self.metric not in metrics:
            raise InputError(
                "Sweep.objective", self.metric, "must be a metric of the program", did_you_mean(self.metric, metrics)
            )
        if not self.metric.startswith("valid/"):
            allowed = "must be measured on the validation split: by a training metric, trials that overfit would win"
            raise InputError("Sweep.objective", self.metric, allowed, did_you_mean(f"valid/{self.metric}", metrics))

    def scores(self, values: Floats) -> Floats:
        """Returns values of the metric as scores: lower is better, and NaN stands for what is not finite."""
        signed = values if self.direction == "minimize" else -values
        return np.where(np.isfinite(signed), signed, np.nan)

    def aggregate(self, values: Floats) -> Floats:
        """Returns one score for each set of replicates: their mean, or the objective's quantile.

        Args:
          values: float (..., replicates), values of the metric.

        Returns:
          Float (...), lower being better; NaN where a replicate is not finite.
        """
        scores = self.scores(values)
        return scores.mean(axis=-1) if self.quantile is None else np.quantile(scores, self.quantile, axis=-1)

    def value(self, scores: Any) -> Any:
        """Returns scores as values of the metric; the inverse of ``scores``."""
        return scores if self.direction == "minimize" else -scores

    def rank(self, values: Floats, status: NDArray[np.str_], step: NDArray[np.integer[Any]]) -> list[int]:
        """Returns the ids of trials from best to worst, without those that diverged, failed or were never evaluated.

        A trial is judged by all its replicates at their last evaluations; if one of them diverged, it has no score.
        Complete trials come first, then those that ran longer; ties go to the lower id.

        Args:
          values: float (trials, replicates), the metric at each lane's last evaluation.
          status: str (trials, replicates), the status of each lane.
          step: int (trials, replicates), the optimizer steps of each lane.
        """
        scores = self.aggregate(values)
        complete = (status == "complete").all(axis=1)
        ran = step.min(axis=1)
        lost = ((status == "diverged") | (status == "failed")).any(axis=1)
        fit = [t for t in range(len(scores)) if np.isfinite(scores[t]) and not lost[t]]
        return sorted(fit, key=lambda t: (not complete[t], 0 if complete[t] else -ran[t], scores[t], t))


def minimize(metric: str, quantile: float | None = None) -> Objective:
    """Returns the objective "the lower ``metric``, the better".

    Args:
      metric: the name of a validation metric, ``valid/loss``.
      quantile: None judges a trial by the mean over its replicates; a number in [0, 1] by that quantile, counted from
        the best replicate: 0.5 is the median, 1 the worst.

    Raises:
      InputError: the metric is no string, or the quantile lies outside [0, 1].

    Example:
      >>> print(minimize("valid/loss", quantile=0.9))
      minimize valid/loss, quantile 0.9
    """
    return Objective(metric, "minimize", quantile)


def maximize(metric: str, quantile: float | None = None) -> Objective:
    """Returns the objective "the higher ``metric``, the better".

    Args:
      metric: the name of a validation metric, ``valid/accuracy``.
      quantile: None judges a trial by the mean over its replicates; a number in [0, 1] by that quantile, counted from
        the best replicate: 0.5 is the median, 1 the worst.

    Raises:
      InputError: the metric is no string, or the quantile lies outside [0, 1].

    Example:
      >>> print(maximize("valid/accuracy"))
      maximize valid/accuracy
    """
    return Objective(metric, "maximize", quantile)
