"""Autotuning: measures with a sweep's programs how many lanes a device best computes at once, and by which kernels."""

from collections.abc import Callable, Generator
from time import monotonic
from typing import NamedTuple

import numpy as np

from hpjax.engine import sharding
from hpjax.engine.distributed import several
from hpjax.engine.machine import host_memory
from hpjax.sweep.planning import width
from hpjax.sweep.planning.arrange import capacity_of, rate_key, rearranged
from hpjax.sweep.planning.contender import CALLS, Contender, compared
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.planning.rate_cache import recall, remember
from hpjax.sweep.planning.width import GOOD_ENOUGH, Measured, Rate
from hpjax.sweep.spec import KERNELS, SweepSpec

# Measuring takes so many seconds, or this share of the run's if that is more.
SECONDS, SHARE = 5.0, 0.05


class Candidate(NamedTuple):
    """What may be fastest: a width, before it is balanced, and kernels."""

    width: int
    kernels: str


def measured(spec: SweepSpec, plan: Plan) -> Plan:
    """Returns the plan with widths as measured, of the groups that take longest first, while time is left.

    With several hosts, and for shards, widths follow from the rule, since all must have the same.

    Args:
      spec: the sweep.
      plan: the plan of its first round.
    """
    # This sweep, or another of the same program, may have measured it since this one was planned.
    plan = rearranged(spec, plan)
    unknown = not_measured(spec, plan)
    if not unknown:
        return plan
    programs, begun, seconds = GroupPrograms.of(spec), monotonic(), allowed(plan)
    for group in unknown:
        search, took = WidthSearch(programs, plan, group), 0.0
        # What the one before took tells whether there is time for the next; that for the first is taken.
        while search.candidate is not None and monotonic() - begun + took < seconds:
            before = monotonic()
            search.measure()
            took = monotonic() - before
        search.remember()
    return rearranged(spec, plan)


def not_measured(spec: SweepSpec, plan: Plan) -> list[Group]:
    """Returns the groups whose widths are neither given nor known nor bound to a rule; what takes longest first."""
    if spec.width is not None or plan.shard is not None or several():
        return []
    unknown = [g for g in plan.own_groups if not recall(rate_key(spec, plan, g)).finished]
    return sorted(unknown, key=lambda g: -plan.group_seconds(g))


def allowed(plan: Plan) -> float:
    """Returns how many seconds measuring may take."""
    return max(SECONDS, SHARE * plan.run_seconds)


class WidthSearch:
    """The search for the fastest width and kernels of a group, one candidate after the other.

    First both kernels at the width that is planned, then wider and narrower ones with the faster kernels. Each is
    compared with the fastest so far, in this process and in turns: the speed of a machine changes within minutes by
    more than widths differ. What is remembered are the ratios.

    Args:
      programs: the programs of the sweep.
      plan: the plan.
      group: the group.
      placed: returns the plan in which the group has a width and kernels; by default the one that a sweep begins with.

    Attributes:
      group: the group.
      candidate: what is to be measured next; None at the end.
      shortest: how many seconds it takes at least to compare it, as far as that is known, or by the estimate.
    """

    def __init__(
        self,
        programs: GroupPrograms,
        plan: Plan,
        group: Group,
        placed: Callable[[int, str], Plan] | None = None,
    ) -> None:
        self._programs, self._plan, self.group = programs, plan, group
        self._placed = placed or (
            lambda wide, kernels: rearranged(programs.spec, plan, {group.number: (wide, kernels)})
        )
        capacity = capacity_of(programs.spec, plan)
        self._lanes, self._spans = capacity.lanes_together(len(group.trials)), capacity.spans
        self._factor = 2 if capacity.platform == "cpu" else 4
        self._most = width.most(capacity.platform, self._lanes, self._spans)
        own = plan.arrangements[group.number]
        self._planned = Candidate(min(1 << (own.planned_width - 1).bit_length(), self._most), own.kernels)
        self._key = rate_key(programs.spec, plan, group)
        known = recall(self._key)
        # In units of any one of them, None of what does not fit; and a lane-step of the fastest as in ``Measured``.
        self._speeds: dict[Candidate, float | None] = {
            Candidate(rate.width, rate.kernels): rate.speed for rate in known.rates
        }
        self._lane_step = known.lane_step
        lanes = min(own.width * self._spans, self._lanes)
        self.shortest = CALLS * lanes * plan.split_seconds(group)[0] / plan.group_steps(group)
        self._room_for_all = True  # unless what does not fit beside others may fit alone
        self._candidates = self._ordered()
        self.candidate: Candidate | None = next(self._candidates)
        self._pass_known()

    @property
    def measured(self) -> Measured:
        """What is known."""
        known = self._fitting
        rates = tuple(sorted(Rate(*which, speed / max(known.values())) for which, speed in known.items()))
        return Measured(rates, bool(rates) and self._room_for_all and self.candidate is None, self._lane_step)

    @property
    def _fitting(self) -> dict[Candidate, float]:
        """The speeds of what fits."""
        return {which: speed for which, speed in self._speeds.items() if speed is not None}

    @property
    def planned_and_best(self) -> tuple[Rate, Rate] | None:
        """The speed of the planned width and that of the best one with the same kernels.

        They are the same unless the best is faster by more than widths must differ to matter; None before the first is
        known.
        """
        arrangement, measured = self._plan.arrangements[self.group.number], self.measured
        planned = measured.rate(arrangement.width, arrangement.kernels)
        if planned is None:
            return None
        best = width.best(rate for rate in measured.rates if rate.kernels == planned.kernels)
        return planned, best if best.speed * GOOD_ENOUGH > planned.speed else planned

    def balanced(self, wide: int) -> int:
        """Returns the width at which a group trains for which so many lanes at most are best."""
        return width.balanced(wide, self._lanes, self._spans)

    def _ordered(self) -> Generator[Candidate, float | None, None]:
        """Yields what is to be measured; each is answered by its speed, None if it does not fit."""
        (begin, kernels), speeds = self._planned, dict[str, float]()
        if self._plan.trained(self.group.number).windows and self._programs.spec.kernels is None:
            for each in KERNELS:
                speeds[each] = (yield Candidate(begin, each)) or 0.0
            kernels = max(speeds, key=lambda each: speeds[each])
        search = width.search(begin, self._most, self._factor)
        wide = next(search)
        while True:
            speed = yield Candidate(wide, kernels)
            try:
                wide = search.send(speed)
            except StopIteration:
                return

    def _pass_known(self) -> None:
        """Goes on to the first candidate that is not known."""
        try:
            while self.candidate in self._speeds:
                self.candidate = self._candidates.send(self._speeds[self.candidate])
        except StopIteration:
            self.candidate = None

    def contender(self, which: Candidate) -> Contender:
        """Returns the lanes that measure a candidate."""
        return Contender(self._programs, self._placed(self.balanced(which.width), which.kernels), self.group)

    def measure(self, beside: int = 0, time_left: Callable[[float], bool] = lambda seconds: True) -> None:
        """Measures the candidate; where time is up before its speed is known, it stays the candidate.

        Args:
          beside: bytes that others take on each device.
          time_left: whether so many seconds are left.
        """
        assert self.candidate is not None
        room = (sharding.memory() or host_memory() // self._plan.devices[0]) - beside  # CPU devices share the host's
        known, best = self._fitting, None
        if known:
            champion = max(known, key=lambda each: known[each])
            best = self.contender(champion)
            if not best.begin(room):  # what an earlier process measured may not fit any more
                self._without(champion, beside)
                return
        new = self.contender(self.candidate)
        if not new.begin(room if best is None else room - best.state_bytes):
            self._speeds[self.candidate] = None
            self._room_for_all = self._room_for_all and not beside
        elif best is None:
            self._speeds[self.candidate] = 1.0
            self._lane_step = float(np.median([new.lap() for _ in range(3)])) / self._plan.slowed
        elif (found := compared(best, new, time_left)) is not None:
            self._speeds[self.candidate] = max(known.values()) * found.ratio
            self._lane_step = found.lane_step / max(found.ratio, 1.0) / self._plan.slowed
        self.shortest = CALLS * new.seconds
        self._pass_known()

    def _without(self, champion: Candidate, beside: int) -> None:
        """Goes on where the fastest of what is known does not fit, with which alone others could be compared."""
        if beside:  # alone it may fit still: what is known stays, and is left as it is
            self.candidate, self._room_for_all = None, False
            return
        unfit = (which for which, speed in self._speeds.items() if speed is None)
        self._speeds, self._lane_step = dict.fromkeys((champion, *unfit)), 0.0
        self._candidates = self._ordered()
        self.candidate = next(self._candidates)
        self._pass_known()

    def remember(self) -> None:
        """Remembers for later runs what was measured, and whether the search came to its end."""
        if self.measured != recall(self._key):
            remember(self._key, self.measured)
