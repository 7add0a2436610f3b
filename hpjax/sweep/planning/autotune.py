"""Autotuning: measures before a sweep trains how many lanes a device best computes at once, with its own program."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.engine import sharding
from hpjax.engine.device_errors import OutOfMemoryError, translating_device_errors
from hpjax.engine.device_lanes import DeviceLanes, LaneTable
from hpjax.engine.distributed import several
from hpjax.engine.machine import host_memory
from hpjax.sweep.planning import width
from hpjax.sweep.planning.arrange import capacity_of, rate_key, rearranged
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.planning.rate_cache import Measured, recall, remember
from hpjax.sweep.planning.width import GOOD_ENOUGH, Rate
from hpjax.sweep.spec import SweepSpec

# Measuring takes so many seconds, or this share of the run's if that is more.
SECONDS, SHARE = 5.0, 0.05
# One call is timed for at least so many seconds.
EACH = 0.05
# A pair of calls, one of each of two widths, gives a ratio: at least and at most so many of them are taken.
FEWEST, MOST = 6, 15
# A run that is expected to take fewer seconds gains less by a better width than the measurement costs.
WORTH = 30.0
# A budget of steps that no measurement reaches.
FOREVER = 1 << 30


class Budget(NamedTuple):
    """How long measuring may take.

    Attributes:
      begun: the time at which measuring began, by ``time.monotonic``.
      seconds: how long it may take.
    """

    begun: float
    seconds: float

    def affords(self, more: float) -> bool:
        """Returns whether so many seconds more are left."""
        return time.monotonic() - self.begun + more < self.seconds


def tuned(spec: SweepSpec, plan: Plan, always: bool = False) -> Plan:
    """Returns the plan with widths as measured, of the groups that take longest first, while time is left.

    With several hosts, and for shards, widths follow from the rule, since all must have the same.

    Args:
      spec: the sweep.
      plan: the plan of its first round.
      always: whether to measure even if the run is too short to gain by it.
    """
    if spec.width is not None or plan.shard is not None or several():
        return plan
    # This sweep, or another of the same program, may have measured it since this one was planned.
    plan = rearranged(spec, plan)
    run = plan.run_seconds
    unknown = [g for g in plan.own_groups if not recall(rate_key(spec, plan, g)).finished]
    if not unknown or not (always or run >= WORTH):
        return plan
    programs, budget = GroupPrograms.of(spec), Budget(time.monotonic(), max(SECONDS, SHARE * run))
    for group in sorted(unknown, key=lambda g: -plan.group_seconds(g)):
        if budget.affords(0.0):
            _measure(programs, plan, group, budget)
    return rearranged(spec, plan)


class Contender:
    """Lanes of a group that only measure: one chunk on each device, at one width and with one kind of kernels.

    Args:
      lanes: the lanes, before their first step.
      count: how many.
      block: where the train split is a stream, a block of batches.
    """

    def __init__(self, lanes: DeviceLanes, count: int, block: Any) -> None:
        self._lanes, self._count, self._block, self._at, self._steps = lanes, count, block, 0, 1
        self._advance(1)  # untimed: it makes the first states, and touches memory first
        while self._advance(self._steps) < EACH:
            self._steps *= 2

    def _advance(self, steps: int) -> float:
        """Returns the seconds that so many steps take."""
        begun, self._at = time.perf_counter(), self._at + steps
        self._lanes.advance(self._at, False, self._block)
        return time.perf_counter() - begun

    def lap(self) -> float:
        """Returns the seconds of a lane-step, by one device call that is long enough to time."""
        return self._advance(self._steps) / (self._steps * self._count)


def _measure(programs: GroupPrograms, plan: Plan, group: Group, budget: Budget) -> None:
    """Measures the widths of a group that are not known yet, and remembers their speeds and whether time was up.

    First both kernels at the width that is planned, then wider and narrower ones with the faster kernels. Each is
    compared with the fastest so far, in this process and in turns: the speed of a machine changes within minutes by
    more than widths differ. The speeds that are remembered have the ratios that were measured so.
    """
    spec, capacity, key = programs.spec, capacity_of(programs.spec, plan), rate_key(programs.spec, plan, group)
    lanes, arrangement = capacity.lanes_together(len(group.trials)), plan.arrangements[group.number]
    most = width.most(capacity.platform, lanes, capacity.devices)
    begin = min(1 << (arrangement.planned_width - 1).bit_length(), most)
    took, in_time = 0.0, True
    found: dict[tuple[int, str], float | None] = {(rate.width, rate.kernels): rate.speed for rate in recall(key).rates}
    champion: tuple[tuple[int, str], Contender] | None = None

    def time_left() -> bool:
        nonlocal in_time
        in_time = in_time and budget.affords(took)
        return in_time

    def contender(wide: int, kernels: str) -> Contender | None:
        return _contender(programs, plan, group, width.balanced(wide, lanes, capacity.devices), kernels)

    def compared(which: tuple[int, str]) -> float | None:
        """Returns the speed of what is not known yet, and makes it the champion if it is faster."""
        nonlocal champion
        if champion is None and any(found.values()):  # of an earlier process
            best = max(found, key=lambda each: found[each] or 0.0)
            there = contender(*best)
            champion = None if there is None else (best, there)
        new = contender(*which)
        if new is None:
            return None
        if champion is None:
            champion = which, new
            return 1 / float(np.median([new.lap() for _ in range(3)]))
        known, ratio = found[champion[0]], _ratio(champion[1], new)
        assert known is not None
        if ratio > 1:
            champion = which, new
        return known * ratio

    def speed(wide: int, kernels: str) -> float | None:
        nonlocal took
        if (wide, kernels) not in found:
            begun = time.monotonic()
            found[wide, kernels] = compared((wide, kernels))
            took = time.monotonic() - begun
        return found[wide, kernels]

    kernels = [arrangement.kernels]
    if plan.shapes[group.number].windows and spec.kernels is None:
        # What the first measurement takes tells whether there is time for the second.
        fitting = [each for each in ("batched", "xla") if (not took or time_left()) and speed(begin, each)]
        kernels = fitting or kernels
    fastest = max(kernels, key=lambda each: speed(begin, each) or 0.0)
    factor = 2 if capacity.platform == "cpu" else 4
    width.search(lambda wide: speed(wide, fastest), begin, most, factor, time_left)
    rates = sorted(Rate(wide, each, value) for (wide, each), value in found.items() if value is not None)
    if rates:
        remember(key, Measured(tuple(rates), in_time))


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """Returns an interval in which the median of what is measured lies in 95 % of cases, whatever the noise is like.

    Its ends are two of the values, as far from the least and the greatest as the binomial distribution allows (H. A.
    David and H. N. Nagaraja, "Order Statistics", 2003, section 7.1).

    Args:
      values: 6 or more independent measurements.
    """
    ordered, beyond, rank = sorted(values), 0.0, -1
    while (beyond := beyond + math.comb(len(ordered), rank + 1) / 2 ** len(ordered)) <= 0.025:
        rank += 1
    return ordered[rank], ordered[-1 - rank]


def _ratio(champion: Contender, challenger: Contender) -> float:
    """Returns how many times as fast a challenger is, by the median of pairs of calls that follow each other.

    It takes pairs until it is clear, by the interval of the median, whether the challenger is faster or slower by more
    than widths must differ to matter, or that they are alike.
    """
    ratios: list[float] = []
    while len(ratios) < MOST:
        # In turns who is first: what the first call leaves in caches and what else runs is shared.
        first, second = (champion, challenger) if len(ratios) % 2 else (challenger, champion)
        laps = {id(each): each.lap() for each in (first, second)}
        ratios.append(laps[id(champion)] / laps[id(challenger)])
        if len(ratios) >= FEWEST:
            low, high = interval_of_median(ratios)
            if low > 1 / GOOD_ENOUGH or high < GOOD_ENOUGH or GOOD_ENOUGH <= low <= high <= 1 / GOOD_ENOUGH:
                break
    return float(np.median(ratios))


def _contender(programs: GroupPrograms, plan: Plan, group: Group, wide: int, kernels: str) -> Contender | None:
    """Returns lanes that measure a width, with one chunk on each device; None if that does not fit."""
    spec, devices = programs.spec, plan.devices[0]
    plan = rearranged(spec, plan, {group.number: (wide, kernels)})
    trials = group.trials[: wide * devices]
    everyone = programs.lane_table(plan, group, trials, dict(enumerate(plan.points)))
    # One chunk on each device. The first lanes of a table are those of replicate 0, which may be in one chunk.
    count = min(wide * devices, capacity_of(spec, plan).lanes_together(len(group.trials)))
    table: LaneTable = jax.tree.map(lambda array: array[:count], everyone)
    table = table._replace(budget=np.full(count, FOREVER, np.int32))
    block = None
    if spec.stream is not None:
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), spec.stream.shapes)
        block = sharding.put(zeros, programs.mesh, sharding.WHOLE)
    try:
        with translating_device_errors(group.number):
            compiled = programs.compile(plan, group.number, table.h).wait()
            if (compiled.bytes or 0) > (sharding.memory() or host_memory() // devices):  # CPU devices share the host's
                return None
            return Contender(programs.lanes(plan, group.number, compiled, table), count, block)
    except OutOfMemoryError:
        return None
    except Exception:  # of the user's functions or of XLA: the group fails when it trains, and its error is told then
        return None
