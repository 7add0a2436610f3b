"""Which lane stands in which slot: live lanes in front, each chunk of one replicate. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
EMPTY = -1


class Layout(NamedTuple):
    """Where the lanes of a group stand.

    Attributes:
      slots: int32 (devices, chunks, width), the number of the lane in each slot, or ``EMPTY``.
      replicate: int32 (devices, chunks), the replicate that the live lanes of each chunk share.
      live_chunks: int32 (devices,), how many leading chunks of each device hold live lanes.
    """

    slots: Ints
    replicate: Ints
    live_chunks: Ints

    def positions(self, lanes: int) -> Ints:
        """int32 (lanes,): the flat slot of each lane."""
        flat = self.slots.reshape(-1)
        where = np.full(lanes, EMPTY, np.int32)
        taken = np.flatnonzero(flat != EMPTY)
        where[flat[taken]] = taken
        return where


def chunks_needed(replicates: Ints, width: int, devices: int) -> int:
    """How many chunks each device needs so that every lane has a slot in a chunk of its replicate."""
    counts = np.unique(replicates, return_counts=True)[1]
    return -(-int(np.sum(-(-counts // width))) // devices)


def arrange(replicates: Ints, live: NDArray[np.bool_], width: int, devices: int, chunks: int) -> Layout:
    """Places live lanes in front, balanced over the devices; the rest fills what is left.

    The live lanes of a chunk share a replicate, so that they share their noise and their batch. Lanes
    keep their given order within a replicate.

    Args:
      replicates: int32 (lanes,), the replicate of each lane.
      live: bool (lanes,).
      width: lanes a chunk.
      devices: devices that share the lanes.
      chunks: chunks a device; ``chunks_needed`` of all lanes.
    """
    front: list[Sequence[int]] = []
    of_chunk: list[int] = []
    for replicate in np.unique(replicates[live]):
        lanes = np.flatnonzero(live & (replicates == replicate))
        for at in range(0, len(lanes), width):
            front.append(lanes[at : at + width].tolist())
            of_chunk.append(int(replicate))
    slots = np.full((devices, chunks, width), EMPTY, np.int32)
    replicate_of = np.zeros((devices, chunks), np.int32)
    live_chunks = np.zeros(devices, np.int32)
    for i, (members, replicate) in enumerate(zip(front, of_chunk, strict=True)):
        device, chunk = i % devices, i // devices
        slots[device, chunk, : len(members)] = members
        replicate_of[device, chunk] = replicate
        live_chunks[device] += 1
    flat = slots.reshape(-1)
    rest = np.flatnonzero(~live)
    flat[np.flatnonzero(flat == EMPTY)[: len(rest)]] = rest
    return Layout(slots, replicate_of, live_chunks)
