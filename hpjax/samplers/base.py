"""What a sampler is: a pure function from what is known to what to try next."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from hpjax.core.space import Point, Space


class Observation(NamedTuple):
    """One trial of an earlier round.

    Attributes:
      point: its hyperparameters.
      scores: its objective at the last evaluation, one a replicate, lower being better; infinite where it diverged. Of
        an objective that is a quantile, that one.
      step: optimizer steps that it took, fewer than others where a scheduler stopped it.
      round: that it was asked for in, from 0.
    """

    point: Point
    scores: tuple[float, ...]
    step: int
    round: int = 0

    @property
    def score(self) -> float:
        """The mean over the replicates: infinite where one diverged, bad news and not missing news."""
        return sum(self.scores) / len(self.scores)


class Sampler(ABC):
    """Proposes points of a space. Holds settings only: the same call gives the same points.

    A sampler of your own is a class with ``propose``, and ``size`` where it can run out of points.

    Example:
      >>> class Middle(Sampler):
      ...     def propose(self, space, history, start, n, seed):
      ...         return [space.from_unit([0.5] * len(space.dimensions))] * n
    """

    @abstractmethod
    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        """``n`` points to try next.

        Args:
          space: where they lie.
          history: every trial asked for so far, the baseline among them.
          start: how many of these this sampler proposed, which leaves out the baseline.
          n: how many points are wanted.
          seed: decides every random choice; ``propose(..., 0, 128, s)`` begins with ``propose(..., 0, 64, s)``.
        """

    def size(self, space: Space) -> int | None:
        """How many points there are in all, or None where there is no end to them."""
        return None

    def ask(self, space: Space, history: Sequence[Observation], n: int, seed: int) -> list[Point]:
        """``n`` points, the first of all being the baseline where the space names a default."""
        baseline = space.baseline()
        if baseline is None or n == 0:
            return self.propose(space, history, len(history), n, seed)
        if history:
            return self.propose(space, history, len(history) - 1, n, seed)
        return [baseline, *self.propose(space, history, 0, n - 1, seed)]
