"""Compiled programs on disk: written whole or not at all, checked when they are read, and bounded in size.

JAX's own cache, which this replaces in hpjax's folder, writes into the file itself, so that a full disk or a process
that is killed leaves a part of a program. It never writes again what is there, so that a damaged program is compiled in
every run. Its bound, ``jax_compilation_cache_max_size``, needs the package ``filelock``, makes processes wait for each
other whenever one reads, and keeps a second file of each program; until jax 0.12 a process that is killed between both
leaves a folder to which no other can write.

Parts of JAX used here that its documentation does not promise, as they are in jax 0.10.2 (the oldest that hpjax takes)
to 0.12:

- ``jax._src.compilation_cache._cache``, the object whose ``get`` and ``put`` JAX calls, and the names of these in
  ``CacheInterface``. Fallback: where they are others, JAX's own cache keeps programs in the same folder, and a warning
  tells once.
"""

import hashlib
import os
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from stat import S_ISREG
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from hpjax.core.fallback import warn_once

# Bytes of compiled programs that are kept; of those beyond it the ones not used for longest go.
LARGEST = 2 * 2**30
# Bytes that a folder must have room for, or nothing is kept.
ROOM = 2**20
# Bytes at the end of each file that tell whether the others are as they were written.
CHECKSUM = 16


class ProgramCache:
    """The compiled programs in a folder, which may be deleted any time.

    Args:
      folder: the folder.
      most: how many bytes the programs may have in all.
    """

    def __init__(self, folder: Path, most: int = LARGEST) -> None:
        self._path, self._most = folder, most  # JAX reads _path

    def get(self, key: str) -> bytes | None:
        """Returns the program that JAX has put under a key; None if there is none, or a damaged one, which it drops."""
        file = self._file(key)
        try:
            content = file.read_bytes()
        except OSError:
            return None
        program, checksum = content[:-CHECKSUM], content[-CHECKSUM:]
        if _checksum(program) == checksum:
            with suppress(OSError):
                os.utime(file)  # many disks note no time of access
            return program
        warn_once(f"compiled programs in {self._path} are damaged: they are compiled again, and kept anew.")
        with suppress(OSError):
            file.unlink()
        return None

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program under a key, in place of one that is there: JAX could not load that."""
        part = None
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(dir=self._path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(value + _checksum(value))
            os.replace(part, self._file(key))
            drop_oldest(self._path, self._most)
        except OSError as error:
            if part is not None:
                with suppress(OSError):
                    os.unlink(part)
            tell_not_kept(self._path, error)

    def _file(self, key: str) -> Path:
        return self._path / f"{key}.program"


def usable(folder: Path) -> bool:
    """Returns whether programs can be kept in a folder, which it makes; tells if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # On a GPU XLA writes files of its own there, and does not compile where it cannot.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
    except OSError as error:
        tell_not_kept(folder, error)
        return False
    return True


def install(folder: Path) -> None:
    """Has JAX keep compiled programs in a folder, which is that of its options, from now on."""
    compilation_cache.reset_cache()  # JAX looks for the folder once, when it first compiles
    internals: Any = import_module("jax._src.compilation_cache")
    interface = getattr(internals, "CacheInterface", None)
    if hasattr(internals, "_cache") and getattr(interface, "__abstractmethods__", None) == {"get", "put"}:
        internals._cache = ProgramCache(folder)
    else:
        warn_once(
            f"compilation_cache: jax {jax.__version__} keeps compiled programs in another way than hpjax knows. Those "
            f"in {folder} are not bounded in size, and damaged ones are compiled in every run."
        )


def drop_oldest(folder: Path, most: int) -> None:
    """Deletes the files of a folder that were not used for longest, so that the others have at most so many bytes."""
    found = []
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # another process may drop it, too
            stat = file.stat()
            if S_ISREG(stat.st_mode):
                found.append((stat.st_mtime, stat.st_size, file))
    size = sum(each for _, each, _ in found)
    for _, each, file in sorted(found):
        if size <= most:
            break
        file.unlink(missing_ok=True)
        size -= each


def tell_not_kept(folder: Path, error: OSError) -> None:
    """Warns once that compiled programs cannot be kept in a folder, and why."""
    warn_once(
        f"compiled programs are not kept for the next run: {error.strerror or error}: {folder}. Free space on its "
        "disk, set XDG_CACHE_HOME to a folder that can be written, or write "
        'jax.config.update("jax_enable_compilation_cache", False).'
    )


def _checksum(program: bytes) -> bytes:
    return hashlib.blake2b(program, digest_size=CHECKSUM).digest()
