"""The objective: which metric decides, which way, and how trials rank by it. The one place for that."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpjax.errors import InputError, did_you_mean

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Objective:
    """A metric and a direction. Made by ``minimize`` and ``maximize``."""

    metric: str
    direction: Literal["minimize", "maximize"]

    def __str__(self) -> str:
        return f"{self.direction} {self.metric}"

    def check(self, metrics: Collection[str]) -> None:
        """Raises ``InputError`` where ``metrics`` lacks the metric."""
        if self.metric not in metrics:
            raise InputError(
                "Sweep.objective", self.metric, "must be a metric of the program", did_you_mean(self.metric, metrics)
            )

    def scores(self, values: Floats) -> Floats:
        """Values as scores, of which lower is better; what is not finite becomes NaN, which never wins."""
        signed = values if self.direction == "minimize" else -values
        return np.where(np.isfinite(signed), signed, np.nan)

    def rank(self, values: Floats, status: NDArray[np.str_], step: NDArray[np.integer[Any]]) -> list[int]:
        """Trial ids from best to worst; diverged trials, and those never evaluated, are left out.

        A trial is judged by the mean over its replicates, at their last evaluations; one whose replicates
        diverged in part has no mean. Complete trials come before those that are not, then those that ran
        longer; ties go to the lower id.

        Args:
          values: (trials, replicates), the metric at each lane's last evaluation.
          status: (trials, replicates).
          step: int (trials, replicates).
        """
        scores = self.scores(values).mean(axis=1)
        complete = (status == "complete").all(axis=1)
        ran = step.min(axis=1)
        fit = [t for t in range(len(scores)) if np.isfinite(scores[t]) and not (status[t] == "diverged").any()]
        return sorted(fit, key=lambda t: (not complete[t], 0 if complete[t] else -ran[t], scores[t], t))


def minimize(metric: str) -> Objective:
    """The objective "the lower ``metric``, the better", e.g. ``minimize("valid/loss")``."""
    return Objective(metric, "minimize")


def maximize(metric: str) -> Objective:
    """The objective "the higher ``metric``, the better", e.g. ``maximize("valid/accuracy")``."""
    return Objective(metric, "maximize")
