"""Hyperband: successive halving from several first rungs, for when it is not known how early trials can be judged."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError
from hpjax.core.scalars import as_python
from hpjax.schedulers.base import Race, Scheduler
from hpjax.schedulers.rungs import beaten, check_factor, check_min_steps, rung_after, rung_of, step_of


class Bracket(NamedTuple):
    """One run of successive halving.

    Attributes:
      trials: number of its trials.
      steps: the first rung of the bracket, in calls of ``step``.
    """

    trials: int
    steps: int


@dataclass(frozen=True)
class Hyperband(Scheduler):
    """Several brackets of successive halving side by side, from many trials judged early to few that run to the end.

    With a budget of R steps, rungs lie at R·factor⁻ᵏ, the first of them at ``min_steps`` or after it, so that the last
    trials of every bracket run to the end; a decision falls at the first evaluation at or after its rung. Trial ids are
    assigned to the brackets in order. With a sampler that learns and several rounds this is BOHB (S.
    Falkner, A. Klein and F. Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018).

    L. Li, K. Jamieson, G. DeSalvo, A. Rostamizadeh and A. Talwalkar, "Hyperband: A Novel Bandit-Based Approach to
    Hyperparameter Optimization", JMLR 2018.

    Args:
      factor: the number of trials at a rung divided by the number that continues, 2 or more; the paper's η.
      min_steps: the least steps before a trial is judged, in calls of ``step``: the unit of the paper's R.

    Raises:
      InputError: ``factor`` is below 2, the first rung lies before the first evaluation or beyond the budget, or the
        number of trials does not fill the brackets.

    Example:
      >>> [(bracket.trials, bracket.steps) for bracket in Hyperband(factor=3, min_steps=1).brackets(budget=81)]
      [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]
    """

    factor: float = 3
    min_steps: float = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", check_factor("Hyperband", self.factor))
        object.__setattr__(self, "min_steps", as_python(self.min_steps))

    def brackets(self, budget: int) -> list[Bracket]:
        """Returns the brackets for trials of ``budget`` calls of ``step``: the paper's algorithm 1."""
        most = self._most(budget)
        return [
            Bracket(math.ceil((most + 1) / (s + 1) * self.factor**s - 1e-9), step_of(budget / self.factor**s))
            for s in range(most, -1, -1)
        ]

    def _most(self, budget: int) -> int:
        """Returns how many rungs the earliest bracket has, the paper's s_max."""
        return int(math.log(budget / self.min_steps, self.factor) + 1e-9)

    def within(self, budget: int) -> "Hyperband":
        """Returns this scheduler with its first rung where ``factor`` times it, again and again, ends at the budget."""
        return replace(self, min_steps=budget / self.factor ** self._most(budget))

    def check(self, trials: int, budget: int, eval_every: int) -> None:
        check_min_steps("Hyperband", self.min_steps, budget, eval_every)
        brackets = self.brackets(budget)
        complete = sum(bracket.trials for bracket in brackets)
        if trials % complete:
            shares = " + ".join(str(bracket.trials) for bracket in brackets)
            raise InputError(
                "Sweep.trials",
                trials,
                f"must fill the brackets of Hyperband, {shares} = {complete} trials",
                f"Write trials={ceil_div(trials, complete) * complete}.",
            )

    def next(self, step: int) -> int:
        return rung_after(step, self.min_steps, self.factor)

    def decide(self, race: Race) -> Iterable[int]:
        brackets = self.brackets(race.budget)
        ends = [number for number, bracket in enumerate(brackets) for _ in range(bracket.trials)]
        times = len(race.curves) // len(ends)
        # A sweep of several times as many trials has that many times as many in each bracket.
        member = dict(zip(sorted(race.curves), (number for number in ends for _ in range(times)), strict=True))
        stopped = []
        for number, bracket in enumerate(brackets):
            rung = rung_of(race.step, race.budget / self.factor ** (len(brackets) - 1 - number), self.factor)
            live = [trial for trial in race.live if member[trial] == number]
            if rung >= 0:
                stopped += beaten(race, live, bracket.trials * times, rung, self.factor)
        return stopped
