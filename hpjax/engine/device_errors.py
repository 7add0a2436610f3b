"""Errors of compiled programs, translated into words for their user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from hpjax.core.errors import RunError
from hpjax.core.user_code import first_line, own_line, user_lines
from hpjax.engine.distributed import several

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
# A reason has so many characters at most: XLA's errors may print whole programs.
LONGEST = 1000


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


class GroupFailedError(Exception):
    """An error that ends the training of one group and of no other; its cause is what was raised.

    Attributes:
      group: the number of the group.
      reason: what happened, on one line.
    """

    def __init__(self, group: int, reason: str) -> None:
        self.group, self.reason = group, reason
        super().__init__(group, reason)

    def __str__(self) -> str:
        return f"group {self.group} failed: {self.reason}"


@contextmanager
def failing_alone(group: int, width: int, compiling: bool = False) -> Iterator[None]:
    """Raises ``GroupFailedError`` where a group cannot be compiled or computed in its body.

    It does not where half the width may help; nor with several hosts, of which the others would wait for this one.

    Args:
      group: the number of the group.
      width: how many of its lanes a device computes at once.
      compiling: whether its program is made in the body, where any error is about that program.
    """
    try:
        with translating_device_errors(group):
            yield
    except OutOfMemoryError:
        if width > 1 or several():
            raise
        error = one_lane_too_many(group)
        raise GroupFailedError(group, _reason(error)) from error
    except Exception as error:
        if several() or not (compiling or isinstance(error, RunError | jax.errors.JaxRuntimeError)):
            raise
        raise GroupFailedError(group, _reason(error)) from error


def one_lane_too_many(group: int) -> RunError:
    """Returns the error for a group of which not even one lane fits."""
    return RunError(
        f"group {group} runs out of memory with one lane at a time. Make its model, its batch_size or its "
        "eval_batch_size smaller, or use fewer trials."
    )


def _reason(error: Exception) -> str:
    """Returns an error on one line of printable characters, with the user's line that it came from."""
    if isinstance(error, RunError):
        text = str(error)
    else:
        own = user_lines(error)[-1:]
        text = f"its program fails: {' '.join([*own, first_line(error)])}"
    line = "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


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
