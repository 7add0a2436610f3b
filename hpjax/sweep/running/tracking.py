"""Tracking: tells trackers, and a function of the user, what happens in a run, each in a thread of its own."""

import queue
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from types import TracebackType

from hpjax.core.errors import InputError, RunError
from hpjax.results.store.run_store import Store
from hpjax.results.table import CloneRecord
from hpjax.results.table_reader import read_table
from hpjax.results.trackers import Evaluation, TrackedRun, Tracker
from hpjax.sweep.running.events import Event

# How long the end of a run waits until its trackers have all, and how long a run that is interrupted does, s.
PATIENCE, HURRY = 60.0, 5.0


def check_trackers(trackers: object, on_event: object) -> None:
    """Raises ``InputError`` unless these are trackers and a function, as ``Sweep.run`` takes them."""
    remedy = 'Write trackers=[hpx.trackers.TensorBoard("logs")].'
    if not isinstance(trackers, list | tuple):
        raise InputError("run.trackers", trackers, "must be a list of trackers", remedy)
    for tracker in trackers:
        if not isinstance(tracker, Tracker):
            raise InputError("run.trackers", tracker, "must be a tracker", remedy)
    if not (on_event is None or callable(on_event)):
        raise InputError("run.on_event", on_event, "must be a function of an event", "Write on_event=print.")


class Background:
    """Makes calls in a thread of its own, one after the other, until one raises an error.

    Args:
      name: what the user calls that which is called.
    """

    def __init__(self, name: str) -> None:
        self._name, self._told = name, False
        self._error: BaseException | None = None
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        # A daemon: what hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"hpjax {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            if self._error is None:
                try:
                    call()
                except BaseException as error:  # also SystemExit, which would end the thread without a word
                    self._error = error

    def put(self, call: Callable[[], object]) -> None:
        """Has a call made after those before; warns if one of these raised an error."""
        self._tell()
        if self._error is None:
            self._calls.put(call)

    def end(self) -> None:
        """Says that no more calls come."""
        self._calls.put(None)

    def wait(self, seconds: float) -> None:
        """Waits until all calls are made, but no longer; warns if they are not by then, or if one raised an error."""
        self._thread.join(seconds)
        self._tell()
        if self._thread.is_alive():
            warnings.warn(
                f"{self._name} is not done: what it still has to write is lost if the process ends before. The run is "
                "complete without it, and to run it again tells the rest: sweep.run(directory, trackers=...).",
                RuntimeWarning,
                stacklevel=4,
            )

    def _tell(self) -> None:
        if self._error is not None and not self._told:
            self._told = True
            warnings.warn(
                f"{self._name} failed, and is told nothing more; the training goes on. {type(self._error).__name__}: "
                f"{self._error}",
                RuntimeWarning,
                stacklevel=5,
            )


class Tracking:
    """Tells trackers of a run, and a function of its events. What fails of them is told once, and changes nothing else.

    Args:
      run: the run.
      store: where it is recorded.
      trackers: what is told of evaluations.
      on_event: is called with each event; None for nothing.
    """

    def __init__(
        self, run: TrackedRun, store: Store, trackers: Sequence[Tracker], on_event: Callable[[Event], object] | None
    ) -> None:
        self._run, self._store, self._on_event = run, store, on_event
        self._trackers = [(each, Background(type(each).__name__)) for each in trackers]
        self._function = None if on_event is None else Background("on_event")
        self._trials = self._clones = self._lane_steps = 0

    def __enter__(self) -> "Tracking":
        if self._trackers:
            table = read_table(self._store, self._run.manifest)
            self._trials, self._clones = len(table), len(table.lineage)
            self._tell("begin", self._run, table)
        return self

    def notes(self) -> list[str]:
        """Returns what trackers leave out, a sentence each."""
        return [note for tracker, _ in self._trackers if (note := tracker.note(self._run)) is not None]

    def update(self, event: Event) -> None:
        """Takes in one event."""
        if self._function is not None and self._on_event is not None:
            self._function.put(partial(self._on_event, event))
        if not self._trackers:
            return
        if event.kind == "resumed":
            self._lane_steps = event.lane_steps
        elif event.kind == "width_halved" or event.kind == "width_measured":
            self._lane_steps -= event.lost
        elif event.kind == "decision":
            self._add_clones()
        elif event.kind == "segment":
            self._lane_steps += event.lane_steps
            if event.metrics:
                trial, replicate, step = event.evaluated
                if trial.max(initial=-1) >= self._trials:
                    self._add_trials()
                about = self._lane_steps, event.live, event.best
                self._tell("log", Evaluation(trial, replicate, step, event.metrics, *about))

    def _add_trials(self) -> None:
        """Tells of the trials of a round that began."""
        rows = self._store.trials()
        self._tell("add_trials", {row.trial: row.hparams for row in rows[self._trials :]})
        self._trials = len(rows)

    def _add_clones(self) -> None:
        """Tells of the trials that a scheduler has go on from the states of others."""
        found = self._store.clones()
        # There may be fewer than before: a population begins anew where one of its groups is short of memory.
        new = [CloneRecord(*row) for row in found[min(self._clones, len(found)) :]]
        if new:
            self._tell("add_clones", new)
        self._clones = len(found)

    def _tell(self, method: str, *arguments: object) -> None:
        for tracker, thread in self._trackers:
            thread.put(partial(getattr(tracker, method), *arguments))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = kind is None
        if self._trackers:
            with nullcontext() if finished else suppress(RunError):  # an error that ended the run is told alone
                self._tell("end", read_table(self._store, self._run.manifest), finished)
        own = [thread for _, thread in self._trackers] + [each for each in (self._function,) if each is not None]
        deadline = time.monotonic() + (PATIENCE if finished else HURRY)  # for all of them together
        for thread in own:
            thread.end()
        for thread in own:
            thread.wait(max(deadline - time.monotonic(), 0.0))
