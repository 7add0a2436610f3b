"""Halving: stops all but the best fraction of the trials at each of several steps."""

from collections.abc import Iterable
from dataclasses import dataclass

from hpjax.core.scalars import as_python
from hpjax.schedulers.base import Race, Scheduler
from hpjax.schedulers.rungs import beaten, check_factor, check_min_steps, rung_after, rung_of


@dataclass(frozen=True)
class Halving(Scheduler):
    """Successive halving: at rungs of ``min_steps · factorᵏ`` steps one in ``factor`` trials continues.

    Survivors continue from their present states, the last ones to the end. A decision falls at the first evaluation at
    or after its rung.

    K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS
    2016.

    Args:
      factor: the number of trials at a rung divided by the number that continues, 2 or more.
      min_steps: the first rung, in calls of ``step``, 1 or more.

    Raises:
      InputError: ``factor`` is below 2, or the first rung lies before the first evaluation or beyond the budget.

    Example:
      >>> scheduler = Halving(factor=4, min_steps=5)
      >>> scheduler.decide(Race(5, 20, (0, 1, 2, 3), {0: (0.4,), 1: (0.1,), 2: (0.3,), 3: (0.2,)}))
      [3, 2, 0]
    """

    factor: float = 4
    min_steps: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", check_factor("Halving", self.factor))
        object.__setattr__(self, "min_steps", as_python(self.min_steps))

    def check(self, trials: int, budget: int, eval_every: int) -> None:
        check_min_steps("Halving", self.min_steps, budget, eval_every)

    def next(self, step: int) -> int:
        return rung_after(step, self.min_steps, self.factor)

    def decide(self, race: Race) -> Iterable[int]:
        return beaten(race, race.live, len(race.curves), rung_of(race.step, self.min_steps, self.factor), self.factor)
