"""Preemption: after SIGTERM or Ctrl-C a run writes a checkpoint at its next event, and ends."""

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

from hpjax.engine.distributed import several

EXIT_PREEMPTED = 128 + signal.SIGTERM
# The signals that end a run, each with the handler that Python gives it if nobody sets another.
DEFAULTS: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
GOES_ON = "{}; a checkpoint is in {}. The same sweep with that directory goes on from there."
ASKED = b"\ninterrupted: a checkpoint is written after this device call; Ctrl-C again ends the process immediately.\n"


class Preempted(SystemExit):
    """Raised when a run got SIGTERM and wrote a checkpoint. Uncaught, the process exits with status 143.

    The same sweep with the same directory goes on from the checkpoint.

    Attributes:
      directory: the run directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__(directory)  # what unpickling calls this method with
        self.code = EXIT_PREEMPTED

    def __str__(self) -> str:
        return GOES_ON.format("preempted", self.directory)


def leave(number: int, directory: Path) -> None:
    """Raises what a signal asks for, once a checkpoint is written.

    Args:
      number: the signal.
      directory: the run directory.

    Raises:
      KeyboardInterrupt: the signal is SIGINT.
      Preempted: it is another one.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt(GOES_ON.format("interrupted", directory))
    raise Preempted(directory)


@contextmanager
def notices() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the number of the signal that asks the run to end, 0 before there is one.

    With several hosts every host must call it equally often, and all get the same answer. Outside the main thread it
    always returns 0, since Python handles signals there only. Where a handler is set already, such as that of a job
    manager, it stays, and this function does not see its signal.
    """
    if several():
        # JAX handles SIGTERM itself, and lets all hosts agree on the step at which to stop.
        asked = itertools.count()
        yield lambda: signal.SIGTERM * bool(multihost_utils.reached_preemption_sync_point(next(asked)))
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    noticed: list[int] = []

    def notice(number: int, frame: FrameType | None) -> None:
        noticed.append(number)
        if number == signal.SIGINT:
            os.write(2, ASKED)  # print() is not reentrant, and the handler may interrupt one
        signal.signal(number, DEFAULTS[signal.Signals(number)])  # so that a second signal ends the process

    for number, handler in DEFAULTS.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, notice)
    try:
        yield lambda: noticed[0] if noticed else 0
    finally:
        # The generator of an abandoned run may be collected in any thread, but only the main one may set handlers.
        for number, handler in DEFAULTS.items() if threading.current_thread() is threading.main_thread() else ():
            if signal.getsignal(number) is notice:
                signal.signal(number, handler)
