"""What went wrong inside a compiled program, in words for its user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from hpjax.core.errors import RunError
from hpjax.core.user_code import own_line

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


class OutOfMemoryError(Exception):
    """A device has no memory left for the program of a group."""

    def __init__(self, group: int) -> None:
        self.group = group
        super().__init__(f"group {group} ran out of memory")


@contextmanager
def translating_device_errors(group: int) -> Iterator[None]:
    """Errors of device calls that are made for a group as ``translate_device_error`` has them."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise translate_device_error(error, group) from None


TRACEBACK = "callback: Traceback (most recent call last):\n"


def translate_device_error(error: Exception, group: int) -> Exception:
    """The error in other words, of a function of the user's that a program called on the host or of memory; else as is.

    Args:
      error: what a segment raised; of an error in a callback XLA keeps the text alone.
      group: whose program it is.
    """
    _, found, text = str(error).rpartition(TRACEBACK)
    if not found:
        return OutOfMemoryError(group) if OUT_OF_MEMORY in str(error) else error
    what = next((line for line in text.splitlines() if not line.startswith("  ")), "an error without a message")
    places = re.findall(r'^  File "(.*)", line (\d+)', text, re.MULTILINE)
    own = [line for file, number in places if (line := own_line((file, int(number))))]
    where = f"\n  {own[-1]}" if own else ""
    return RunError(f"a function that the program of group {group} calls on the host fails:{where}\n  {what}")
