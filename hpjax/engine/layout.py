"""Which lane stands in which slot: live lanes in front, lanes that share random numbers in one chunk. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpjax.core.arrays import Ints, ceil_div

EMPTY = -1


class Layout(NamedTuple):
    """Where the lanes of a group stand.

    Attributes:
      slots: int32 (devices, chunks, width), the number of the lane in each slot, or ``EMPTY``.
      live_chunks: int32 (devices,), how many leading chunks of each device hold live lanes.
    """

    slots: Ints
    live_chunks: Ints

    def positions(self, lanes: int) -> Ints:
        """int32 (lanes,): the flat slot of each lane."""
        flat = self.slots.reshape(-1)
        where = np.full(lanes, EMPTY, np.int32)
        taken = np.flatnonzero(flat != EMPTY)
        where[flat[taken]] = taken
        return where


def chunks_needed(rng_group: Ints, width: int, devices: int) -> int:
    """How many chunks each device needs so that every lane has a slot in a chunk of its rng_group."""
    counts = np.unique(rng_group, return_counts=True)[1]
    return ceil_div(int(np.sum(ceil_div(counts, width))), devices)


def most_trials(chunks: Callable[[int], int], fitting: int | None, trials: int) -> int:
    """How many of so many trials to compute together, in as few and as equal waves as ``fitting`` chunks allow.

    Args:
      chunks: of a number of trials, how many chunks a device they need.
      fitting: how many chunks fit on a device, None for any number.
      trials: how many there are.
    """
    waves = 1
    while fitting is not None and waves < trials and chunks(ceil_div(trials, waves)) > fitting:
        waves += 1
    return ceil_div(trials, waves)


def arrange(rng_group: Ints, live: NDArray[np.bool_], width: int, devices: int, chunks: int) -> Layout:
    """Places live lanes in front, balanced over the devices; the rest fills what is left.

    The live lanes of a chunk have the same rng_group, so that they share their noise and their batch. Lanes
    keep their given order among those of their rng_group.

    Args:
      rng_group: int32 (lanes,), equal numbers for lanes that share their rng_group: the replicate of each, or all equal
        where every lane draws for itself.
      live: bool (lanes,).
      width: lanes a chunk.
      devices: devices that share the lanes.
      chunks: chunks a device; ``chunks_needed`` of all lanes.
    """
    front: list[Sequence[int]] = []
    for number in np.unique(rng_group[live]):
        lanes = np.flatnonzero(live & (rng_group == number))
        front += [lanes[at : at + width].tolist() for at in range(0, len(lanes), width)]
    slots = np.full((devices, chunks, width), EMPTY, np.int32)
    live_chunks = np.zeros(devices, np.int32)
    for i, members in enumerate(front):
        device, chunk = i % devices, i // devices
        slots[device, chunk, : len(members)] = members
        live_chunks[device] += 1
    flat = slots.reshape(-1)
    rest = np.flatnonzero(~live)
    flat[np.flatnonzero(flat == EMPTY)[: len(rest)]] = rest
    return Layout(slots, live_chunks)


def idle_chunks(layout: Layout, live: NDArray[np.bool_]) -> int:
    """How many of the chunks that devices compute hold no live lane any more."""
    filled = (layout.slots != EMPTY) & live[np.where(layout.slots == EMPTY, 0, layout.slots)]
    computed = np.arange(layout.slots.shape[1]) < layout.live_chunks[:, None]
    return int((computed & ~filled.any(axis=2)).sum())
