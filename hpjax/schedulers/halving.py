"""Halving: most trials get little, the best get everything."""

from collections.abc import Iterable
from dataclasses import dataclass

from hpjax.schedulers.base import Race, Scheduler
from hpjax.schedulers.rungs import beaten, check_factor, check_min_steps, rung_after, rung_of


@dataclass(frozen=True)
class Halving(Scheduler):
    """Successive halving: at rungs of ``min_steps · factorᵏ`` steps one in ``factor`` trials goes on.

    K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS
    2016. Survivors train on from where they are. Decisions fall at the first evaluation from a rung on.

    Args:
      factor: how many times fewer trials go on from each rung, 2 or more.
      min_steps: the first rung, in steps.

    Raises:
      InputError: a factor below 2, or rungs that the budget does not reach.

    Example:
      >>> scheduler = Halving(factor=4, min_steps=5)
      >>> scheduler.decide(Race(5, 20, (0, 1, 2, 3), {0: (0.4,), 1: (0.1,), 2: (0.3,), 3: (0.2,)}))
      [3, 2, 0]
    """

    factor: float = 4
    min_steps: int = 1

    def __post_init__(self) -> None:
        check_factor("Halving", self.factor)

    def check(self, trials: int, budget: int, eval_every: int) -> None:
        check_min_steps("Halving", self.min_steps, budget, eval_every)

    def next(self, step: int) -> int:
        return rung_after(step, self.min_steps, self.factor)

    def decide(self, race: Race) -> Iterable[int]:
        return beaten(race, race.live, len(race.curves), rung_of(race.step, self.min_steps, self.factor), self.factor)
