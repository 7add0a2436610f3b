"""Checkpoints: cuts through a running sweep, written beside it, each with digests of its own."""

import hashlib
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpjax.core.errors import RunError
from hpjax.core.format import size
from hpjax.results.store.validation import memory, read_json

FOLDER = "checkpoints"
KEPT = 2
# The next one waits until the last one took no more than this share of the time since.
SHARE = 0.03


class Cut(NamedTuple):
    """All that a run needs to go on from where it was.

    Attributes:
      about: numbers and names, as JSON.
      arrays: name to array.
    """

    about: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, about: dict[str, Any], parts: "Mapping[str, Cut]") -> "Cut":
        """One of several."""
        arrays = {f"{name}/{n}": a for name, each in parts.items() for n, a in each.arrays.items()}
        return cls(about | {"parts": {name: each.about for name, each in parts.items()}}, arrays)

    def part(self, name: str) -> "Cut":
        """One of those that it was made of.

        Raises:
          RunError: it was made without.
        """
        if name not in self.about["parts"]:
            raise RunError(f"the checkpoint lacks {name}: it is damaged, or of another sweep.")
        start = f"{name}/"
        return Cut(
            self.about["parts"][name], {n.removeprefix(start): a for n, a in self.arrays.items() if n.startswith(start)}
        )


class Checkpoints:
    """The checkpoints of a run directory, the last two of them.

    Args:
      directory: of the run.
      seconds: between cuts, or more where they are dear; 0 for one after every event, whatever it costs.
    """

    def __init__(self, directory: Path, seconds: float) -> None:
        import orbax.checkpoint as ocp  # takes a second

        self._ocp, self._seconds = ocp, seconds
        self._folder = (directory / FOLDER).absolute()
        # One host writes, with what it gathered from all: Orbax must not wait for the others.
        alone = ocp.options.MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="hpjax")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, enable_async_checkpointing=False, multiprocessing_options=alone, create=False
        )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except Exception as error:  # whatever odd files make Orbax say
            raise RunError(f"{self._folder} cannot be used: {_first_line(error)}. Delete it.") from None
        # Nor ask whether to preempt: hosts count these questions, and each must ask equally often.
        self._manager.reached_preemption = lambda step: False
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._number = max(self._manager.all_steps(), default=-1)
        self._last, self._took = time.monotonic(), 0.0

    def due(self, decided: bool) -> bool:
        """Whether it is time for another; ``decided`` where a scheduler just did."""
        since = time.monotonic() - self._last
        if self._seconds == 0:
            return True
        return (decided or since >= self._seconds) and self._idle() and SHARE * since >= self._took

    def _idle(self) -> bool:
        return self._writing is None or self._writing.done()

    def save(self, cut: Cut, took: float) -> None:
        """Writes a cut in the background, after the one before is written.

        Args:
          cut: what to write.
          took: seconds that it took to make it.

        Raises:
          RunError: that one could not be written.
        """
        self.wait()
        self._number += 1
        self._last = time.monotonic()
        self._writing = self._writer.submit(self._write, self._number, cut, took)

    def _write(self, number: int, cut: Cut, took: float) -> None:
        begun, args = time.monotonic(), self._ocp.args
        # Orbax stores no empty arrays; their shapes say all of them.
        empty = {name: [list(a.shape), str(a.dtype)] for name, a in cut.arrays.items() if a.size == 0}
        full = {name: a for name, a in cut.arrays.items() if a.size > 0}
        about = {"about": cut.about, "empty": empty, "digests": digests(full)}
        self._manager.save(number, args=args.Composite(state=args.StandardSave(full), meta=args.JsonSave(about)))
        self._manager.wait_until_finished()
        self._took = took + time.monotonic() - begun

    def numbers(self) -> list[int]:
        """The numbers of the checkpoints that are there."""
        return sorted(self._manager.all_steps())

    def latest(self, fits: Callable[[Cut], None]) -> Cut | None:
        """The newest cut that is whole and fits, None where there is none; says which ones are not.

        Args:
          fits: raises ``RunError`` where a cut is not of this sweep.
        """
        args = self._ocp.args
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                self._weigh(number)
                found = self._manager.restore(
                    number, args=args.Composite(state=args.StandardRestore(), meta=args.JsonRestore())
                )
                arrays = {name: np.asarray(a) for name, a in found["state"].items()}
                wrong = [n for n, d in digests(arrays).items() if d != found["meta"]["digests"].get(n)]
                lost = found["meta"]["digests"].keys() - arrays.keys()
                if not wrong and not lost:
                    empty = {n: _empty(shape, dtype) for n, (shape, dtype) in found["meta"]["empty"].items()}
                    cut = Cut(found["meta"]["about"], arrays | empty)
                    fits(cut)
                    return cut
                reason = f"{', '.join(sorted([*wrong, *lost]))} is not what was written"
            except Exception as error:  # whatever a damaged file makes Orbax say
                reason = f"it cannot be read: {_first_line(error)}"
            warnings.warn(f"checkpoint {self._folder / str(number)}: {reason}. It is passed over.", stacklevel=2)
        return None

    def _weigh(self, number: int) -> None:
        """Makes sure, before anything is restored, that a cut is of arrays in its own files that fit into memory."""
        folder = self._manager.directory / str(number) / "state"
        written = read_json(Path(folder) / "_METADATA")
        # All arrays in one OCDBT database, whose files TensorStore seeks nowhere else. Without it Orbax would read
        # each array from wherever its name leads, other types from files of their own.
        types = {leaf["value_metadata"]["value_type"] for leaf in written["tree_metadata"].values()}
        if written["use_ocdbt"] is not True or not types <= {"np.ndarray", "jax.Array"}:
            raise ValueError(f"its arrays are not kept as a run keeps them ({', '.join(map(repr, sorted(types)))})")
        needed = 0
        handler = self._ocp.StandardCheckpointHandler()
        try:
            found = handler.metadata(folder).tree
        finally:
            handler.close()
        for name, array in found.items():
            # A chunk is read as a whole, and a crafted one may be larger than its array.
            if any(n > max(m, 1) for n, m in zip(array.storage.chunk_shape, array.shape, strict=True)):
                raise ValueError(f"{name} has chunks of {array.storage.chunk_shape} for a shape of {array.shape}")
            needed += math.prod(array.shape) * np.dtype(array.dtype).itemsize
        if needed > memory():
            raise ValueError(f"its arrays take {size(needed)}, more than the memory of this host")

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
                    f"the checkpoint in {self._folder} could not be written: {_first_line(error)}."
                ) from None

    def remove(self) -> None:
        """Deletes them all, for a run that is finished."""
        self.close()
        forget(self._folder.parent)

    def close(self) -> None:
        """Waits until all is written."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            try:
                self._manager.close()
            except Exception as error:  # what could not be written, once more
                raise RunError(f"{self._folder} could not be written: {_first_line(error)}.") from None


def forget(directory: Path) -> None:
    """Deletes the checkpoints of a run directory."""
    shutil.rmtree(directory / FOLDER, ignore_errors=True)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _empty(shape: list[int], dtype: str) -> NDArray[Any]:
    if 0 not in shape:
        raise ValueError(f"an empty array has the shape {shape}")
    return np.zeros(shape, dtype)


def digests(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Of each array a digest of its bytes, shape and dtype."""
    found = {}
    for name, array in arrays.items():
        whole = hashlib.blake2b(f"{array.shape}{array.dtype}".encode(), digest_size=16)
        whole.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        found[name] = whole.hexdigest()
    return found
