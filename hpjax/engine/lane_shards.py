"""What one host holds of the lanes of a group: some of them or, where a lane spans several hosts, parts of them.

Checkpoints and final states are written of these, so that no host gathers what the devices of others hold.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from hpjax.core.arrays import Array, Ints
from hpjax.core.errors import RunError
from hpjax.engine.layout import EMPTY, Layout
from hpjax.engine.shapes import ProgramShapes, lane_shapes
from hpjax.engine.sharding import DATA, HostCopy

# The axis of an array that is not split.
WHOLE = -1


class Part(NamedTuple):
    """Some of the devices that a lane spans: those from ``begin`` to ``end``, without it, of ``of``."""

    begin: int
    end: int
    of: int


class LaneShard(NamedTuple):
    """What one host holds of some lanes.

    Attributes:
      lanes: which, their rows in the table, ascending; int32 (lanes,).
      part: the devices of each lane whose values these are, a ``Part`` as int32 (3,).
      arrays: the leaves of the engine's ``Lane``, each (lanes, ...), of split ones the part. An array that is not split
        is where the first device of a lane is, and (0, ...) elsewhere.
    """

    lanes: Ints
    part: Ints
    arrays: tuple[Array, ...]

    @classmethod
    def whole(cls, arrays: Iterable[Array]) -> "LaneShard":
        """Returns all lanes of a table, whole, from the leaves of ``Lane``, each (lanes, ...)."""
        found = tuple(arrays)
        return cls(np.arange(len(found[0]), dtype=np.int32), np.array([0, 1, 1], np.int32), found)

    def of(self, rows: Ints) -> "LaneShard":
        """Returns the shard of a table that has only these rows, ascending, of the lanes' table."""
        mine = np.isin(self.lanes, rows)
        lanes = np.searchsorted(rows, self.lanes[mine]).astype(np.int32)
        return self._replace(lanes=lanes, arrays=tuple(x[mine] if len(x) else x for x in self.arrays))


class LaneArrays(NamedTuple):
    """What the arrays of a lane, the leaves of ``Lane``, are, and how the devices that it spans split them.

    Attributes:
      shapes: ``ShapeDtypeStruct``s of them.
      axes: for each the axis along which it is split, or ``WHOLE``.
      of: how many devices a lane spans.
    """

    shapes: tuple[jax.ShapeDtypeStruct, ...]
    axes: tuple[int, ...]
    of: int

    @classmethod
    def of_program(cls, shapes: ProgramShapes, partition: Sequence[PartitionSpec], of: int) -> "LaneArrays":
        """Returns those of a program whose state ``of`` devices split so, a ``PartitionSpec`` for each array."""
        leaves = jax.tree.leaves(lane_shapes(shapes))  # those of the state come first
        axes = [tuple(spec).index(DATA) if DATA in spec else WHOLE for spec in partition]
        return cls(tuple(leaves), (*axes, *(WHOLE,) * (len(leaves) - len(axes))), of)

    def shape(self, array: int, part: Part) -> tuple[int, ...]:
        """Returns the shape of a part of an array."""
        shape, axis = list(self.shapes[array].shape), self.axes[array]
        if axis != WHOLE:
            shape[axis] = shape[axis] // self.of * (part.end - part.begin)
        return tuple(shape)

    def within(self, array: int, part: Part, begin: int) -> tuple[slice, ...]:
        """Returns where a part is among the values of an array from device ``begin`` on, behind the axis of lanes."""
        axis = self.axes[array]
        if axis == WHOLE:
            return ()
        length = self.shapes[array].shape[axis] // self.of
        return (*(slice(None),) * axis, slice((part.begin - begin) * length, (part.end - begin) * length))

    def part(self, shard: LaneShard) -> Part:
        """Returns the part of a shard, counted in the devices that a lane spans here."""
        found = Part(*shard.part.tolist())
        return Part(0, self.of, self.of) if found == (0, 1, 1) else found

    def check(self, shard: LaneShard, lanes: int) -> None:
        """Raises ``RunError`` unless a shard, of which anything may be wrong, is one of a table of so many lanes."""
        part, known = self.part(shard), shard.lanes
        if not (part.of == self.of and 0 <= part.begin < part.end <= part.of):
            raise RunError(f"it holds the part {shard.part.tolist()} of lanes that {self.of} devices share")
        if len(known) and not (known[0] >= 0 and known[-1] < lanes and (np.diff(known) > 0).all()):
            raise RunError(f"its lanes are not some of {lanes}")
        if len(shard.arrays) != len(self.shapes):
            raise RunError(f"its lanes have {len(shard.arrays)} arrays, and must have {len(self.shapes)}")
        for array, (found, like) in enumerate(zip(shard.arrays, self.shapes, strict=True)):
            wanted = self.shape(array, part)
            held = len(found) in ({len(known)} if self.axes[array] != WHOLE else {len(known), 0})
            if not held or found.shape[1:] != wanted or found.dtype != like.dtype:
                raise RunError(
                    f"array {array} of {len(known)} lanes is {found.dtype} {found.shape}, and must be {like.dtype} "
                    f"{(len(known), *wanted)}"
                )


def part_here(mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """Returns which of so many equal parts of a lane's devices are this host's; 0 and 1 where they are no such part."""
    parts = [part for _, part in _rows_here(mesh)]
    length = parts[0].end - parts[0].begin
    if len(parts) > 1 or parts[0].begin % length or parts[0].of % length:
        return 0, 1
    return parts[0].begin // length, parts[0].of // length


def grid(mesh: jax.sharding.Mesh) -> Array:
    """Returns the devices of a mesh, (lanes, devices of each)."""
    found: Array = mesh.devices.reshape(len(mesh.devices), -1)
    return found


def needs(layout: Layout, mesh: jax.sharding.Mesh) -> list[tuple[Ints, Part]]:
    """Returns which lanes of a layout devices of this host hold, ascending, and which part of them."""
    return [(_lanes_in(layout, rows), part) for rows, part in _rows_here(mesh)]


def _rows_here(mesh: jax.sharding.Mesh) -> list[tuple[list[int], Part]]:
    """Returns rows of a mesh of which this host has devices, together with others of which it has the same ones."""
    here = np.vectorize(lambda device: device.process_index)(grid(mesh)) == jax.process_index()
    found: dict[Part, list[int]] = {}
    for row, mine in enumerate(here):
        for begin, end in np.flatnonzero(np.diff(mine, prepend=False, append=False)).reshape(-1, 2).tolist():
            found.setdefault(Part(begin, end, here.shape[1]), []).append(row)
    return [(rows, part) for part, rows in found.items()]


def _lanes_in(layout: Layout, rows: Sequence[int]) -> Ints:
    slots = np.sort(layout.slots[rows], axis=None)
    found: Ints = slots[slots != EMPTY]
    return found


def shards_of(copies: Iterable[HostCopy], like: LaneArrays, layout: Layout, mesh: jax.sharding.Mesh) -> list[LaneShard]:
    """Returns what this host holds of lanes in their slots.

    Args:
      copies: the leaves of ``Lane``, (spans, chunks, width, ...), one after the other.
      like: what they are.
      layout: the slots.
      mesh: the devices.
    """
    here = _rows_here(mesh)
    found: list[list[Array]] = [[] for _ in here]
    for array, copy in enumerate(copies):
        for (rows, part), arrays in zip(here, found, strict=True):
            lanes = _lanes_in(layout, rows)
            if like.axes[array] == WHOLE:  # it is with the first device of each lane
                lanes, part = (lanes if part.begin == 0 else lanes[:0]), Part(0, 1, part.of)
            values = np.empty((len(lanes), *like.shape(array, part)), copy.dtype)
            for row in rows if len(lanes) else ():
                slots = layout.slots[row].reshape(-1)
                taken = np.flatnonzero(slots != EMPTY)
                where = np.searchsorted(lanes, slots[taken])
                for column in range(part.begin, part.end):
                    own = Part(column, column + 1, part.of)
                    held = copy.parts[grid(mesh)[row, column]].reshape(len(slots), *like.shape(array, own))
                    values[(where, *like.within(array, own, part.begin))] = held[taken]
            arrays.append(values)
    return [
        LaneShard(_lanes_in(layout, rows), np.array(part, np.int32), tuple(arrays))
        for (rows, part), arrays in zip(here, found, strict=True)
    ]


def in_slots(
    shards: Sequence[LaneShard], like: LaneArrays, layout: Layout, mesh: jax.sharding.Mesh
) -> Iterator[HostCopy]:
    """Yields the leaves of ``Lane`` in the slots of a layout, as ``shards_of`` takes them.

    Raises:
      RunError: the shards lack something that devices of this host hold.
    """
    wanted = [Assembly(lanes, part, like) for lanes, part in needs(layout, mesh)]
    for assembly in wanted:
        for shard in shards:
            assembly.add(shard)
    own = [assembly.shard() for assembly in wanted]
    for array, shape in enumerate(like.shapes):
        parts: dict[jax.Device, Array] = {}
        for (rows, part), shard in zip(_rows_here(mesh), own, strict=True):
            for row in rows:
                slots = layout.slots[row].reshape(-1)
                filled = slots[slots != EMPTY]
                # Empty slots of a chunk are computed, too: with a lane's state, a loop in ``step`` ends for them as for
                # it. A row without any lane is not.
                at = np.searchsorted(shard.lanes, np.where(slots == EMPTY, filled[0], slots)) if len(filled) else None
                for column, device in enumerate(grid(mesh)[row, part.begin : part.end].tolist(), part.begin):
                    if like.axes[array] == WHOLE and column > part.begin:
                        parts[device] = parts[grid(mesh)[row, part.begin]]
                        continue
                    one = Part(column, column + 1, part.of)
                    sizes = (1, *layout.slots.shape[1:], *like.shape(array, one))
                    taken: Any = (at, *like.within(array, one, part.begin))
                    values = np.zeros(sizes, shape.dtype) if at is None else shard.arrays[array][taken]
                    parts[device] = values.reshape(sizes)
        yield HostCopy((*layout.slots.shape, *shape.shape), np.dtype(shape.dtype), parts)


class Assembly:
    """Puts a shard together from others.

    Args:
      lanes: which lanes are wanted, ascending; int32 (lanes,).
      part: which part of them.
      like: what their arrays are.
    """

    def __init__(self, lanes: Ints, part: Part, like: LaneArrays) -> None:
        self._lanes, self._part, self._like = lanes, part, like
        self._same: LaneShard | None = None
        count, parts = len(lanes), part.end - part.begin
        # Memory that is not written to takes none.
        self._values = [np.empty((count, *like.shape(i, part)), shape.dtype) for i, shape in enumerate(like.shapes)]
        self._filled = [np.zeros((count, 1 if axis == WHOLE else parts), bool) for axis in like.axes]

    @property
    def complete(self) -> bool:
        """Whether all that is wanted was found."""
        return self._same is not None or all(filled.all() for filled in self._filled)

    def add(self, shard: LaneShard) -> None:
        """Takes from a shard what is wanted."""
        like, there = self._like, self._like.part(shard)
        whole = all(len(x) == len(self._lanes) for x in shard.arrays)
        if whole and there == self._part and np.array_equal(shard.lanes, self._lanes):
            self._same = shard  # without a copy
            return
        _, mine, theirs = np.intersect1d(self._lanes, shard.lanes, assume_unique=True, return_indices=True)
        both = Part(max(self._part.begin, there.begin), min(self._part.end, there.end), self._part.of)
        for array, (values, filled) in enumerate(zip(self._values, self._filled, strict=True)):
            split = like.axes[array] != WHOLE
            if (split and both.begin >= both.end) or not len(shard.arrays[array]):
                continue
            own: Any = (mine, *like.within(array, both, self._part.begin))
            other: Any = (theirs, *like.within(array, both, there.begin))
            values[own] = shard.arrays[array][other]
            begin = both.begin - self._part.begin
            filled[mine, slice(begin, begin + both.end - both.begin) if split else slice(None)] = True

    def shard(self) -> LaneShard:
        """Returns the shard, with all of its arrays.

        Raises:
          RunError: something was in no shard.
        """
        if not self.complete:
            raise RunError("some of its lanes are missing")
        return self._same or LaneShard(self._lanes, np.array(self._part, np.int32), tuple(self._values))
