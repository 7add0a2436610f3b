"""The tuner: measures beside the training of a run how many lanes a device best computes at once.

Nothing waits for it. While a group trains, the programs of candidates compile in the background, one after the other;
between two device calls the run stands still for as long as a few pairs of calls take. There are 5 seconds for both, or
5 % of the run if that is more, where a compilation counts as one core of all. No candidate begins for which that is too
short by what the last one took and by the plan's estimate; one that takes so much longer to compile that no time is
left is not measured; and pairs end when time is up. Later runs go on there.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple

from hpjax.core.user_code import first_line
from hpjax.engine.compile import idle
from hpjax.engine.machine import cores
from hpjax.sweep.planning.arrange import with_choice, with_measured
from hpjax.sweep.planning.autotune import WidthSearch, allowed, not_measured
from hpjax.sweep.planning.contender import Contender
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.planning.width import Measured

# A run that is expected to take fewer seconds gains less by a better width than the measurement costs.
WORTH = 30.0


class GroupMeasured(NamedTuple):
    """What was measured of a group.

    Attributes:
      group: the group.
      measured: how fast some widths and kernels are.
      width: the width that is best with the kernels with which the group trains.
      saved: the seconds that this width saves if all of the group's steps are made with it.
      seconds: how long the run stood still for it.
    """

    group: Group
    measured: Measured
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
        # Seconds: all that were spent, and those for which the run stood still for this group and its last candidate.
        self._spent = self._stood = self._took = 0.0
        # What the program of the last candidate took to compile in all, and before it was one.
        self._compiling = self._compiled = 0.0

    def due(self) -> bool:
        """Returns whether a candidate is compiled, and is measured once nothing is in flight."""
        return self._candidate is not None and idle()

    def close(self) -> None:
        """Ends measuring; what was measured by now is remembered already."""
        self._groups, self._search, self._candidate = [], None, None

    def step(self, plan: Plan, free: bool) -> GroupMeasured | None:
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

    def _go_on(self, plan: Plan) -> GroupMeasured | None:
        """Begins to compile the next candidate of the group; without one, or without time, the group is done."""
        search = self._search or self._begin(plan)
        worth = self._plan.run_seconds >= WORTH
        if search.candidate is not None and worth:
            candidate = search.contender(search.candidate)
            if worth := self._in_time(search, candidate):
                self._candidate, self._compiled, self._took = candidate, candidate.compile_seconds, 0.0
                with self._standing():
                    candidate.prepare()
                return None
        found = self._found(search, plan)
        self._search, self._stood, self._groups = None, 0.0, self._groups[1:] if worth else []
        return found

    def _in_time(self, search: WidthSearch, candidate: Contender) -> bool:
        """Returns whether a candidate is expected to be compiled and measured before time is up."""
        assert self._begun is not None
        compiling = 0.0
        if not candidate.compile_seconds:  # the run's own program is compiled already
            # By the estimate too, since what an earlier run kept took next to nothing.
            shapes = self._plan.trained(search.group.number)
            compiling = max(self._compiling, shapes.compile_seconds * self._plan.pace.compiling)
        needs = compiling / cores() + max(self._took, search.shortest)
        # What still compiled at the end of the run would keep its process from ending.
        left = self._plan.run_seconds - (monotonic() - self._begun)
        return self._spent + needs < allowed(self._plan) and compiling < left

    def _begin(self, plan: Plan) -> WidthSearch:
        """Begins with the next group."""
        group, spec = self._groups[0], self._programs.spec
        self._took = self._compiling = 0.0
        self._search = WidthSearch(
            self._programs, plan, group, lambda *choice: with_choice(spec, plan, group.number, *choice)
        )
        return self._search

    def _measure(self, candidate: Contender) -> None:
        """Measures the candidate, which is compiled, unless that took all the time there is."""
        search, self._candidate, self._compiling = self._search, None, candidate.compile_seconds
        assert search is not None
        # Meanwhile one core compiled and did not train.
        self._spent += (self._compiling - self._compiled) / cores()
        until = monotonic() + allowed(self._plan) - self._spent
        if monotonic() + search.shortest < until:
            with self._standing():
                search.measure(self._memory(), lambda seconds: monotonic() + seconds < until)
            search.remember()
            self._plan = with_measured(self._plan, search.group.number, search.measured)

    @contextmanager
    def _standing(self) -> Iterator[None]:
        """Counts the seconds of its body, for which the run stands still."""
        begun = monotonic()
        yield
        took = monotonic() - begun
        self._spent, self._stood, self._took = self._spent + took, self._stood + took, self._took + took

    def _found(self, search: WidthSearch, plan: Plan) -> GroupMeasured | None:
        """Returns what was found out about a group; None if nothing was that its plan does not have."""
        group, measured, pair = search.group, search.measured, search.planned_and_best
        if pair is None or measured.rates == plan.arrangements[group.number].measured.rates:
            return None
        planned, best = pair
        saved = self._plan.split_seconds(group)[0] * (1 - planned.speed / best.speed)
        return GroupMeasured(group, measured, search.balanced(best.width), saved, self._stood)

    def _memory(self) -> int:
        """Returns about how many bytes the run takes on each device: a race those of all groups, else those of one."""
        each = [self._plan.memory(group) for group in self._plan.own_groups]
        return max(each) if self._programs.spec.scheduler is None else sum(each)
