"""Final states, in a directory or in memory: read without unpickling, and no more of them than a caller needs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.results.store.files import WRITABLE, write_text
from hpjax.results.store.validation import Int64, convert, damaged, parse_json, read_json

KeyPath = tuple[str | Int64, ...]
# Path and array of every leaf of a state: of one lane, or stacked, (lanes, ...).
Leaves = Sequence[tuple[KeyPath, Array]]

SHARED = "shared"
TREE, LANES = "tree.json", "lanes.npy"


class Leaf(Struct, frozen=True, forbid_unknown_fields=True):
    """What ``tree.json`` says of a leaf: its path in nested dicts, lists and tuples, and the name of its dtype."""

    path: KeyPath
    dtype: str


class States:
    """The final states of a run, wave by wave.

    Args:
      folder: where they are; None keeps them in memory.
      follows: whether another host writes them.
    """

    def __init__(self, folder: Path | None, follows: bool = False) -> None:
        self._folder, self._follows = folder, follows
        self._kept: dict[int, tuple[Array, Leaves]] = {}
        self._shared: Leaves = ()

    def add(self, wave: int, lanes: Array, leaves: Leaves) -> None:
        """Keeps the final states of a wave.

        Args:
          wave: the number of the wave.
          lanes: int32 (lanes, 2), trial and replicate of each row.
          leaves: path and stacked array, (lanes, ...), of every leaf.

        Raises:
          RunError: they cannot be written.
        """
        if self._folder is None:
            self._kept[wave] = (lanes, leaves)
        else:
            self._write(self._folder / f"wave-{wave}", lanes, leaves)

    def share(self, leaves: Leaves) -> None:
        """Keeps the arrays that belong to the state of every lane, and that none of them changes.

        Args:
          leaves: path and array of each.

        Raises:
          RunError: they cannot be written.
        """
        if self._folder is None:
            self._shared = leaves
        elif leaves and not (self._folder / SHARED / TREE).exists():
            self._write(
                self._folder / SHARED, np.zeros((1, 2), np.int32), [(path, array[None]) for path, array in leaves]
            )

    def shared(self) -> list[tuple[KeyPath, Array]]:
        """Returns path and array of what ``share`` kept.

        Raises:
          RunError: they cannot be read.
        """
        if self._folder is None or not (self._folder / SHARED / TREE).exists():
            return list(self._shared)
        return [(path, np.array(array[0])) for path, array in read_states(self._folder / SHARED)[1]]

    def _write(self, folder: Path, lanes: Array, leaves: Leaves) -> None:
        if self._follows:
            return
        tree = _text([Leaf(path, str(array.dtype)) for path, array in leaves])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for i, (_, array) in enumerate(leaves):
                np.save(folder / f"{i}.npy", array)
            np.save(folder / LANES, lanes)
            write_text(folder / TREE, tree)
        except OSError as error:
            raise RunError(f"final states cannot be written: {error}. {WRITABLE}") from None

    def of(self, wave: int) -> tuple[Array, Leaves]:
        """Returns the final states of a wave in a directory, as ``add`` got them; memory-mapped.

        Raises:
          RunError: they cannot be read.
        """
        assert self._folder is not None
        return read_states(self._folder / f"wave-{wave}")

    def has(self, wave: int) -> bool:
        """Returns whether the final states of a wave are here, all of them."""
        return wave in self._kept if self._folder is None else (self._folder / f"wave-{wave}" / TREE).exists()

    def lane(self, wave: int, trial: int, replicate: int) -> list[tuple[KeyPath, Array]]:
        """Returns path and array of every leaf of one lane's final state; reads nothing of the other lanes.

        Raises:
          RunError: they cannot be read.
        """
        try:
            lanes, leaves = self._kept[wave] if self._folder is None else self.of(wave)
        except RunError as error:
            raise RunError(f"the final state of trial {trial} cannot be read: {error}") from None
        row = np.flatnonzero((lanes[:, 0] == trial) & (lanes[:, 1] == replicate))
        if len(row) != 1:
            raise RunError(f"no final state of trial {trial}, replicate {replicate}.")
        return [(path, np.array(array[row[0]])) for path, array in leaves]


def _text(tree: Sequence[Leaf]) -> str:
    """Returns the leaves of a state as JSON."""
    return json.dumps(msgspec.to_builtins(tree), indent=1) + "\n"


def check_readable(paths: Sequence[KeyPath]) -> None:
    """Raises unless a state with leaves at these paths can be read once it is written.

    Raises:
      RunError: it cannot; names the path.
    """
    _tree(TREE, parse_json(TREE, _text([Leaf(path, "float32") for path in paths])))


def _tree(where: str, found: Any) -> tuple[Leaf, ...]:
    """Returns the leaves that a JSON value lists; raises ``RunError`` unless they can lie side by side."""
    tree = convert(where, found, tuple[Leaf, ...])
    _check_paths(where, tree)
    return tree


def read_states(folder: Path) -> tuple[Array, Leaves]:
    """Returns the final states of a wave, memory-mapped.

    Returns:
      int32 (lanes, 2), trial and replicate of each row; and path and stacked array, (lanes, ...), of every leaf.

    Raises:
      RunError: they cannot be read.
    """
    try:
        tree = _tree(str(folder / TREE), read_json(folder / TREE))
        lanes = _memory_mapped(folder / LANES, "int32", (None, 2))
        leaves = [
            (leaf.path, _memory_mapped(folder / f"{i}.npy", leaf.dtype, (len(lanes),))) for i, leaf in enumerate(tree)
        ]
    except RunError:
        raise
    except Exception as error:  # NumPy raises many types for a damaged file
        raise RunError(f"{folder}: {error}. Restore it from a copy.") from None
    return lanes, leaves


def _memory_mapped(path: Path, dtype: str, shape: tuple[int | None, ...]) -> Array:
    """Returns an array of that dtype and first sizes, None for any; its numbers stay in the file until read."""
    import ml_dtypes

    if dtype not in _dtypes():
        raise ValueError(f"{dtype!r} is no dtype of a state")
    wanted = np.dtype(getattr(ml_dtypes, dtype)) if hasattr(ml_dtypes, dtype) else np.dtype(dtype)
    array: Array = np.lib.format.open_memmap(path, mode="r")
    raw = array.dtype.kind == "V" and array.dtype.itemsize == wanted.itemsize
    begins = array.shape[: len(shape)]
    fits = len(begins) == len(shape) and all(n in (m, None) for n, m in zip(shape, begins, strict=True))
    if not fits or not (raw or array.dtype == wanted):
        raise ValueError(f"{path} is {array.dtype} {array.shape}, and must be {dtype} of shape {shape} ...")
    return array if array.dtype == wanted else array.view(wanted)


def _dtypes() -> set[str]:
    """Returns the dtypes that states may have: numbers of NumPy, and of ml_dtypes, which NumPy stores as raw bytes."""
    import ml_dtypes

    own = {name for name, kind in vars(ml_dtypes).items() if isinstance(kind, type) and issubclass(kind, np.generic)}
    return own | {np.dtype(code).name for code in "?bhilqBHILQefdFD"}


def _check_paths(where: str, tree: Sequence[Leaf]) -> None:
    """Raises unless the leaves can lie side by side in nested dicts: no path twice, and none through another leaf."""
    found: set[KeyPath] = set()
    through = {leaf.path[:i] for leaf in tree for i in range(len(leaf.path))}
    for number, leaf in enumerate(tree):
        if leaf.path in found or leaf.path in through:
            raise damaged(where, f"[{number}].path", leaf.path, "must be of this leaf alone, and lead through no other")
        found.add(leaf.path)
