"""The layout of lanes in slots: live lanes in front, lanes that share random numbers in one chunk. Pure functions."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Bools, Ints, ceil_div

EMPTY = -1


class Layout(NamedTuple):
    """The slot of each lane of a group.

    Attributes:
      slots: int32 (spans, chunks, width), the number of the lane in each slot, or ``EMPTY``.
      live_chunks: int32 (spans,), how many leading chunks of each span hold live lanes.
    """

    slots: Ints
    live_chunks: Ints

    def positions(self, lanes: int) -> Ints:
        """Returns the flat slot of each of ``lanes`` lanes, int32 (lanes,); ``EMPTY`` for one that has none."""
        flat = self.slots.reshape(-1)
        where = np.full(lanes, EMPTY, np.int32)
        taken = np.flatnonzero(flat != EMPTY)
        where[flat[taken]] = taken
        return where


def chunks_needed(rng_group: Ints, width: int, spans: int) -> int:
    """Returns how many chunks each span needs so that every lane has a slot in a chunk of its RNG group.

    Args:
      rng_group: int32 (lanes,), as for ``arrange``.
      width: lanes a chunk.
      spans: devices that share the lanes, or groups of devices that share each of their lanes.
    """
    counts = np.unique(rng_group, return_counts=True)[1]
    return ceil_div(int(np.sum(ceil_div(counts, width))), spans)


def most_trials(chunks: Callable[[int], int], fitting: int | None, trials: int) -> int:
    """Returns how many trials to train together, so that the waves are as few as memory allows, and of equal size.

    Args:
      chunks: a function from a number of trials to the chunks that each device needs for them.
      fitting: how many chunks fit on a device, None for any number.
      trials: how many trials there are.
    """
    waves = 1
    while fitting is not None and waves < trials and chunks(ceil_div(trials, waves)) > fitting:
        waves += 1
    return ceil_div(trials, waves)


def arrange(rng_group: Ints, live: Bools, width: int, spans: int, chunks: int) -> Layout:
    """Returns a layout with live lanes in front, balanced over the spans; the others fill the remaining slots.

    The live lanes of a chunk are of one RNG group, so that they can share their noise and their batch. Lanes of one
    group keep their order.

    Args:
      rng_group: int32 (lanes,), equal numbers for lanes that may stand in one chunk: the replicate of each where trials
        share their random numbers, all equal where every lane draws its own.
      live: bool (lanes,).
      width: lanes a chunk.
      spans: devices that share the lanes, or groups of devices that share each of their lanes.
      chunks: chunks a span; ``chunks_needed`` of all lanes.
    """
    front: list[Sequence[int]] = []
    for number in np.unique(rng_group[live]):
        lanes = np.flatnonzero(live & (rng_group == number))
        front += [lanes[at : at + width].tolist() for at in range(0, len(lanes), width)]
    slots = np.full((spans, chunks, width), EMPTY, np.int32)
    live_chunks = np.zeros(spans, np.int32)
    # Dealt out in turn, so that no span has more than one live chunk more than another.
    for i, members in enumerate(front):
        span, chunk = i % spans, i // spans
        slots[span, chunk, : len(members)] = members
        live_chunks[span] += 1
    flat = slots.reshape(-1)
    # Ended lanes may stand in any slot, beside live ones too, because their state is kept whatever the chunk computes.
    rest = np.flatnonzero(~live)
    flat[np.flatnonzero(flat == EMPTY)[: len(rest)]] = rest
    return Layout(slots, live_chunks)


def idle_chunks(layout: Layout, live: Bools) -> int:
    """Returns how many of the chunks that spans compute hold no live lane; ``live`` is bool (lanes,)."""
    filled = (layout.slots != EMPTY) & live[np.where(layout.slots == EMPTY, 0, layout.slots)]
    computed = np.arange(layout.slots.shape[1]) < layout.live_chunks[:, None]
    return int((computed & ~filled.any(axis=2)).sum())


def in_slots(lanes: Any) -> Any:
    """Returns an array (spans, chunks, width, ...) as (slots, ...), also where it has no elements."""
    return lanes.reshape(math.prod(lanes.shape[:3]), *lanes.shape[3:])
