"""What the record of a run can hold: checked before anything trains, so that what is written can be read again."""

import numbers
from typing import Any

# A hyperparameter may be a tuple of tuples, nested so deep.
MOST_LEVELS = 8
INT64 = range(-(2**63), 2**63)


def unrecordable(value: Any, levels: int = MOST_LEVELS) -> str | None:
    """Returns why a record cannot hold the value of a hyperparameter, as a clause, or None where it can.

    Numbers, strings, bools, None and tuples of them are recorded as they are, anything else by its name.
    """
    if isinstance(value, tuple):
        if levels == 0:
            return f"must not be nested more than {MOST_LEVELS} levels deep"
        return next(filter(None, (unrecordable(each, levels - 1) for each in value)), None)
    if isinstance(value, numbers.Integral) and int(value) not in INT64:
        return "must be an integer that 64 bits hold, as all that are recorded"
    return None


def remedy_for(value: Any) -> str:
    """Returns what to type in place of a value that a record cannot hold, as a sentence."""
    if isinstance(value, tuple) or abs(value) >= 10**40:
        return "Write a string that names it, and look the value up in the program."
    return f'Write it as a string, "{value}".'


def is_name(text: str) -> bool:
    """Returns whether a text can name a metric or data: printable, as tables and manifests hold it, and not empty."""
    return isinstance(text, str) and text.isprintable() and text.strip() != ""
