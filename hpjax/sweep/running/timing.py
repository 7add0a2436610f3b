"""Timing: how long a run compiled and trained beside its estimates, which plans of later runs go by."""

from hpjax.sweep.planning import pace
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.running.events import SegmentFinished

# Training of fewer seconds tells nothing.
LEAST = 3.0


class Timing:
    """How long a run takes beside its estimates.

    Args:
      devices: how many devices there are, and of which kind.
    """

    def __init__(self, devices: tuple[int, str]) -> None:
        self._devices = devices
        self._compiled = False
        self._began: set[int] = set()
        self._seconds = self._estimated = 0.0

    def compiled(self, plan: Plan, group: int, waited: float, compiling: float) -> None:
        """Notes the wait for the first program, unless it was compiled before.

        Those of later groups compile while others train.

        Args:
          plan: the plan.
          group: the group whose program it is.
          waited: how long the run waited for it.
          compiling: how long compiling took of its function that takes longest.
        """
        estimated = plan.trained(group).compile_seconds
        # In this process before, or for an earlier run that kept it.
        if compiling > waited or compiling < estimated / pace.MOST:
            self._began.add(group)
        elif not self._compiled:
            pace.remember(self._devices, "compiling", waited, estimated)
        self._compiled = True

    def trained(self, plan: Plan, event: SegmentFinished) -> None:
        """Adds a segment, unless it is the first of its group and may wait for what evaluates it to compile."""
        if event.group in self._began:
            self._seconds += event.seconds - event.waited
            self._estimated += event.lane_steps * sum(plan.estimated_seconds(plan.groups[event.group]))
        self._began.add(event.group)

    def close(self) -> None:
        """Remembers how long training took, if it took long enough."""
        if self._seconds >= LEAST:
            pace.remember(self._devices, "running", self._seconds, self._estimated)
        self._seconds = self._estimated = 0.0
