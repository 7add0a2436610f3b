"""Preemption: a notice that the machine will be taken away, or Ctrl-C, heeded at the next event."""

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
# What is heeded, and how it is handled where nobody has said otherwise.
DEFAULTS: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
GOES_ON = "{}; a checkpoint is in {}. The same command goes on from there."
ASKED = b"\ninterrupted: a checkpoint is written after this device call; Ctrl-C again ends at once.\n"


class Preempted(SystemExit):
    """A run got a notice of preemption (SIGTERM), and wrote a checkpoint: the process exits with status 143.

    Run the same again to go on.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__(EXIT_PREEMPTED)

    def __str__(self) -> str:
        return GOES_ON.format("preempted", self.directory)


def leave(number: int, directory: Path) -> None:
    """Raises what the signal of this number asks for, once a checkpoint is written."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt(GOES_ON.format("interrupted", directory))
    raise Preempted(directory)


@contextmanager
def notices() -> Iterator[Callable[[], int]]:
    """A function that gives the signal by which to leave now, 0 for none; with several hosts all get the same answer,
    and all must ask.

    Outside the main thread of a single process nothing can be told; and a handler that is there already, such as that
    of a job manager, keeps the signal to itself.
    """
    if several():
        # JAX heeds SIGTERM itself, and lets all hosts agree on when to stop.
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
            os.write(2, ASKED)  # print is not for handlers
        signal.signal(number, DEFAULTS[signal.Signals(number)])  # a second one ends the process

    for number, handler in DEFAULTS.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, notice)
    try:
        yield lambda: noticed[0] if noticed else 0
    finally:
        # An abandoned run may end in any thread.
        for number, handler in DEFAULTS.items() if threading.current_thread() is threading.main_thread() else ():
            if signal.getsignal(number) is notice:
                signal.signal(number, handler)
