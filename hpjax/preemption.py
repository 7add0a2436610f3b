"""Preemption: a notice that the machine will be taken away, heeded at the next event."""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jax.experimental import multihost_utils

from hpjax.distributed import several

EXIT_PREEMPTED = 128 + signal.SIGTERM


class Preempted(SystemExit):
    """A run got a notice of preemption (SIGTERM), and wrote a checkpoint: the process exits with status 143.

    Run the same again to go on.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__(EXIT_PREEMPTED)

    def __str__(self) -> str:
        return f"preempted; a checkpoint is in {self.directory}. The same command goes on from there."


@contextmanager
def notices() -> Iterator[Callable[[], bool]]:
    """A function that says whether to leave now; with several hosts all get the same answer, and all must ask.

    Outside the main thread of a single process nothing can be told; and a handler that is there already, such as that
    of a job manager, keeps the signal to itself.
    """
    if several():
        # JAX heeds the signal itself, and lets all hosts agree on when to stop.
        asked = itertools.count()
        yield lambda: bool(multihost_utils.reached_preemption_sync_point(next(asked)))
        return
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: False
        return
    noticed: list[int] = []

    def notice(number: int, frame: FrameType | None) -> None:
        noticed.append(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process

    signal.signal(signal.SIGTERM, notice)
    try:
        yield lambda: bool(noticed)
    finally:
        # An abandoned run may end in any thread.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is notice:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
