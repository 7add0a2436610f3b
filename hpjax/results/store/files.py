"""Files of a run directory: written whole or not at all, by one process at a time, and none of them a link."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO

from hpjax.core.errors import RunError

LOCK = ".lock"
# The remedy where a run directory that could be written before cannot be written any more.
WRITABLE = "Free space on its disk, or chmod u+w the directory; then run the same command again to continue."


def write_text(path: Path, content: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a file beside ``path`` to write to, which takes its name at the end; if the body fails, it is deleted."""
    part = part_of(path)
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == os.fspath(part):
            error.filename = os.fspath(path)  # the name that the user knows
        raise


def write_for_user(path: str | Path, content: bytes) -> None:
    """Writes a file where the user wants it, whole or not at all.

    A link stays one, and what it leads to is written. What is no file, such as ``/dev/stdout``, is written to directly.
    """
    there = Path(path).resolve()
    if there.exists() and not there.is_file():
        there.write_bytes(content)
    else:
        write_bytes(there, content)


@contextmanager
def writing_for_user(path: str | Path, instead: str) -> Iterator[None]:
    """Raises ``RunError`` where its body cannot write what the user wants at a path.

    Args:
      path: where the user wants it.
      instead: what to type to write it elsewhere.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise RunError(
            f"{str(path)!r} cannot be written: {why}. Name a place where you may write files: {instead}."
        ) from None


def part_of(path: Path) -> Path:
    """Returns the temporary file that is filled before it takes the name ``path``."""
    return path.with_name(path.name + ".part")


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def locked(directory: Path) -> IO[str]:
    """Returns a file that locks a run directory while it is open; the system frees the lock when the process ends.

    Raises:
      RunError: another process holds the lock, or the directory cannot be written.
    """
    try:
        file = (directory / LOCK).open("w")
    except OSError as error:
        raise RunError(
            f"run directory {str(directory)!r} cannot be written: {error}. Choose one where you may write files."
        ) from None
    for _ in range(2):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)  # is_locked may hold it for a moment
        else:
            return file
    file.close()
    raise RunError(f"another run is writing to {str(directory)!r}. Wait for it, or choose another directory.")


def is_locked(directory: Path) -> bool:
    """Returns whether another process writes to a run directory."""
    try:
        with (directory / LOCK).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def guard(directory: Path) -> None:
    """Raises unless every name inside a run directory stays inside it. The directory itself may be a link.

    Raises:
      RunError: the directory holds a link, hard or symbolic, a pipe, a device or a socket, or cannot be read.
    """
    folders = [os.fspath(directory)]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # a run that writes to it has just removed it
                        continue
                    if S_ISDIR(found.st_mode):
                        folders.append(entry.path)
                    elif not S_ISREG(found.st_mode) or found.st_nlink > 1:
                        kind = "another name of a file" if S_ISREG(found.st_mode) else "neither a file nor a folder"
                        raise RunError(
                            f"{entry.path!r} is {kind}, and a run directory holds only files and folders of its own. "
                            "Delete it, or replace it by a copy of what it stands for."
                        )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise RunError(f"{folder!r} cannot be read: {error}. Type chmod -R u+rX {directory}.") from None
