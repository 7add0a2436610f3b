"""Checkpoints of a running sweep: named arrays, written beside it, each with a digest of its own.

Orbax writes them. Where several hosts train, each writes its own part of every checkpoint: the first with Orbax, which
lets no other host write arrays of its own, and the others in files of NumPy's format. Checkpoints are untrusted: shapes
are checked before anything is allocated, and digests before anything is used.
"""

import math
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.core.format import size
from hpjax.engine.machine import host_memory
from hpjax.results.store.array_files import digests, read_arrays, write_arrays
from hpjax.results.store.files import WRITABLE
from hpjax.results.store.validation import read_json

FOLDER, HOST = "checkpoints", "host-"
KEPT = 2
# The next checkpoint waits until writing the last one took no more than this share of the time since.
SHARE = 0.03

Arrays = dict[str, Array]
Shapes = dict[str, jax.ShapeDtypeStruct]


class Checkpoints:
    """The checkpoints of a run directory, the last two of them, as one of the hosts of the run writes its part of each.

    Args:
      directory: the run directory.
      seconds: the time between checkpoints, more where they are costly; 0 writes one after every event, at any cost.
      host: the number of the host.
      hosts: how many there are.

    Raises:
      RunError: the folder cannot be used.
    """

    def __init__(self, directory: Path, seconds: float, host: int = 0, hosts: int = 1) -> None:
        import orbax.checkpoint as ocp  # takes a second

        self._ocp, self._seconds, self._host, self._hosts = ocp, seconds, host, hosts
        self._folder = (directory / FOLDER).absolute()
        try:
            self._of(host).mkdir(parents=True, exist_ok=True)
            self._manager = _manager(ocp, self._folder, host)
        except Exception as error:  # whatever odd files make Orbax say
            raise RunError(
                f"{self._folder} cannot be used: {_first_line(error)}. Delete it, and run the same command again."
            ) from None
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._number = max(self.numbers(), default=-1)
        self._last, self._took = time.monotonic(), 0.0

    def _of(self, host: int) -> Path:
        """Returns the folder of the parts of a host."""
        return self._folder if host == 0 else self._folder / f"{HOST}{host}"

    def due(self, decided: bool) -> bool:
        """Returns whether it is time for another checkpoint, as far as this host goes.

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
        begun = time.monotonic()
        if self._host == 0:
            self._write_first(number, arrays)
        else:
            folder = self._of(self._host)
            write_arrays(folder / str(number), arrays)
            for old in sorted(_numbers(folder))[:-KEPT]:
                shutil.rmtree(folder / str(old))
        self._took = took + time.monotonic() - begun

    def _write_first(self, number: int, arrays: Arrays) -> None:
        """Writes the part of the first host."""
        args = self._ocp.args
        # Orbax stores no empty arrays; their shapes say all of them.
        empty = {name: [list(a.shape), str(a.dtype)] for name, a in arrays.items() if a.size == 0}
        full = {name: a for name, a in arrays.items() if a.size > 0}
        meta = {"empty": empty, "digests": digests(full), "hosts": self._hosts}
        self._manager.save(number, args=args.Composite(state=args.StandardSave(full), meta=args.JsonSave(meta)))
        self._manager.wait_until_finished()

    def numbers(self) -> list[int]:
        """Returns the numbers of the checkpoints of which a host wrote its part, ascending."""
        return sorted(set().union(*map(_numbers, (self._folder, *self._folder.glob(f"{HOST}*")))))

    def hosts(self, number: int) -> int:
        """Returns how many hosts wrote a checkpoint. Raises an error of any kind where it is damaged."""
        found, most = self._meta(number)["hosts"], 1 + sum(1 for _ in self._folder.glob(f"{HOST}*"))
        if type(found) is not int or not 1 <= found <= most:
            raise RunError(f"it says that {found!r} hosts wrote it, and there are parts of {most}")
        return found

    def _meta(self, number: int) -> Any:
        args = self._ocp.args
        return self._manager.restore(number, args=args.Composite(meta=args.JsonRestore()))["meta"]

    def load(self, host: int, number: int, check: Callable[[Shapes], None]) -> Arrays:
        """Returns the arrays of one host's part of a checkpoint. Raises an error of any kind where it is damaged.

        Args:
          host: the number of the host.
          number: the number of the checkpoint.
          check: raises ``RunError`` unless arrays of these names, shapes and dtypes are a checkpoint of this run.
            It is asked before they are loaded.
        """
        if host > 0:
            return read_arrays(self._of(host) / str(number), check)
        args = self._ocp.args
        shapes, meta = self._shapes(number), self._meta(number)
        empty = {name: _empty(shape, dtype) for name, (shape, dtype) in meta["empty"].items()}
        check(shapes | {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in empty.items()})
        found = self._manager.restore(number, args=args.Composite(state=args.StandardRestore()))["state"]
        arrays = {name: np.asarray(a) for name, a in found.items()}
        digested = digests(arrays)
        wrong = [name for name, digest in meta["digests"].items() if digested.get(name) != digest]
        if wrong or arrays.keys() - meta["digests"].keys():
            raise RunError(f"{', '.join(sorted(wrong)[:9])} is not what was written")
        return arrays | empty

    def forget_after(self, number: int) -> None:
        """Deletes this host's parts of later checkpoints, which not all hosts wrote: they would count as kept ones."""
        for later in _numbers(self._of(self._host)):
            if later > number and self._host == 0:
                self._manager.delete(later)
            elif later > number:
                shutil.rmtree(self._of(self._host) / str(later))

    def why_not(self, number: int, error: Exception) -> str:
        """Returns why a checkpoint cannot be used that raised an error, as a sentence without its stop."""
        reason = str(error) if isinstance(error, RunError) else f"it cannot be read: {_first_line(error)}"
        return f"checkpoint {self._folder / str(number)}: {reason.rstrip('.')}"

    def _shapes(self, number: int) -> Shapes:
        """Returns the shapes that the first part holds, if its arrays are in its own files and fit into memory."""
        folder = self._folder / str(number) / "state"
        written = read_json(folder / "_METADATA")
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


def _numbers(folder: Path) -> set[int]:
    """Returns the numbers of the checkpoints in a folder."""
    return {int(each.name) for each in folder.iterdir() if each.name.isdecimal()}


def _manager(ocp: Any, folder: Path, host: int) -> Any:
    """Returns a manager that a host uses alone."""

    class Manager(ocp.CheckpointManager):  # type: ignore[misc]
        def reached_preemption(self, step: int) -> bool:
            """Returns False: hosts count how often JAX is asked this, and each must ask equally often."""
            return False

    alone = ocp.options.MultiprocessingOptions(
        primary_host=host, active_processes={host}, barrier_sync_key_prefix=f"hpjax {host}"
    )
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
