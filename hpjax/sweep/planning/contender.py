"""Contenders: lanes that only measure how fast a width is, and pairs of calls that compare two of them."""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from hpjax.engine.device_errors import OutOfMemoryError, translating_device_errors
from hpjax.engine.device_lanes import DeviceLanes, LaneTable
from hpjax.sweep.planning.arrange import capacity_of
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.planning.width import GOOD_ENOUGH

# One call is timed for at least so many seconds.
EACH = 0.05
# A pair of calls, one of each of two widths, gives a ratio: at least and at most so many of them are taken.
FEWEST, MOST = 6, 15
# So many calls are the least that a comparison takes: both lanes begin with two.
CALLS = 2 * FEWEST + 4
# A budget of steps that no measurement reaches.
FOREVER = 1 << 30


class Contender:
    """Lanes of a group that only measure: one chunk on each device, at one width and with one kind of kernels.

    Args:
      programs: the programs of the sweep.
      plan: the plan, in which the group has that width and these kernels.
      group: the group.

    Attributes:
      width: the width.
      seconds: how long its last call took.
    """

    def __init__(self, programs: GroupPrograms, plan: Plan, group: Group) -> None:
        self._programs, self._plan, self._group = programs, plan, group
        self.width = plan.arrangements[group.number].width
        wide = self.width * plan.spans
        everyone = programs.lane_table(plan, group, group.trials[:wide], dict(enumerate(plan.points)))
        # One chunk on each device. The first lanes of a table are those of replicate 0, which may be in one chunk.
        self._count = min(wide, capacity_of(programs.spec, plan).lanes_together(len(group.trials)))
        table: LaneTable = jax.tree.map(lambda array: array[: self._count], everyone)
        self._table = table._replace(budget=np.full(self._count, FOREVER, np.int32))
        self._compiled = programs.compile(plan, group.number, self._table.h)
        self._lanes: DeviceLanes | None = None
        self._block, self._at, self._steps, self.seconds = None, 0, 1, 0.0

    @property
    def compile_seconds(self) -> float:
        """How long its program took to compile so far."""
        return sum(self._compiled.seconds.values())

    @property
    def state_bytes(self) -> int:
        """Bytes that its lanes take on each device."""
        number = self._group.number
        return self._plan.arrangements[number].state_bytes(self._plan.lane_bytes(number), 1)

    def prepare(self) -> None:
        """Traces its program, which then compiles in the background."""
        self._compiled.prepare("advance", "start")

    def begin(self, room: int) -> bool:
        """Waits for its program, and puts its lanes on the devices; returns whether they fit and can be computed.

        Args:
          room: bytes that there are for it on each device.
        """
        try:
            with translating_device_errors(self._group.number):
                compiled = self._compiled.wait()
                if (compiled.bytes or 0) > room:
                    return False
                self._block = self._programs.sample_block()
                self._lanes = self._programs.lanes(self._plan, self._group.number, compiled, self._table)
                self._advance(1)  # untimed: it makes the first states, and touches memory first
                while self._advance(self._steps) < EACH:
                    self._steps *= 2
                return True
        except OutOfMemoryError:
            return False
        except Exception:  # of the user's functions or of XLA: the group fails when it trains, and tells why
            return False

    def _advance(self, steps: int) -> float:
        """Returns the seconds that so many steps take."""
        assert self._lanes is not None
        begun, self._at = time.perf_counter(), self._at + steps
        self._lanes.advance(self._at, False, self._block)
        self.seconds = time.perf_counter() - begun
        return self.seconds

    def lap(self) -> float:
        """Returns the seconds of a lane-step, by one device call that is long enough to time."""
        return self._advance(self._steps) / (self._steps * self._count)


class Comparison(NamedTuple):
    """What pairs of calls tell of two widths.

    Attributes:
      ratio: how many times as fast the challenger is.
      lane_step: the seconds of a lane-step of the champion.
    """

    ratio: float
    lane_step: float


def compared(champion: Contender, challenger: Contender, time_left: Callable[[float], bool]) -> Comparison | None:
    """Returns how many times as fast a challenger is, by the median of pairs of calls that follow each other.

    It takes pairs until it is clear, by the interval of the median, whether the challenger is faster or slower by more
    than widths must differ to matter, or that they are alike.

    Args:
      champion: the fastest so far.
      challenger: what is compared with it.
      time_left: whether so many seconds are left, for one more pair. Without time for enough of them there is no
        ratio: None.
    """
    ratios, lane_steps = list[float](), list[float]()
    while len(ratios) < MOST and time_left(champion.seconds + challenger.seconds):
        # In turns who is first: what the first call leaves in caches and what else runs is shared.
        first, second = (champion, challenger) if len(ratios) % 2 else (challenger, champion)
        laps = {id(each): each.lap() for each in (first, second)}
        lane_steps.append(laps[id(champion)])
        ratios.append(laps[id(champion)] / laps[id(challenger)])
        if len(ratios) >= FEWEST:
            low, high = interval_of_median(ratios)
            if low > 1 / GOOD_ENOUGH or high < GOOD_ENOUGH or GOOD_ENOUGH <= low <= high <= 1 / GOOD_ENOUGH:
                break
    enough = len(ratios) >= FEWEST
    return Comparison(float(np.median(ratios)), float(np.median(lane_steps))) if enough else None


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
