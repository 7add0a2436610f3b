"""The objective: which metric decides, which way, and how trials rank by it. The one place for that."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError, check_float, did_you_mean


@dataclass(frozen=True)
class Objective:
    """A metric, a direction, and how replicates are judged together. Made by ``minimize`` and ``maximize``."""

    metric: str
    direction: Literal["minimize", "maximize"]
    quantile: float | None = None

    def __post_init__(self) -> None:
        if self.quantile is not None:
            check_float(f"{self.direction}.quantile", self.quantile, 0, 1, "Use 0.9, or None for the mean.")

    def __str__(self) -> str:
        return f"{self.direction} {self.metric}" + ("" if self.quantile is None else f", quantile {self.quantile:g}")

    def check(self, metrics: Collection[str]) -> None:
        """Raises ``InputError`` where ``metrics`` lacks the metric."""
        if self.metric not in metrics:
            raise InputError(
                "Sweep.objective", self.metric, "must be a metric of the program", did_you_mean(self.metric, metrics)
            )
        if not self.metric.startswith("valid/"):
            allowed = "must be one on the validation split: chosen by training metrics, trials that overfit win"
            raise InputError("Sweep.objective", self.metric, allowed, did_you_mean(f"valid/{self.metric}", metrics))

    def scores(self, values: Floats) -> Floats:
        """Values as scores, of which lower is better; what is not finite becomes NaN, which never wins."""
        signed = values if self.direction == "minimize" else -values
        return np.where(np.isfinite(signed), signed, np.nan)

    def aggregate(self, values: Floats) -> Floats:
        """(..., replicates) as scores (...): their mean, or the quantile, where higher ones look at worse replicates.

        NaN where a replicate is not finite.
        """
        scores = self.scores(values)
        return scores.mean(axis=-1) if self.quantile is None else np.quantile(scores, self.quantile, axis=-1)

    def value(self, scores: Any) -> Any:
        """Scores as values of the metric again."""
        return scores if self.direction == "minimize" else -scores

    def rank(self, values: Floats, status: NDArray[np.str_], step: NDArray[np.integer[Any]]) -> list[int]:
        """Trial ids from best to worst; diverged trials, and those never evaluated, are left out.

        A trial is judged by all its replicates together, at their last evaluations; one whose replicates
        diverged in part has no score. Complete trials come before those that are not, then those that ran
        longer; ties go to the lower id.

        Args:
          values: (trials, replicates), the metric at each lane's last evaluation.
          status: (trials, replicates).
          step: int (trials, replicates).
        """
        scores = self.aggregate(values)
        complete = (status == "complete").all(axis=1)
        ran = step.min(axis=1)
        fit = [t for t in range(len(scores)) if np.isfinite(scores[t]) and not (status[t] == "diverged").any()]
        return sorted(fit, key=lambda t: (not complete[t], 0 if complete[t] else -ran[t], scores[t], t))


def minimize(metric: str, quantile: float | None = None) -> Objective:
    """The objective "the lower ``metric``, the better", e.g. ``minimize("valid/loss")``.

    Args:
      metric: its name.
      quantile: a trial is judged by the mean over its replicates, or by this quantile of them, counted from the best:
        0.5 is the median, 1 the worst.
    """
    return Objective(metric, "minimize", quantile)


def maximize(metric: str, quantile: float | None = None) -> Objective:
    """The objective "the higher ``metric``, the better", e.g. ``maximize("valid/accuracy")``; as ``minimize``."""
    return Objective(metric, "maximize", quantile)
