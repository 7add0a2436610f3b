"""What a scheduler is: a pure decision, after each evaluation, on which trials go no further."""

from collections.abc import Iterable, Mapping
from typing import Protocol


class Scheduler(Protocol):
    """Decides how long trials may run. Any object with ``decide`` is one.

    It holds settings only: what it decides follows from ``step`` and ``scores``, so that the same run can be
    had again. A run directory records its type and its attributes.

    Example:
      >>> class Half:
      ...     def decide(self, step, scores):
      ...         return sorted(scores, key=scores.get)[max(len(scores) // 2, 1):]
    """

    def decide(self, step: int, scores: Mapping[int, float]) -> Iterable[int]:
        """The trials to stop.

        Args:
          step: optimizer steps taken.
          scores: trial id to its objective at this evaluation, averaged over its replicates, lower being
            better, infinite where a replicate diverged; every live trial of the group is there. Groups train one
            after the other.
        """
        ...
