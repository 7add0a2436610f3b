"""The tuner: measures beside the training of a run how many lanes a device best computes at once.

Nothing waits for it. While a group trains, the programs of candidates compile in the background, one after the other;
between two device calls the run stands still for as long as a few pairs of calls take. Both together take at most 5
seconds or 5 % of the run, a compilation by its share of the cores.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple

from hpjax.core.user_code import first_line
from hpjax.engine.compile import idle
from hpjax.engine.machine import cores
from hpjax.sweep.planning.arrange import with_choice, with_rates
from hpjax.sweep.planning.autotune import WidthSearch, allowed, not_measured
from hpjax.sweep.planning.contender import Contender
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.planning.width import Rate

# A run that is expected to take fewer seconds gains less by a better width than the measurement costs.
WORTH = 30.0


class Measured(NamedTuple):
    """What was measured of a group.

    Attributes:
      group: the group.
      rates: the speeds of some widths and kernels.
      width: the width that is best with the kernels with which the group trains.
      saved: the seconds that this width saves if all of the group's steps are made with it.
      seconds: how long the run stood still for it.
    """

    group: Group
    rates: tuple[Rate, ...]
    width: int
    saved: float
    seconds: float


class Tuner:
    """Measures the groups of a run's first round, those that take longest first, until its time is spent.

    Args:
      programs: the programs of the run.
      plan: the plan of its first round.
      enabled: whether to measure anything.
    """

    def __init__(self, programs: GroupPrograms, plan: Plan, enabled: bool) -> None:
        self._programs, self._plan = programs, plan
        # By a rough estimate, which the first measurement corrects.
        worth = enabled and plan.run_seconds >= WORTH
        self._groups = not_measured(programs.spec, plan) if worth else []
        self._search: WidthSearch | None = None
        self._candidate: Contender | None = None
        self._begun: float | None = None
        # Seconds: all that were spent, and those for which the run stood still for this group; what the last candidate
        # took to compile, and in all.
        self._spent = self._stood = self._compiling = self._took = 0.0
        # What was spent before this candidate, and what its program had taken to compile before it was one.
        self._before = self._compiled = 0.0

    def due(self) -> bool:
        """Returns whether a candidate is compiled, and is measured once nothing is in flight."""
        return self._candidate is not None and idle()

    def close(self) -> None:
        """Ends measuring; what was measured by now is remembered already."""
        self._groups, self._search, self._candidate = [], None, None

    def step(self, plan: Plan, free: bool) -> Measured | None:
        """Measures what is compiled, and begins to compile what is next; returns what was found once a group is done.

        Args:
          plan: the plan by which the run trains now.
          free: whether nothing is in flight, so that the devices can measure.
        """
        self._begun = monotonic() if self._begun is None else self._begun
        # What the run itself waits for, or soon will, compiles first.
        if not self._groups or not idle() or (self._candidate is not None and not free):
            return None
        try:
            if self._candidate is not None:
                self._measure(self._candidate)
            return self._go_on(plan)
        except Exception as error:  # whatever it is, it shall not harm the run
            self.close()
            warnings.warn(
                f"widths were not measured to the end: {first_line(error)}. Training goes on; sweep.plan(measure=True) "
                "measures before a run.",
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    def _go_on(self, plan: Plan) -> Measured | None:
        """Begins to compile the next candidate of the group; without one, or without time, the group is done."""
        search = self._search or self._begin(plan)
        assert self._begun is not None
        left = self._plan.run_seconds - (monotonic() - self._begun)
        # What still compiled at the end of the run would keep its process from ending.
        needs = max(self._took, search.shortest)
        in_time = self._spent + needs < allowed(self._plan) and self._compiling < left
        worth = in_time and self._plan.run_seconds >= WORTH
        if search.candidate is not None and worth:
            self._before = self._spent
            with self._standing():
                self._candidate = search.contender(search.candidate)
                self._compiled = self._candidate.compile_seconds  # the run's own program is compiled already
                self._candidate.prepare()
            return None
        found = self._found(search)
        self._search, self._stood, self._groups = None, 0.0, self._groups[1:] if worth else []
        return found

    def _begin(self, plan: Plan) -> WidthSearch:
        """Begins with the next group."""
        group, spec = self._groups[0], self._programs.spec
        self._search = WidthSearch(
            self._programs, plan, group, lambda *choice: with_choice(spec, plan, group.number, *choice)
        )
        return self._search

    def _measure(self, candidate: Contender) -> None:
        """Measures the candidate, which is compiled."""
        assert self._search is not None
        self._candidate = None
        # Meanwhile one core compiled and did not train.
        self._spent += (candidate.compile_seconds - self._compiled) / cores()
        until = monotonic() + allowed(self._plan) - self._spent
        with self._standing():
            self._search.measure(self._memory(), lambda: monotonic() < until)
        self._search.remember()
        self._plan = with_rates(self._plan, self._search.group.number, self._search.rates)
        self._compiling = candidate.compile_seconds
        self._took = self._spent - self._before

    @contextmanager
    def _standing(self) -> Iterator[None]:
        """Counts the seconds of its body, for which the run stands still."""
        begun = monotonic()
        yield
        self._spent += monotonic() - begun
        self._stood += monotonic() - begun

    def _found(self, search: WidthSearch) -> Measured | None:
        """Returns what was found out about a group; None if nothing was."""
        if not self._stood or (pair := search.planned_and_best) is None:
            return None
        planned, best = pair
        saved = self._plan.group_steps(search.group) * (1 / planned.speed - 1 / best.speed)
        return Measured(search.group, search.rates, search.balanced(best.width), saved, self._stood)

    def _memory(self) -> int:
        """Returns about how many bytes the run takes on each device: a race those of all groups, else those of one."""
        each = [self._plan.memory(group) for group in self._plan.own_groups]
        return max(each) if self._programs.spec.scheduler is None else sum(each)
