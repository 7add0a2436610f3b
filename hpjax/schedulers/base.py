"""The interface of schedulers: a pure function from the scores so far to the trials that stop."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from hpjax.core.space import Point, Space


class Clone(NamedTuple):
    """The replacement of a trial by a copy of another one.

    Attributes:
      source: id of the trial whose state is copied.
      point: the hyperparameters to continue with.

    Example:
      >>> Clone(source=3, point={"learning_rate": 0.1})
      Clone(source=3, point={'learning_rate': 0.1})
    """

    source: int
    point: Point


class Race(NamedTuple):
    """The state of all trials when a scheduler decides.

    Attributes:
      step: calls of ``step`` that the live trials have made; optimizer steps, unless gradients are accumulated.
      budget: calls of ``step`` of the longest trial if it is not stopped.
      live: ids of the trials that continue unless they are stopped, ascending.
      curves: for each trial id, ended trials included, its scores, one for each evaluation. A score is the objective
        over all replicates, lower being better, infinite where one diverged or failed.
      population: ids of the trials that are live or diverged.
      points: for each trial id its present hyperparameters.
      groups: for each trial id a number; trials of equal number can clone each other's states.
      free: the hyperparameters that may change while a trial runs: the traced ones.
      space: the space of the sweep.
      seed: the seed of the sweep.

    Example:
      >>> race = Race(step=10, budget=20, live=(0, 1), curves={0: (0.9, 0.5), 1: (0.8, 0.6)})
      >>> race.scores, race.ranked([0, 1])
      ({0: 0.5, 1: 0.6}, [0, 1])
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
        """The last score of each live trial, by its id."""
        return {trial: self.curves[trial][-1] for trial in self.live}

    def ranked(self, trials: Iterable[int]) -> list[int]:
        """Returns trial ids from best to worst by their last score; ties go to the lower id."""
        return sorted(trials, key=lambda trial: (self.curves[trial][-1], trial))


class Scheduler(ABC):
    """Decides how long trials may run. Write a scheduler of your own as a subclass with ``decide``.

    It holds settings only: its decisions follow from the race, so that a run can be reproduced. The run directory
    records its type and its attributes. All groups are in one race.

    Example:
      >>> class Half(Scheduler):
      ...     def decide(self, race):
      ...         return race.ranked(race.live)[max(len(race.live) // 2, 1):]
    """

    @abstractmethod
    def decide(self, race: Race) -> Iterable[int]:
        """Returns the ids of the live trials to stop."""

    def replace(self, race: Race) -> Mapping[int, Clone]:
        """Returns which trials continue as copies of others, by their ids; by default none. Called after ``decide``."""
        return {}

    def next(self, step: int) -> int:
        """Returns the step from which to decide next; by default the next one.

        The decision falls at the first evaluation at or after that step; the plan says where these differ.

        Args:
          step: calls of ``step`` that the live trials have made.
        """
        return step + 1

    def within(self, budget: int) -> "Scheduler":
        """Returns the scheduler for trials of ``budget`` calls of ``step``; by default itself, whatever the budget is.

        Override it where the steps of the decisions depend on the budget.
        """
        return self

    def check(self, trials: int, budget: int, eval_every: int) -> None:  # noqa: B027  most have nothing to check
        """Raises ``InputError`` if this scheduler cannot schedule so many trials of so many steps.

        Args:
          trials: number of trials that start together.
          budget: calls of ``step`` of the longest trial.
          eval_every: calls of ``step`` between evaluations.
        """

    def check_groups(self, trials: Sequence[int]) -> None:  # noqa: B027  most have nothing to check
        """Raises ``InputError`` if this scheduler cannot schedule groups of so many trials each."""
