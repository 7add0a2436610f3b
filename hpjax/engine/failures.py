"""What went wrong inside a compiled program, in words for its user."""

import re

from hpjax.engine.blame import own_line
from hpjax.errors import RunError

TRACEBACK = "callback: Traceback (most recent call last):\n"


def told(error: Exception, group: int) -> Exception:
    """The error as users should see it: one of a function of theirs that a program called on the host; others as is.

    Args:
      error: what a segment raised; of an error in a callback XLA keeps the text alone.
      group: whose program it is.
    """
    _, found, text = str(error).rpartition(TRACEBACK)
    if not found:
        return error
    what = next((line for line in text.splitlines() if not line.startswith("  ")), "an error without a message")
    places = re.findall(r'^  File "(.*)", line (\d+)', text, re.MULTILINE)
    own = [line for file, number in places if (line := own_line((file, int(number))))]
    where = f"\n  {own[-1]}" if own else ""
    return RunError(f"a function that the program of group {group} calls on the host fails:{where}\n  {what}")
