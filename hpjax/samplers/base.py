"""The interface of samplers: a pure function from earlier trials to the points to try next."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from hpjax.core.space import Point, Space


class Observation(NamedTuple):
    """One trial of an earlier round, and its scores.

    Attributes:
      point: its hyperparameters.
      scores: for each replicate the objective at the last evaluation, lower being better, infinite where it diverged or
        failed. If the objective is a quantile over replicates, that one number.
      step: optimizer steps that it took, fewer than others where a scheduler stopped it.
      round: the round that it was proposed for, from 0.

    Example:
      >>> Observation({"learning_rate": 0.1}, scores=(0.5, 0.7), step=100).score
      0.6
    """

    point: Point
    scores: tuple[float, ...]
    step: int
    round: int = 0

    @property
    def score(self) -> float:
        """The mean over the replicates; infinite where one diverged, so that a sampler learns to avoid such points."""
        return sum(self.scores) / len(self.scores)


class Sampler(ABC):
    """Proposes points of a space. It holds settings only, so that equal calls give equal points.

    Write a sampler of your own as a subclass with ``propose``, and with ``size`` if it can run out of points.

    Example:
      >>> class Middle(Sampler):
      ...     def propose(self, space, history, start, n, seed):
      ...         return [space.from_unit([0.5] * len(space.dimensions))] * n
    """

    @abstractmethod
    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        """Returns ``n`` points to try next.

        Args:
          space: the space to propose points of.
          history: every trial so far, including the baseline.
          start: number of trials in ``history`` that this sampler proposed, which excludes the baseline.
          n: number of points to propose.
          seed: decides every random choice. Where proposals do not depend on ``history``, those for
            ``(start=0, n=128)`` begin with those for ``(start=0, n=64)``.
        """

    def size(self, space: Space) -> int | None:
        """Returns the number of points that this sampler can propose, or None where it never runs out."""
        return None

    def ask(self, space: Space, history: Sequence[Observation], n: int, seed: int) -> list[Point]:
        """Returns ``n`` points; the first point of a sweep is the baseline if the space has a default.

        Args:
          space: the space to propose points of.
          history: every trial so far.
          n: number of points.
          seed: decides every random choice.
        """
        baseline = space.baseline()
        if baseline is None or n == 0:
            return self.propose(space, history, len(history), n, seed)
        if history:
            return self.propose(space, history, len(history) - 1, n, seed)
        return [baseline, *self.propose(space, history, 0, n - 1, seed)]
