"""Autotuning: measures before a sweep trains how many lanes a device best computes at once, with its own program."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from hpjax.engine import sharding
from hpjax.engine.device_errors import OutOfMemoryError, translating_device_errors
from hpjax.engine.device_lanes import LaneTable
from hpjax.engine.distributed import several
from hpjax.engine.machine import host_memory
from hpjax.sweep.planning import width
from hpjax.sweep.planning.arrange import capacity_of, rate_key, rearranged
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.planning.rate_cache import Measured, recall, remember
from hpjax.sweep.planning.width import Rate
from hpjax.sweep.spec import SweepSpec

# Measuring takes so many seconds, or this share of the run's if that is more.
SECONDS, SHARE = 5.0, 0.05
# One speed is timed so often, for at least so many seconds. The fastest counts: other load on the machine can only slow
# a program down.
TIMES, EACH = 3, 0.1
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


def _measure(programs: GroupPrograms, plan: Plan, group: Group, budget: Budget) -> None:
    """Measures the widths of a group that are not known yet, and remembers their speeds and whether time was up.

    First both kernels at the width that is planned, then wider and narrower ones with the faster kernels.
    """
    spec, capacity, key = programs.spec, capacity_of(programs.spec, plan), rate_key(programs.spec, plan, group)
    lanes, arrangement = capacity.lanes_together(len(group.trials)), plan.arrangements[group.number]
    most = width.most(capacity.platform, lanes, capacity.devices)
    begin = min(1 << (arrangement.planned_width - 1).bit_length(), most)
    took, in_time = 0.0, True
    found: dict[tuple[int, str], float | None] = {(rate.width, rate.kernels): rate.speed for rate in recall(key).rates}

    def time_left() -> bool:
        nonlocal in_time
        in_time = in_time and budget.affords(took)
        return in_time

    def speed(wide: int, kernels: str) -> float | None:
        nonlocal took
        if (wide, kernels) not in found:
            begun, each = time.monotonic(), width.balanced(wide, lanes, capacity.devices)
            found[wide, kernels] = _speed(programs, plan, group, each, kernels)
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


def _speed(programs: GroupPrograms, plan: Plan, group: Group, wide: int, kernels: str) -> float | None:
    """Returns lane-steps a second of all devices at a width, with one chunk on each; None if that does not fit."""
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
            lanes = programs.lanes(plan, group.number, compiled, table)
            lanes.advance(1, False, block)  # untimed: it makes the first states, and touches memory first
            seconds = _seconds_a_step(lambda stop: lanes.advance(stop, False, block))
    except OutOfMemoryError:
        return None
    except Exception:  # of the user's functions or of XLA: the group fails when it trains, and its error is told then
        return None
    return count / seconds


def _seconds_a_step(advance: Callable[[int], object]) -> float:
    """Returns the seconds of a step, by the fastest of ``TIMES`` device calls that are long enough to time.

    Args:
      advance: trains the lanes up to a step.
    """
    steps, at = 1, 1
    times: list[float] = []
    while len(times) < TIMES:
        begun, at = time.perf_counter(), at + steps
        advance(at)
        took = time.perf_counter() - begun
        if took < EACH and not times:
            steps *= 2
        else:
            times.append(took)
    return min(times) / steps
