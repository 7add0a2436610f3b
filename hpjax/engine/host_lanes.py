"""Lanes that wait on the hosts, each host with what its devices held: copying one out, and writing into some."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from hpjax.core.arrays import Array, Ints
from hpjax.engine.lane_shards import LaneArrays, Part, grid
from hpjax.engine.shapes import Lane
from hpjax.engine.sharding import HostCopy

# Row of the mesh, chunk, and lane of the chunk.
Slot = tuple[int, int, int]


def lane_of(lanes: Lane, slot: Slot, mesh: jax.sharding.Mesh) -> Lane:
    """Returns the lane in one slot, for each row of the mesh once, as ``Compiled.copy`` gives it.

    Args:
      lanes: on this host all of them, leaves of type ``HostCopy``: (spans, chunks, width, ...).
      slot: the slot.
      mesh: the devices.
    """
    row, chunk, lane = slot

    def copied(x: HostCopy) -> HostCopy:
        own = [x.parts[device][:, chunk, lane].copy() for device in grid(mesh)[row]]
        parts = {device: own[column] for devices in grid(mesh) for column, device in enumerate(devices)}
        return HostCopy((len(grid(mesh)), *x.shape[3:]), x.dtype, parts)

    found: Lane = jax.tree.map(copied, lanes)
    return found


def copy_of_rows(lane: Lane, mesh: jax.sharding.Mesh) -> Lane:
    """Returns what ``Compiled.copy`` gave as leaves of type ``HostCopy``, of equal rows of the mesh a single copy."""
    columns = {device: column for (_, column), device in np.ndenumerate(grid(mesh))}
    leaves, structure = jax.tree.flatten(lane)
    held = [{shard.device: shard.data for shard in x.addressable_shards} for x in leaves]
    once = jax.device_get([{columns[device]: part for device, part in parts.items()} for parts in held])
    copies = [
        HostCopy(x.shape, np.dtype(x.dtype), {device: np.asarray(own[columns[device]]) for device in parts})
        for x, parts, own in zip(leaves, held, once, strict=True)
    ]
    found: Lane = jax.tree.unflatten(structure, copies)
    return found


def with_lanes(lanes: Lane, new: Mapping[Slot, Lane], mesh: jax.sharding.Mesh) -> Lane:
    """Returns lanes of which some are replaced by copies, which ``lane_of`` or ``Compiled.copy`` gave."""

    def written(old: HostCopy, *copies: HostCopy) -> HostCopy:
        found = _copied(old)
        for row, _, device in _here(found, mesh):
            for (of, *at), copy in zip(new, copies, strict=True):
                if of == row:
                    found.parts[device][(0, *at)] = copy.parts[device][0]
        return found

    replaced: Lane = jax.tree.map(written, lanes, *new.values())
    return replaced


def with_values(
    old: HostCopy, slots: tuple[Ints, Ints, Ints], values: Array, array: int, like: LaneArrays, mesh: jax.sharding.Mesh
) -> HostCopy:
    """Returns an array of lanes with other values in some of them.

    Args:
      old: the array, (spans, chunks, width, ...).
      slots: the lanes that change: rows of the mesh, chunks, and lanes of these.
      values: their values, (lanes that change, ...).
      array: the number of the array.
      like: what the arrays of a lane are.
      mesh: the devices.
    """
    found, (rows, chunks, lanes) = _copied(old), slots
    for row, column, device in _here(found, mesh):
        mine, own = rows == row, Part(column, column + 1, like.of)
        found.parts[device][0, chunks[mine], lanes[mine]] = values[(mine, *like.within(array, own, 0))]
    return found


def _copied(old: HostCopy) -> HostCopy:
    """Returns a copy that can be written to: what was fetched may share the memory of a device."""
    new = {id(part): np.array(part) for part in old.parts.values()}
    return HostCopy(old.shape, old.dtype, {device: new[id(part)] for device, part in old.parts.items()})


def _here(copy: HostCopy, mesh: jax.sharding.Mesh) -> Iterator[tuple[int, int, Any]]:
    """Yields row, column and device of what this host holds."""
    for (row, column), device in np.ndenumerate(grid(mesh)):
        if device in copy.parts:
            yield row, column, device
