"""Final states, in a directory or in memory: read without unpickling, and no more of them than is asked for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.results.store.files import write_text
from hpjax.results.store.validation import Field, check, is_whole, read_json


class States:
    """The final states of a run, wave by wave.

    Args:
      folder: where they are; None keeps them in memory.
      follows: whether another host writes them.
    """

    def __init__(self, folder: Path | None, follows: bool = False) -> None:
        self._folder, self._follows = folder, follows
        self._kept: dict[int, tuple[Array, list[tuple[tuple[str | int, ...], Array]]]] = {}

    def add(self, wave: int, lanes: Array, leaves: Sequence[tuple[tuple[str | int, ...], Array]]) -> None:
        """Keeps the final states of a wave.

        Args:
          wave: its number.
          lanes: int32 (lanes, 2), trial and replicate of each row.
          leaves: path and stacked array, (lanes, ...), of every leaf.
        """
        if self._folder is None:
            self._kept[wave] = (lanes, list(leaves))
            return
        if self._follows:
            return
        folder = self._folder / f"wave-{wave}"
        tree = [{"path": list(path), "dtype": str(array.dtype)} for path, array in leaves]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for i, (_, array) in enumerate(leaves):
                np.save(folder / f"{i}.npy", array)
            np.save(folder / "lanes.npy", lanes)
            write_text(folder / "tree.json", json.dumps(tree, indent=1) + "\n")
        except OSError as error:
            raise RunError(f"final states cannot be written: {error}.") from None

    def of(self, wave: int) -> tuple[Array, list[tuple[tuple[str | int, ...], Array]]]:
        """The final states of a wave in a directory, as ``add`` got them; memory-mapped.

        Raises:
          RunError: they cannot be read.
        """
        assert self._folder is not None
        return read_states(self._folder / f"wave-{wave}")

    def lane(self, wave: int, trial: int, replicate: int) -> list[tuple[tuple[str | int, ...], Array]]:
        """Path and array of every leaf of one lane's final state; reads nothing of the others.

        Raises:
          RunError: it is not there (yet).
        """
        if self._folder is not None:
            lanes, leaves = self._opened(wave, trial)
        elif wave in self._kept:
            lanes, leaves = self._kept[wave]
        else:
            raise _running(trial)
        row = np.flatnonzero((lanes[:, 0] == trial) & (lanes[:, 1] == replicate))
        if len(row) != 1:
            raise RunError(f"no final state of trial {trial}, replicate {replicate}.")
        return [(path, np.array(array[row[0]])) for path, array in leaves]

    def _opened(self, wave: int, trial: int) -> tuple[Array, list[tuple[tuple[str | int, ...], Array]]]:
        assert self._folder is not None
        folder = self._folder / f"wave-{wave}"
        if not (folder / "tree.json").exists():
            raise _running(trial)
        try:
            return read_states(folder)
        except RunError as error:
            raise RunError(f"the final state of trial {trial} cannot be read: {error}") from None


def _running(trial: int) -> RunError:
    return RunError(f"the final state of trial {trial} is not there yet: trials that run with it are still running.")


def read_states(folder: Path) -> tuple[Array, list[tuple[tuple[str | int, ...], Array]]]:
    """The final states of a wave, memory-mapped.

    Returns:
      int32 (lanes, 2), trial and replicate of each row; and path and stacked array, (lanes, ...), of every leaf.

    Raises:
      RunError: they cannot be read.
    """
    try:
        tree = read_json(folder / "tree.json")
        check(str(folder / "tree.json"), {"leaves": tree}, {"leaves": LEAVES})
        lanes = _memory_mapped(folder / "lanes.npy", "int32", (None, 2))
        leaves = [
            (tuple(leaf["path"]), _memory_mapped(folder / f"{i}.npy", leaf["dtype"], (len(lanes),)))
            for i, leaf in enumerate(tree)
        ]
    except RunError:
        raise
    except Exception as error:  # whatever a damaged file makes NumPy say
        raise RunError(f"{folder}: {error}.") from None
    return lanes, leaves


def _memory_mapped(path: Path, dtype: str, shape: tuple[int | None, ...]) -> Array:
    """An array of that dtype whose shape begins so; its numbers stay in the file until they are asked for."""
    import ml_dtypes

    if dtype not in _kinds():
        raise ValueError(f"{dtype!r} is no dtype of a state")
    wanted = np.dtype(getattr(ml_dtypes, dtype)) if hasattr(ml_dtypes, dtype) else np.dtype(dtype)
    array: Array = np.lib.format.open_memmap(path, mode="r")
    raw = array.dtype.kind == "V" and array.dtype.itemsize == wanted.itemsize
    begins = array.shape[: len(shape)]
    fits = len(begins) == len(shape) and all(n in (m, None) for n, m in zip(shape, begins, strict=True))
    if not fits or not (raw or array.dtype == wanted):
        raise ValueError(f"{path} is {array.dtype} {array.shape}, and must be {dtype} of shape {shape} ...")
    return array if array.dtype == wanted else array.view(wanted)


def _kinds() -> set[str]:
    """The dtypes that states may have: numbers of NumPy, and of ml_dtypes, which NumPy stores as raw bytes."""
    import ml_dtypes

    own = {name for name, kind in vars(ml_dtypes).items() if isinstance(kind, type) and issubclass(kind, np.generic)}
    return own | {np.dtype(code).name for code in "?bhilqBHILQefdFD"}


def _is_tree(tree: Any) -> bool:
    """Whether ``tree.json`` names leaves that can stand side by side in nested dicts."""
    if not (isinstance(tree, list) and all(isinstance(leaf, dict) for leaf in tree)):
        return False
    paths = [leaf.get("path") for leaf in tree]
    if not all(isinstance(path, list) and all(isinstance(n, str) or is_whole(n) for n in path) for path in paths):
        return False
    found = {tuple(path) for path in paths}
    inner = {path[:i] for path in found for i in range(len(path))}
    return len(found) == len(paths) and not found & inner and all(isinstance(leaf.get("dtype"), str) for leaf in tree)


LEAVES = Field(_is_tree, "a list of leaves with a path of their own and a dtype each")
