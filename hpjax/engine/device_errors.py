"""Errors of compiled programs, translated into words for their user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from hpjax.core.errors import RunError
from hpjax.core.user_code import own_line

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


class OutOfMemoryError(Exception):
    """An error of a device that has too little memory for the program of a group.

    Attributes:
      group: the number of the group.
    """

    def __init__(self, group: int) -> None:
        self.group = group
        super().__init__(group)  # what unpickling calls this method with

    def __str__(self) -> str:
        return f"group {self.group} ran out of memory"


@contextmanager
def translating_device_errors(group: int) -> Iterator[None]:
    """Raises errors of device calls made in its body as ``translate_device_error`` has them."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise translate_device_error(error, group) from None


# XLA passes on an error in a callback as text alone: this line, and then the traceback.
TRACEBACK = "callback: Traceback (most recent call last):\n"


def translate_device_error(error: Exception, group: int) -> Exception:
    """Returns a clearer error for one that a device call raised.

    Args:
      error: the error that the call raised.
      group: the number of the group that it was made for.

    Returns:
      ``OutOfMemoryError`` where memory was short; ``RunError`` with the user's line where a function that the program
      calls on the host failed; any other error unchanged.
    """
    _, found, text = str(error).rpartition(TRACEBACK)
    if not found:
        return OutOfMemoryError(group) if OUT_OF_MEMORY in str(error) else error
    what = next((line for line in text.splitlines() if not line.startswith("  ")), "an error without a message")
    places = re.findall(r'^  File "(.*)", line (\d+)', text, re.MULTILINE)
    own = [line for file, number in places if (line := own_line((file, int(number))))]
    where = f"\n  {own[-1]}" if own else ""
    return RunError(f"a function that the program of group {group} calls on the host fails:{where}\n  {what}")
