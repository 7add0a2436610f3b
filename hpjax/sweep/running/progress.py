"""Progress: how far a sweep is, in a line that is replaced on a terminal and in a notebook, in lines elsewhere."""

import sys
import time
from types import TracebackType

from hpjax.core import format as text
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.report import speeds
from hpjax.sweep.planning.span_report import exchanged
from hpjax.sweep.running.events import CompileFinished, CompileStarted, Event, SegmentFinished
from hpjax.sweep.running.line import NotebookLine, TerminalLine, line_on

QUIET_SECONDS = 5.0
# The line tells how long the run waited for the batches of a stream if that is more than this share of the time.
SLOW = 0.05
# The width of a line that is not cut.
EVERYTHING = 10_000


class Progress:
    """A display of how many lanes live, steps a second, the best trial so far, and the time left.

    Args:
      plan: the plan of the first round.
      enabled: whether to print anything.
    """

    def __init__(self, plan: Plan, enabled: bool) -> None:
        from rich.console import Console  # imported here, since it takes a while

        self._plan = plan
        self._left = plan.lane_steps
        self._done = 0
        self._compiled = 0
        self._training = self._compile = self._waited = 0.0
        self._printed = time.monotonic()
        self._console = Console(file=sys.stderr, quiet=not enabled)
        self._enabled = enabled
        self._line: TerminalLine | NotebookLine | None = None

    @property
    def _room(self) -> int:
        """The characters beside the bar; where lines are not cut they may be of any length."""
        return EVERYTHING if self._line is None or self._line.room is None else self._line.room

    def __enter__(self) -> "Progress":
        if self._enabled:
            self._line = line_on(self._console)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line is not None:
            self._line.close()

    def note(self, text: str) -> None:
        """Shows a line that belongs to no event."""
        self._keep(text)

    def update(self, event: Event) -> None:
        """Takes in one event, and shows it if it is time for a new line."""
        if not self._enabled:
            return
        if event.kind == "decision":
            self._left = max(self._left - event.spared, 0)
            return
        if event.kind == "resumed":
            self._left = max(self._left - event.lane_steps - event.spared, 0)
            whole = text.count(event.lane_steps + self._left, "lane-step")
            self._keep(f"goes on from a checkpoint: {event.lane_steps:,} of {whole} are done")
            return
        # A group that a later round brought is not in the plan, which is that of the first.
        static = "".join(f" ({g})" for g in self._plan.groups if g.number == event.group)
        if event.kind == "width_halved":
            self._left += event.lost
            self._keep(f"group {event.group}: out of memory, it begins anew with half as many lanes at once")
            return
        if event.kind == "width_measured":
            self._left += event.lost
            then = f"it begins anew at {event.width}" if event.anew else f"it stays at {event.width}"
            took = text.duration(event.seconds)
            self._keep(f"group {event.group}: {speeds(event.rates)}, measured in {took}; {then}")
            return
        if event.kind == "group_failed":
            self._left = max(self._left - event.spared, 0)
            self._keep(f"group {event.group}{static} failed, the others go on: {event.reason}")
            return
        group = f"group {event.group}{static}, {self._nth(event)} of {event.groups}"
        if event.kind == "compile":
            self._show(f"{group}: compiling")
        elif event.kind == "compiled":
            self._compile = event.seconds
            self._compiled = max(self._compiled, self._nth(event))
            told = "" if event.exchanges is None else f"; {exchanged(event.exchanges)}"
            self._keep(f"{group}: compiled in {text.duration(event.seconds)}{told}")
        else:
            self._training += event.seconds
            self._waited += event.waited
            self._done += event.lane_steps
            self._left = max(self._left - event.lane_steps - event.spared, 0)
            if event.live:
                self._show(self.line(event, self._room))
            else:
                self._keep(self.line(event, EVERYTHING))

    def _nth(self, event: CompileStarted | CompileFinished | SegmentFinished) -> int:
        """Returns the place of an event's group among those that are trained here, from 1."""
        return 1 + event.group - sum(not each.waves for each in self._plan.arrangements[: event.group])

    def line(self, event: SegmentFinished, width: int) -> str:
        """Returns how far a run is, without what is least important where the line would have more characters."""
        rate = self._done / self._training if self._training else 0.0
        to_compile = self._compile * (event.groups - self._compiled)
        left = text.duration(self._left / rate + to_compile) if rate else "?"
        parts = {
            "step": f"{self._nth(event)}/{event.groups} step {event.step:,}/{event.steps:,}",
            "lanes": f"{event.live:,}/{event.lanes:,} lanes",
            "rate": f"{rate:,.0f} steps/s",
            "left": f"{left} left",
        }
        if self._waited > max(SLOW * self._training, 1.0):
            parts["waited"] = f"waited {text.duration(self._waited)} for data"
        if event.best is not None:
            parts["best"] = f"best {text.metric(event.best[1])} (trial {event.best[0]})"
        for name in ("lanes", "rate", "waited", "left", "step"):
            if len(" · ".join(parts.values())) > width:
                parts.pop(name, None)
        return " · ".join(parts.values())

    def _show(self, line: str) -> None:
        """Shows a line that the next one replaces; where lines cannot be replaced, one in ``QUIET_SECONDS``."""
        if self._line is not None:
            self._line.show(line, self._done, self._done + self._left)
        elif time.monotonic() - self._printed > QUIET_SECONDS:
            self._keep(line)

    def _keep(self, line: str) -> None:
        """Shows a line that stays."""
        self._printed = time.monotonic()
        self._console.print(line, highlight=False, soft_wrap=True)
