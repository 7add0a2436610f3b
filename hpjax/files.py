"""Files of a run directory: there as a whole or not at all, and written by one process at a time."""

import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

from hpjax.core.errors import RunError

LOCK = ".lock"


def write_text(path: Path, content: str) -> None:
    """Writes a file so that it is there as a whole, or not at all."""
    write_bytes(path, content.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that it is there as a whole, or not at all."""
    part = part_of(path)
    part.write_bytes(content)
    os.replace(part, path)


def part_of(path: Path) -> Path:
    """Where ``write_bytes`` writes what is not whole yet."""
    return path.with_name(path.name + ".part")


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def locked(directory: Path) -> IO[str]:
    """A lock on a run directory, for as long as the file stays open: the system frees it when the process ends."""
    try:
        file = (directory / LOCK).open("w")
    except OSError as error:
        raise RunError(f"run directory {str(directory)!r} cannot be written: {error}.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise RunError(
            f"another run is writing to {str(directory)!r}. Wait for it, or choose another directory."
        ) from None
    return file
