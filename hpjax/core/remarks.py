"""Remarks: what code notices while a program is traced and a user should know, for the hints of the plan."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# One list for each ``collecting_remarks`` block that is open in this thread.
_collectors: ContextVar[tuple[list[str], ...]] = ContextVar("remarks", default=())


def remark(sentence: str) -> None:
    """Adds a sentence to the hints of the plan that traces this code; elsewhere it does nothing."""
    for found in _collectors.get():
        found.append(sentence)


def is_planned() -> bool:
    """Returns whether a plan traces this code, so that what only it needs to know is worth finding out."""
    return bool(_collectors.get())


@contextmanager
def collecting_remarks() -> Iterator[list[str]]:
    """Collects the remarks of code in this block, in the thread that runs it.

    Yields:
      A list that grows by one sentence with each call of ``remark``.
    """
    found: list[str] = []
    token = _collectors.set((*_collectors.get(), found))
    try:
        yield found
    finally:
        _collectors.reset(token)
