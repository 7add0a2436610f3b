"""What stands in a run directory is data that anyone may have written: it is looked over before it is used."""

import json
import math
import os
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpjax.core.errors import RunError

# No JSON file of a run comes near these; what does was not written by one.
MOST_BYTES, MOST_LEVELS = 64 * 2**20, 32


def read_json(path: Path) -> Any:
    """The value of a JSON file: UTF-8, of finite numbers, neither large nor deep, its strings printable as UTF-8.

    Raises:
      FileNotFoundError: it is not there.
      RunError: it cannot be read.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
        value = json.loads(path.read_text("utf-8"), parse_constant=_refuse)
        level, levels = [value], 0
        while level := [x for each in level if isinstance(each, dict | list) for x in _inside(each)]:
            levels += 1
            if levels > MOST_LEVELS:
                raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
        json.dumps(value, ensure_ascii=False).encode()
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    return value


def _inside(value: dict[str, Any] | list[Any]) -> Any:
    return value.values() if isinstance(value, dict) else value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def memory() -> int:
    """Bytes of memory of this host: no array that a run wrote can be larger, and none that is may be allocated."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Field(NamedTuple):
    """What a field of a JSON value must be.

    Attributes:
      fits: whether a value is so.
      allowed: the same in words.
    """

    fits: Callable[[Any], bool]
    allowed: str


def is_whole(value: Any, least: int = 0, most: int = 2**31 - 1) -> bool:
    """Whether a JSON value is a whole number in a range."""
    return type(value) is int and least <= value <= most


def is_real(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def is_text(value: Any) -> bool:
    """Whether a JSON value is a string that can be printed."""
    return isinstance(value, str) and value.isprintable()


def list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a JSON value is a list of such values, without doubles."""
    return lambda value: isinstance(value, list) and all(map(fits, value)) and len(set(value)) == len(value)


def check(where: str, value: Any, fields: Mapping[str, Field]) -> None:
    """Checks fields of a JSON value, named with dots: ``sweep.width``.

    Raises:
      RunError: one is missing, or is not what it must be.
    """
    for name, field in fields.items():
        found = value
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if not field.fits(found):
            raise RunError(
                f"{where}: {name} = {reprlib.repr(found)}: must be {field.allowed}. "
                "It is damaged, or of another version: restore it, or use another directory."
            )
