"""Checkpoints of a running sweep: named arrays, written beside it, each with a digest of its own.

Checkpoints are untrusted: shapes are checked before anything is allocated, and digests before anything is used.
"""

import hashlib
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.core.format import size
from hpjax.engine.machine import host_memory
from hpjax.results.store.files import WRITABLE
from hpjax.results.store.validation import read_json

FOLDER = "checkpoints"
KEPT = 2
# The next checkpoint waits until writing the last one took no more than this share of the time since.
SHARE = 0.03

Arrays = dict[str, Array]
Shapes = dict[str, jax.ShapeDtypeStruct]
T = TypeVar("T")


class Checkpoints:
    """The checkpoints of a run directory, the last two of them.

    Args:
      directory: the run directory.
      seconds: the time between checkpoints, more where they are costly; 0 writes one after every event, at any cost.

    Raises:
      RunError: the folder cannot be used.
    """

    def __init__(self, directory: Path, seconds: float) -> None:
        import orbax.checkpoint as ocp  # takes a second

        self._ocp, self._seconds = ocp, seconds
        self._folder = (directory / FOLDER).absolute()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._manager = _manager(ocp, self._folder)
        except Exception as error:  # whatever odd files make Orbax say
            raise RunError(
                f"{self._folder} cannot be used: {_first_line(error)}. Delete it, and run the same command again."
            ) from None
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._number = max(self._manager.all_steps(), default=-1)
        self._last, self._took = time.monotonic(), 0.0

    def due(self, decided: bool) -> bool:
        """Returns whether it is time for another checkpoint.

        Args:
          decided: whether a scheduler just decided, which is a good moment.
        """
        since = time.monotonic() - self._last
        if self._seconds == 0:
            return True
        idle = self._writing is None or self._writing.done()
        return (decided or since >= self._seconds) and idle and SHARE * since >= self._took

    def save(self, arrays: Arrays, took: float) -> None:
        """Writes a checkpoint in the background, after the one before is written.

        Args:
          arrays: name to array; not written to any more by the caller.
          took: seconds that it took to gather them, which count as costs of the checkpoint.

        Raises:
          RunError: the one before could not be written.
        """
        self.wait()
        self._number += 1
        self._last = time.monotonic()
        self._writing = self._writer.submit(self._write, self._number, arrays, took)

    def _write(self, number: int, arrays: Arrays, took: float) -> None:
        """Writes a checkpoint, in the thread of the writer."""
        begun, args = time.monotonic(), self._ocp.args
        # Orbax stores no empty arrays; their shapes say all of them.
        empty = {name: [list(a.shape), str(a.dtype)] for name, a in arrays.items() if a.size == 0}
        full = {name: a for name, a in arrays.items() if a.size > 0}
        meta = {"empty": empty, "digests": digests(full)}
        self._manager.save(number, args=args.Composite(state=args.StandardSave(full), meta=args.JsonSave(meta)))
        self._manager.wait_until_finished()
        self._took = took + time.monotonic() - begun

    def numbers(self) -> list[int]:
        """Returns the numbers of the checkpoints that are there, ascending."""
        return sorted(self._manager.all_steps())

    def latest(self, check: Callable[[Shapes], None], read: Callable[[Arrays], T]) -> T | None:
        """Returns the newest checkpoint that can be used, None where there is none; warns of those that cannot.

        Args:
          check: raises ``RunError`` unless arrays of these names, shapes and dtypes are a checkpoint of this run.
            It is asked before they are loaded.
          read: makes of the arrays what they were saved from; raises ``RunError`` for values that cannot be.
        """
        for number in reversed(self.numbers()):
            try:
                return read(self._load(number, check))
            except Exception as error:  # whatever a damaged file makes Orbax say
                reason = str(error) if isinstance(error, RunError) else f"it cannot be read: {_first_line(error)}"
            path, reason = self._folder / str(number), reason.rstrip(".")
            warnings.warn(f"checkpoint {path}: {reason}. It is passed over.", stacklevel=2)
        return None

    def _load(self, number: int, check: Callable[[Shapes], None]) -> Arrays:
        """Returns the arrays of a checkpoint. Raises an error of any kind where it is damaged."""
        args = self._ocp.args
        shapes = self._shapes(number)
        meta = self._manager.restore(number, args=args.Composite(meta=args.JsonRestore()))["meta"]
        empty = {name: _empty(shape, dtype) for name, (shape, dtype) in meta["empty"].items()}
        check(shapes | {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in empty.items()})
        found = self._manager.restore(number, args=args.Composite(state=args.StandardRestore()))["state"]
        arrays = {name: np.asarray(a) for name, a in found.items()}
        digested = digests(arrays)
        wrong = [name for name, digest in meta["digests"].items() if digested.get(name) != digest]
        if wrong or arrays.keys() - meta["digests"].keys():
            raise RunError(f"{', '.join(sorted(wrong)[:9])} is not what was written")
        return arrays | empty

    def _shapes(self, number: int) -> Shapes:
        """Returns the shapes that a checkpoint holds, if its arrays are in its own files and fit into memory."""
        folder = self._manager.directory / str(number) / "state"
        written = read_json(Path(folder) / "_METADATA")
        # All arrays in one OCDBT database, whose files TensorStore seeks nowhere else. Without it Orbax would read
        # each array from wherever its name leads, other types from files of their own.
        types = {leaf["value_metadata"]["value_type"] for leaf in written["tree_metadata"].values()}
        if written["use_ocdbt"] is not True or not types <= {"np.ndarray", "jax.Array"}:
            raise ValueError(f"its arrays are not kept as a run keeps them ({', '.join(map(repr, sorted(types)))})")
        handler = self._ocp.StandardCheckpointHandler()
        try:
            found = handler.metadata(folder).tree
        finally:
            handler.close()
        for name, array in found.items():
            # A chunk is read as a whole, and a crafted one may be larger than its array.
            if any(n > max(m, 1) for n, m in zip(array.storage.chunk_shape, array.shape, strict=True)):
                raise ValueError(f"{name} has chunks of {array.storage.chunk_shape} for a shape of {array.shape}")
        needed = sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in found.values())
        if needed > host_memory():
            raise ValueError(f"its arrays take {size(needed)}, more than the memory of this host")
        return {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in found.items()}

    def wait(self) -> None:
        """Waits until what was saved is written.

        Raises:
          RunError: it could not be.
        """
        if self._writing is not None:
            try:
                self._writing.result()
            except Exception as error:
                raise RunError(
                    f"the checkpoint in {self._folder} could not be written: {_first_line(error)}. {WRITABLE}"
                ) from None

    def remove(self) -> None:
        """Deletes them all, for a run that is finished."""
        self.close()
        forget(self._folder.parent)

    def close(self) -> None:
        """Waits until all is written.

        Raises:
          RunError: it could not be.
        """
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            try:
                self._manager.close()
            except Exception as error:  # what could not be written, once more
                raise RunError(f"{self._folder} could not be written: {_first_line(error)}. {WRITABLE}") from None


def forget(directory: Path) -> None:
    """Deletes the checkpoints of a run directory."""
    shutil.rmtree(directory / FOLDER, ignore_errors=True)


def digests(arrays: Mapping[str, Array]) -> dict[str, str]:
    """Returns of each array a digest of its bytes, shape and dtype."""
    found = {}
    for name, array in arrays.items():
        digest = hashlib.blake2b(f"{array.shape}{array.dtype}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        found[name] = digest.hexdigest()
    return found


def _manager(ocp: Any, folder: Path) -> Any:
    """Returns a manager that one host uses alone, with what it gathered from all."""

    class Manager(ocp.CheckpointManager):  # type: ignore[misc]
        def reached_preemption(self, step: int) -> bool:
            """Returns False: hosts count how often JAX is asked this, and each must ask equally often."""
            return False

    alone = ocp.options.MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="hpjax")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEPT, enable_async_checkpointing=False, multiprocessing_options=alone, create=False
    )
    return Manager(folder, options=options)


def _first_line(error: Exception) -> str:
    """Returns the first line of an error's message without its stop; the error's type where it has no message."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _empty(shape: list[int], dtype: str) -> Array:
    """Returns an array without elements; raises ``ValueError`` where one of this shape would have some."""
    if 0 not in shape:
        raise ValueError(f"an empty array has the shape {shape}")
    return np.zeros(shape, dtype)
