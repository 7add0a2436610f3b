"""What a scheduler is: a pure decision, from the scores so far, on which trials go no further."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from hpjax.core.space import Point, Space


class Clone(NamedTuple):
    """What becomes of a trial that takes over the state of another: whose, and the hyperparameters to go on with."""

    source: int
    point: Point


class Race(NamedTuple):
    """How the trials stand when a scheduler decides.

    Attributes:
      step: calls of ``step`` that the live trials took; each is an optimizer step, unless gradients accumulate.
      budget: those that the longest trial takes if nobody stops it.
      live: ids of the trials that train on unless they are stopped, ascending.
      curves: trial id to its scores, one an evaluation; of every trial, those that ended too. A score is the objective
        over all replicates, lower being better, infinite where one diverged.
      population: ids of the trials that are live or diverged.
      points: trial id to the hyperparameters that it has now.
      groups: trial id to a number that those share of which one may take over another's state.
      free: the hyperparameters that may change while a trial runs: the traced ones.
      space, seed: of the sweep.
    """

    step: int
    budget: int
    live: tuple[int, ...]
    curves: Mapping[int, tuple[float, ...]]
    population: tuple[int, ...] = ()
    points: Mapping[int, Point] = MappingProxyType({})
    groups: Mapping[int, int] = MappingProxyType({})
    free: frozenset[str] = frozenset()
    space: Space | None = None
    seed: int = 0

    @property
    def scores(self) -> dict[int, float]:
        """The score of each live trial now."""
        return {trial: self.curves[trial][-1] for trial in self.live}

    def ranked(self, trials: Iterable[int]) -> list[int]:
        """Trials from best to worst; ties go to the lower id."""
        return sorted(trials, key=lambda trial: (self.curves[trial][-1], trial))


class Scheduler(ABC):
    """Decides how long trials may run. A scheduler of your own is a class with ``decide``.

    It holds settings only: what it decides follows from the race, so that the same run can be had again.
    A run directory records its type and its attributes. All groups are in one race.

    Example:
      >>> class Half(Scheduler):
      ...     def decide(self, race):
      ...         return race.ranked(race.live)[max(len(race.live) // 2, 1):]
    """

    @abstractmethod
    def decide(self, race: Race) -> Iterable[int]:
        """The trials to stop, of those that are live."""

    def replace(self, race: Race) -> Mapping[int, Clone]:
        """Of trials that go on as clones of others, after some were stopped: none, unless a scheduler says so."""
        return {}

    def next(self, step: int) -> int:
        """The step at which to decide next, after ``step``; the first evaluation from there on. By default each is."""
        return step + 1

    def check(self, trials: int, budget: int, eval_every: int) -> None:  # noqa: B027  most have nothing to check
        """Raises ``InputError`` where it cannot schedule so many trials of so many steps.

        Args:
          trials: how many start together.
          budget: steps of the longest.
          eval_every: steps between evaluations.
        """

    def check_groups(self, trials: Sequence[int]) -> None:  # noqa: B027  most have nothing to check
        """Raises ``InputError`` where it cannot schedule groups of so many trials each."""
