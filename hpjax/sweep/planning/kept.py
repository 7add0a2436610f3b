"""Keeps what runs find out about this machine for later ones: JSON files in the user's cache folder.

Runs go on without them: a file that is damaged, and a folder that cannot be written, are told once.
"""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hpjax.core.fallback import warn_once
from hpjax.results.store.files import write_bytes

T = TypeVar("T")


def read(file: Path, kind: type[T]) -> T | None:
    """Returns what a file holds, checked field by field, since anyone may have written it; None if it cannot be read.

    Args:
      file: the file; where there is none, nothing is told.
      kind: a type of msgspec.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        warn_once(
            f"{file} cannot be read: {error}. What earlier runs measured is not known here. Delete the file, or the "
            "next measurement replaces it."
        )
        return None


def write(file: Path, value: Any) -> None:
    """Writes what a later process may read."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, msgspec.json.encode(value))
    except OSError as error:
        # Without the name of the file: of many that cannot be written the first tells.
        warn_once(
            f"{file.parent} cannot be written: {error.strerror}. What is measured here is not kept for later runs. "
            "Free space on its disk, or set XDG_CACHE_HOME to a folder that can be written."
        )
