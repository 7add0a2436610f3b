"""Final states, in a directory or in memory: read without unpickling, and no more of them than a caller needs."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.results.store.array_files import memory_mapped
from hpjax.results.store.files import WRITABLE, write_text
from hpjax.results.store.validation import Int64, NonNegative, Positive, convert, damaged, parse_json, read_json

KeyPath = tuple[str | Int64, ...]
# Path and array of every leaf of a state: of one lane, or stacked, (lanes, ...).
Leaves = Sequence[tuple[KeyPath, Array]]

SHARED = "shared"
TREE, LANES, SHARDS = "tree.json", "lanes.npy", "shards.json"


class Split(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of an array that devices split: along ``axis`` parts ``begin`` to ``end``, without it, of ``of``."""

    axis: NonNegative
    begin: NonNegative
    end: Positive
    of: Positive


class Leaf(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What ``tree.json`` says of a leaf: its path in nested dicts, lists and tuples, its dtype, and if it is a part."""

    path: KeyPath
    dtype: str
    split: Split | None = None


class StateShard(NamedTuple):
    """Final states of some lanes of a wave or, where lanes span several hosts, parts of them.

    Attributes:
      lanes: int32 (lanes, 2), trial and replicate of each row.
      leaves: path and stacked array, (lanes, ...), of every leaf that is there.
      splits: for each of these which part of a lane's array it has; None for all of it.
    """

    lanes: Array
    leaves: Leaves
    splits: Sequence[Split | None]


class States:
    """The final states of a run, wave by wave.

    Args:
      folder: where they are; None keeps them in memory.
      host: the number of the host, each of which writes those of its devices.
    """

    def __init__(self, folder: Path | None, host: int = 0) -> None:
        self._folder, self._host = folder, host
        self._kept: dict[int, Sequence[StateShard]] = {}
        self._shared: Leaves = ()

    def add(self, wave: int, shards: Sequence[StateShard], alone: bool = True) -> None:
        """Keeps final states of a wave.

        Args:
          wave: the number of the wave.
          shards: what this host has of them.
          alone: whether that is all; else ``complete`` ends the wave once every host has added its own.

        Raises:
          RunError: they cannot be written.
        """
        if self._folder is None:
            self._kept[wave] = shards
            return
        folder = self._folder / f"wave-{wave}"
        if self._host == 0:  # what an earlier run wrote, with more or fewer hosts, is not read any more
            for index in (TREE, SHARDS):
                (folder / index).unlink(missing_ok=True)
        if alone and len(shards) == 1:
            self._write(folder, shards[0])
        else:
            for name, shard in zip(_names(self._host, len(shards)), shards, strict=True):
                self._write(folder / name, shard)

    def complete(self, wave: int, lanes: Array, counts: Sequence[int]) -> None:
        """Records that every host has added its final states of a wave.

        Args:
          wave: the number of the wave.
          lanes: int32 (lanes, 2), trial and replicate of each lane of the wave.
          counts: how many shards each host added.

        Raises:
          RunError: that cannot be written.
        """
        if self._folder is not None:
            names = [name for host, each in enumerate(counts) for name in _names(host, each)]
            try:
                np.save(self._folder / f"wave-{wave}" / LANES, lanes)
                write_text(self._folder / f"wave-{wave}" / SHARDS, json.dumps(names) + "\n")
            except OSError as error:
                raise RunError(f"final states cannot be written: {error}. {WRITABLE}") from None

    def share(self, leaves: Leaves) -> None:
        """Keeps the arrays that belong to the state of every lane, and that none of them changes.

        Args:
          leaves: path and array of each.

        Raises:
          RunError: they cannot be written.
        """
        if self._folder is None:
            self._shared = leaves
        elif leaves and self._host == 0 and not (self._folder / SHARED / TREE).exists():
            stacked = [(path, array[None]) for path, array in leaves]
            self._write(self._folder / SHARED, StateShard(np.zeros((1, 2), np.int32), stacked, [None] * len(leaves)))

    def shared(self) -> list[tuple[KeyPath, Array]]:
        """Returns path and array of what ``share`` kept.

        Raises:
          RunError: they cannot be read.
        """
        if self._folder is None or not (self._folder / SHARED / TREE).exists():
            return list(self._shared)
        return [(path, np.array(array[0])) for path, array in _read(self._folder / SHARED).leaves]

    def _write(self, folder: Path, shard: StateShard) -> None:
        tree = [Leaf(path, str(array.dtype), s) for (path, array), s in zip(shard.leaves, shard.splits, strict=True)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for i, (_, array) in enumerate(shard.leaves):
                np.save(folder / f"{i}.npy", array)
            np.save(folder / LANES, shard.lanes)
            write_text(folder / TREE, _text(tree))
        except OSError as error:
            raise RunError(f"final states cannot be written: {error}. {WRITABLE}") from None

    def of(self, wave: int) -> Sequence[StateShard]:
        """Returns the final states of a wave, as the hosts added them; from a directory memory-mapped.

        Raises:
          RunError: they cannot be read.
        """
        return self._kept[wave] if self._folder is None else read_states(self._folder / f"wave-{wave}")

    def table(self, wave: int) -> Array:
        """Returns trial and replicate of each lane of a wave in a directory, int32 (lanes, 2).

        Raises:
          RunError: they cannot be read.
        """
        assert self._folder is not None
        try:
            return np.array(memory_mapped(self._folder / f"wave-{wave}" / LANES, "int32", (None, 2)))
        except Exception as error:  # NumPy raises many types for a damaged file
            raise RunError(
                f"the final states of wave {wave} cannot be read: {error}. Restore them from a copy."
            ) from None

    def has(self, wave: int) -> bool:
        """Returns whether the final states of a wave are here, all of them."""
        if self._folder is None:
            return wave in self._kept
        return any((self._folder / f"wave-{wave}" / name).exists() for name in (TREE, SHARDS))

    def lane(self, wave: int, trial: int, replicate: int) -> list[tuple[KeyPath, Array]]:
        """Returns path and array of every leaf of one lane's final state; reads nothing of the other lanes.

        Raises:
          RunError: they cannot be read.
        """
        try:
            shards = self.of(wave)
        except RunError as error:
            raise RunError(f"the final state of trial {trial} cannot be read: {error}") from None
        found: dict[KeyPath, list[tuple[Split | None, Array]]] = {}
        for shard in shards:
            row = np.flatnonzero((shard.lanes[:, 0] == trial) & (shard.lanes[:, 1] == replicate))
            for (path, array), split in zip(shard.leaves, shard.splits, strict=True):
                found.setdefault(path, []).extend((split, np.array(array[at])) for at in row)
        whole = {path: _joined(parts) for path, parts in found.items()}
        missing = [path for path, array in whole.items() if array is None]
        if missing or not any(map(len, found.values())):
            raise RunError(f"no final state of trial {trial}, replicate {replicate}.")
        return [(path, array) for path, array in whole.items() if array is not None]


def _names(host: int, count: int) -> list[str]:
    """Returns the names of the folders in which a host keeps so many shards of a wave."""
    return [f"host-{host}-{i}" for i in range(count)]


def _joined(parts: Sequence[tuple[Split | None, Array]]) -> Array | None:
    """Returns an array of which these are the parts, in any order; None where they do not make it, each once."""
    known = [(split, array) for split, array in parts if split is not None]
    if len(known) != len(parts) or not parts:
        return parts[0][1] if len(parts) == 1 else None
    known.sort(key=lambda each: each[0].begin)
    first = known[0][0]
    ends = [0, *(split.end for split, _ in known)]
    same = all(
        (split.axis, split.of, split.begin) == (first.axis, first.of, at)
        for (split, _), at in zip(known, ends, strict=False)
    )
    try:
        return np.concatenate([array for _, array in known], axis=first.axis) if same and ends[-1] == first.of else None
    except ValueError:  # of shapes that do not fit
        return None


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


def read_states(folder: Path) -> list[StateShard]:
    """Returns the final states of a wave, memory-mapped.

    Raises:
      RunError: they cannot be read.
    """
    if not (folder / SHARDS).exists():
        return [_read(folder)]
    names = convert(str(folder / SHARDS), read_json(folder / SHARDS), tuple[str, ...])
    if wrong := [name for name in names if not re.fullmatch(r"host-\d+-\d+", name)]:
        raise damaged(str(folder / SHARDS), "", wrong[0], "must be names of its folders, such as host-0-0")
    return [_read(folder / name) for name in names]


def _read(folder: Path) -> StateShard:
    """Returns what one folder holds, memory-mapped; raises as ``read_states`` does."""
    try:
        tree = _tree(str(folder / TREE), read_json(folder / TREE))
        lanes = memory_mapped(folder / LANES, "int32", (None, 2))
        leaves = [
            (leaf.path, memory_mapped(folder / f"{i}.npy", leaf.dtype, (len(lanes),))) for i, leaf in enumerate(tree)
        ]
    except RunError:
        raise
    except Exception as error:  # NumPy raises many types for a damaged file
        raise RunError(f"{folder}: {error}. Restore it from a copy.") from None
    return StateShard(lanes, leaves, [leaf.split for leaf in tree])


def _check_paths(where: str, tree: Sequence[Leaf]) -> None:
    """Raises unless the leaves can lie side by side in nested dicts: no path twice, and none through another leaf."""
    found: set[KeyPath] = set()
    through = {leaf.path[:i] for leaf in tree for i in range(len(leaf.path))}
    for number, leaf in enumerate(tree):
        if leaf.path in found or leaf.path in through:
            raise damaged(where, f"[{number}].path", leaf.path, "must be of this leaf alone, and lead through no other")
        found.add(leaf.path)
