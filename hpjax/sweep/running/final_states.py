"""Records the final states of a wave: each host those that its devices hold."""

import jax
import numpy as np

from hpjax.core.arrays import Ints
from hpjax.engine import distributed
from hpjax.engine.device_lanes import DeviceLanes
from hpjax.engine.lane_shards import WHOLE, LaneShard
from hpjax.engine.padding.program import without_padding
from hpjax.engine.shapes import ProgramShapes
from hpjax.results.store.final_states import Split, StateShard
from hpjax.results.store.run_store import Store


def record_states(store: Store, wave: int, lanes: DeviceLanes, shapes: ProgramShapes) -> None:
    """Records the final states of a wave; all hosts must call it.

    Args:
      store: the store; where it is in memory each host keeps all states.
      wave: the number of the wave.
      lanes: its lanes.
      shapes: the shapes of their own program, which may be smaller than the one that trained them.

    Raises:
      RunError: they cannot be written.
    """
    ids = np.stack([lanes.table.trial, lanes.table.replicate], axis=1).astype(np.int32)
    if store.directory is None:
        whole = LaneShard.whole(jax.tree.leaves(lanes.gathered()))
        store.states.add(wave, [_of_host(whole, lanes, shapes, ids)])
        return
    shards = [_of_host(shard, lanes, shapes, ids) for shard in lanes.snapshot()]

    def add() -> str:
        store.states.add(wave, shards, alone=not distributed.several())
        return str(len(shards))

    counts = list(map(int, distributed.on_each(add)))
    if distributed.several():
        distributed.on_writer(lambda: store.states.complete(wave, ids, counts))


def _of_host(shard: LaneShard, lanes: DeviceLanes, shapes: ProgramShapes, ids: Ints) -> StateShard:
    """Returns states as the store takes them, from what a host holds of lanes."""
    like = lanes.config.arrays
    part = like.part(shard)
    arrays = list(shard.arrays[: len(shapes.names)])
    if part.end - part.begin == part.of:
        arrays = without_padding(arrays, shapes)
    leaves, splits = [], []
    for name, array, axis in zip(shapes.names, arrays, like.axes, strict=False):
        if len(array) == len(shard.lanes):  # else another host has it
            leaves.append((name, array))
            whole = axis == WHOLE or part.end - part.begin == part.of
            splits.append(None if whole else Split(axis, *part))
    return StateShard(ids[shard.lanes], leaves, splits)
