"""Errors of compiled programs, translated into words for their user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import RunError
from hpjax.core.user_code import first_line, own_line, user_lines
from hpjax.engine.distributed import from_each, several

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

    It raises ``OutOfMemoryError`` where half the width may help. With several hosts all must enter it, and nothing in
    its body may wait for another host: where one of them fails, it raises the same error on all.

    Args:
      group: the number of the group.
      width: how many of its lanes a device computes at once.
      compiling: whether its program is made in the body, where any error is about that program.
    """
    failure: OutOfMemoryError | GroupFailedError | None = None
    try:
        with translating_device_errors(group):
            yield
    except OutOfMemoryError as error:
        failure = error if width > 1 else _failed(group, one_lane_too_many(group))
    except Exception as error:
        if not (compiling or isinstance(error, RunError | jax.errors.JaxRuntimeError)):
            raise
        failure = _failed(group, error)
    if several():
        failure = _of_all_hosts(group, failure)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # in a cycle with its own traceback it would keep what the frames hold on the devices


def _failed(group: int, error: Exception) -> GroupFailedError:
    """Returns the failure of a group that an error caused."""
    failure = GroupFailedError(group, _reason(error))
    failure.__cause__ = error
    return failure


OUT_OF_MEMORY_HERE, FAILED_HERE = "memory", "failed "


def _of_all_hosts(
    group: int, failure: OutOfMemoryError | GroupFailedError | None
) -> OutOfMemoryError | GroupFailedError | None:
    """Returns the failure that every host raises: that of the first host that failed, or that one is short of memory.

    Args:
      group: the number of the group.
      failure: that of this host, or None.
    """
    mine = ""
    if failure is not None:
        mine = FAILED_HERE + failure.reason if isinstance(failure, GroupFailedError) else OUT_OF_MEMORY_HERE
    said = from_each(mine, LONGEST)
    reasons = {host: text.removeprefix(FAILED_HERE) for host, text in enumerate(said) if text.startswith(FAILED_HERE)}
    if reasons:
        host, reason = next(iter(reasons.items()))
        told = reason if len(reasons) == len(said) else f"on host {host}: {reason}"
        agreed = GroupFailedError(group, told)
        agreed.__cause__ = getattr(failure, "__cause__", None) or RunError(told)
        return agreed
    return OutOfMemoryError(group) if OUT_OF_MEMORY_HERE in said else None


@contextmanager
def failing_the_run(group: int, width: int) -> Iterator[None]:
    """Raises errors of device calls as ``translating_device_errors`` does, for a body in which hosts wait for others.

    Raises:
      RunError: memory is short, and half the width does not help, or hosts could not agree on it.
    """
    try:
        with translating_device_errors(group):
            yield
    except OutOfMemoryError:
        if width == 1:
            raise one_lane_too_many(group) from None
        if several():
            raise RunError(
                f"group {group} runs out of memory at the width {width} on host {jax.process_index()}, while lanes go "
                f"from host to host. Begin anew in a new directory with width={ceil_div(width, 2)}."
            ) from None
        raise


def one_lane_too_many(group: int) -> RunError:
    """Returns the error for a group of which not even one lane fits."""
    return RunError(
        f"group {group} runs out of memory with one lane at a time. Make its model, its batch_size or its "
        "eval_batch_size smaller, use fewer trials, or have more devices share each lane: twice the devices_per_lane, "
        '1 unless you wrote another, with partition="fsdp".'
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
