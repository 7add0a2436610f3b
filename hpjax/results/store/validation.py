"""Reading JSON files of a run directory, which anyone may have written: checked before anything in them is used."""

import json
import re
import reprlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from hpjax.core.errors import RunError

# No JSON file that a run writes comes near these limits.
MOST_BYTES, MOST_LEVELS = 64 * 2**20, 32
RESTORE_FILE = "It is damaged, or of another version: restore it from a copy, or use another directory."
RESTORE = "Restore it from a copy."
TOO_LARGE = f"it is larger than {MOST_BYTES:,} bytes"

# Types of fields that msgspec checks. ``Finite`` leaves out the infinity that JSON's ``1e999`` becomes.
NonNegative = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
# Of ASCII letters, digits and underscores alone; of other characters ``str.isidentifier`` says which a name may have.
Name = Annotated[str, Meta(pattern=r"\A(\w|[^\x00-\x7f])+\Z")]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

T = TypeVar("T")


def read_json(path: Path) -> Any:
    """Returns the value of a JSON file of UTF-8, with finite numbers, neither large nor deep, encodable strings.

    Raises:
      FileNotFoundError: the file is not there.
      RunError: the file cannot be read.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(TOO_LARGE)
        return parse_json(str(path), path.read_text("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. {RESTORE}") from None


def parse_json(where: str, content: str) -> Any:
    """Returns the value of a JSON text; see ``read_json``.

    Args:
      where: the file that has it, for the error.
      content: the text.

    Raises:
      RunError: the text cannot be read.
    """
    try:
        if len(content) > MOST_BYTES:
            raise ValueError(TOO_LARGE)
        value = json.loads(content, parse_constant=_refuse)
        level, levels = [value], 0
        while level := [x for each in level if isinstance(each, dict | list) for x in _inside(each)]:
            levels += 1
            if levels > MOST_LEVELS:
                raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
        json.dumps(value, ensure_ascii=False).encode()  # fails for half a surrogate pair, which cannot be printed
    except (ValueError, RecursionError) as error:
        raise RunError(f"{where} cannot be read: {error}. {RESTORE}") from None
    return value


def _inside(value: dict[str, Any] | list[Any]) -> Any:
    """Returns the values in a JSON object or list."""
    return value.values() if isinstance(value, dict) else value


def _refuse(name: str) -> None:
    """Raises for NaN and infinities, which Python's JSON would read."""
    raise ValueError(f"{name} is no number of JSON")


def convert(where: str, value: Any, kind: type[T]) -> T:
    """Returns a JSON value as a type of msgspec, checked field by field.

    Args:
      where: the file, for the error.
      value: as ``read_json`` returns it.
      kind: a ``msgspec.Struct``, or a tuple of some.

    Raises:
      RunError: a field is missing, unknown or not what it must be; names the field and what it holds.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        allowed, _, path = str(error).partition(" - at ")
        # msgspec names a field as `$.sweep.width[0]`, and what a dict holds as [...] without its key.
        path = path.rpartition("$")[2].split("[...]")[0].strip("`.")
        for name, position in re.findall(r"([^\W\d]\w*)|\[(\d+)\]", path):
            value = value[name] if name else value[int(position)]
        raise damaged(where, path, value, allowed) from None


def damaged(where: str, field: str, value: Any, allowed: str) -> RunError:
    """Returns the error for a field of a file that is not what a run writes.

    Args:
      where: the file.
      field: the field's path with dots, such as ``sweep.width``; empty for the whole file.
      value: what was found, shown in short.
      allowed: what the field must be, as a sentence without its stop.
    """
    found = f"{field or 'its content'} = {reprlib.repr(value)}"
    return RunError(f"{where}: {found}: {allowed}. {RESTORE_FILE}")


def texts(value: Any) -> Iterator[str]:
    """Yields every string in nested dicts, lists and tuples, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from texts(each)


def is_int(value: Any, least: int = 0, most: int = 2**31 - 1) -> bool:
    """Returns whether a JSON value is a whole number in a range."""
    return type(value) is int and least <= value <= most
