"""Competitors that take turns: each a process that prepares and then runs whenever it is told to."""

import contextlib
import json
import math
import os
import queue
import signal
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from worker import Planned


class Lap(NamedTuple):
    """One run of a competitor.

    Attributes:
      wall: seconds that all the trials take; of those that run a part of them, in proportion.
      cpu: likewise, of all cores together.
      losses: what the training of each trial came to; or None where there is nothing to compare.
    """

    wall: float
    cpu: float = 0.0
    losses: Sequence[float] | None = None


class WorkerError(Exception):
    """A worker crashed, hung or said something else than it should."""


class Worker:
    """A process that answers lines of JSON: first what it prepared, then a lap for every line it is sent.

    Args:
      command: what to run.
      seconds: how long it may take to answer.
    """

    def __init__(self, command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> None:
        self._seconds = seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in close
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            start_new_session=True,  # so that what it started ends with it
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def answer(self) -> dict[str, Any]:
        """Returns the next line that the process says.

        Raises:
          WorkerError: there is none; with the last line of its standard error.
        """
        try:
            line = self._lines.get(timeout=self._seconds)
        except queue.Empty:
            raise WorkerError(f"no answer within {self._seconds:.0f} s; {self._last_words()}") from None
        if line is None:
            raise WorkerError(f"it ended with status {self._process.wait()}; {self._last_words()}")
        try:
            said = json.loads(line)
        except ValueError:
            raise WorkerError(f"it said {line.strip()[:200]!r}") from None
        return dict(said)

    def go(self) -> dict[str, Any]:
        """Has the process run once; returns what it says of the run."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer tells why
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Ends the process and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def _last_words(self) -> str:
        size = os.fstat(self._errors.fileno()).st_size
        tail = os.pread(self._errors.fileno(), 4096, max(0, size - 4096)).decode(errors="replace").split("\n")
        words = [line.strip() for line in tail if line.strip()]
        return words[-1][:300] if words else "it said nothing"


class Measured(NamedTuple):
    """What came of one competitor.

    Attributes:
      laps: one a round.
      compiled: seconds of the first run above those that follow, which is compiling; None where that is not known.
      planned: what hpjax's plan said.
      note: what the competitor says of itself.
      megabytes: the most memory that the process had.
      error: why there are no laps, or why they do not count.
      chosen: which of the trials it trains, where not all; numbers from 0.
    """

    laps: tuple[Lap, ...] = ()
    compiled: float | None = None
    planned: Planned | None = None
    note: str = ""
    megabytes: float = 0.0
    error: str = ""
    chosen: Sequence[int] | None = None

    def seconds(self, clock: str = "wall") -> float:
        """Returns the median lap, by the clock ``"wall"`` or ``"cpu"``."""
        return statistics.median(getattr(lap, clock) for lap in self.laps)

    def times(self, factor: float) -> "Measured":
        """Returns laps ``factor`` times as long, by which runs of other numbers of trials are compared."""
        return self._replace(laps=tuple(Lap(lap.wall * factor, lap.cpu * factor, lap.losses) for lap in self.laps))


def alternate(
    competitors: Mapping[str, Callable[[], Worker]],
    rounds: int,
    tolerance: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
    fresh: bool = False,
) -> dict[str, Measured]:
    """Lets competitors run in turns, A B C A B C …, so that what else the machine does falls on all alike.

    They prepare one after the other, and all stay alive until the end. One that fails is left out from then on.

    Args:
      competitors: name to what starts the worker; the first is the one that the others are compared with.
      rounds: how often each runs.
      tolerance: how far the median loss may be from that of the first in the same trials, as a share of it; None: any.
      tell: what is to hear how far it is.
      fresh: whether each run has a process of its own, since a process compiles but once.
    """
    workers: dict[str, Worker] = {}
    ready: dict[str, dict[str, Any]] = {}
    laps: dict[str, list[Lap]] = {name: [] for name in competitors}
    errors: dict[str, str] = {}

    def attempt(name: str, what: Callable[[], None]) -> None:
        try:
            what()
        except WorkerError as error:
            errors[name] = str(error)
            tell(f"{name}: {error}")
            workers.pop(name).close()

    def prepare(name: str) -> None:
        if not fresh:
            tell(f"{name}: preparing")
        workers[name] = competitors[name]()
        ready[name] = workers[name].answer()

    def lap(name: str) -> None:
        said = workers[name].go()
        ready[name]["megabytes"] = said["megabytes"]
        laps[name].append(Lap(said["wall"], said["cpu"], said["losses"]))
        tell(f"{name}: {said['wall']:.2f} s, {said['cpu']:.2f} CPU seconds")

    def alone(name: str) -> None:
        prepare(name)
        lap(name)
        workers.pop(name).close()

    try:
        for name in () if fresh else competitors:
            attempt(name, lambda name=name: prepare(name))  # type: ignore[misc]
        for _ in range(rounds):
            for name in [name for name in competitors if name not in errors]:
                attempt(name, lambda name=name: (alone if fresh else lap)(name))  # type: ignore[misc]
    finally:
        for worker in workers.values():
            worker.close()

    measured = {}
    for name in competitors:
        said, error = ready.get(name, {}), errors.get(name, "")
        compiled = None
        if laps[name] and said["first"] is not None:
            compiled = max(0.0, said["first"] - statistics.median(lap.wall for lap in laps[name]) * said["share"])
        measured[name] = Measured(
            tuple(laps[name]),
            compiled,
            Planned(*said["planned"]) if said.get("planned") else None,
            said.get("note", ""),
            said.get("megabytes", 0),
            error,
            said.get("chosen"),
        )
    return checked(measured, tolerance)


def checked(measured: dict[str, Measured], tolerance: float | None) -> dict[str, Measured]:
    """Returns the same, with an error for those whose median loss is off that of the first in the same trials."""
    first = next(iter(measured.values()))
    ours = first.laps[-1].losses if first.laps else None
    if tolerance is None or ours is None:
        return measured
    off = {}
    for name, each in measured.items():
        losses = each.laps[-1].losses if each.laps else None
        if losses is None or each.error:
            continue
        wanted = median_loss(ours if each.chosen is None else [ours[trial] for trial in each.chosen])
        found = median_loss(losses)
        if not abs(found - wanted) <= tolerance * abs(wanted):  # NaN is off, too
            off[name] = each._replace(error=f"its loss is {found:.4g} where {wanted:.4g} ± {tolerance:.0%} is wanted")
    return measured | off


def median_loss(losses: Sequence[float]) -> float:
    """Returns the median loss of the trials that did not diverge; NaN if all did."""
    return statistics.median([loss for loss in losses if not math.isnan(loss)] or [math.nan])


class Ratio(NamedTuple):
    """How two competitors compare: by their medians, and the least and the most of any round."""

    value: float
    least: float
    most: float


def compared(measure: Callable[[float, float], float], ours: Measured, rival: Measured, clock: str = "wall") -> Ratio:
    """Returns ``measure(ours, rival)`` of the medians, and its spread over the rounds that both ran."""
    pairs = zip(ours.laps, rival.laps, strict=False)
    rounds = [measure(getattr(a, clock), getattr(b, clock)) for a, b in pairs]
    return Ratio(measure(ours.seconds(clock), rival.seconds(clock)), min(rounds), max(rounds))
