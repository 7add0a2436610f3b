"""The lanes of one group on their devices, as the host handles them: which are live, their slots, their results."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.core.arrays import Array, Bools, Floats, Ints
from hpjax.core.hparams import Hparams
from hpjax.core.keys import lane_keys
from hpjax.core.program import Arrays
from hpjax.engine import layout, sharding
from hpjax.engine.compile import Compiled
from hpjax.engine.host_lanes import Slot, copy_of_rows, lane_of, with_lanes, with_values
from hpjax.engine.lane_shards import LaneShard, in_slots, shards_of
from hpjax.engine.segment import SegmentConfig, SegmentInputs, SegmentOutputs
from hpjax.engine.shapes import Lane
from hpjax.engine.sharding import HostCopy


class LaneTable(NamedTuple):
    """The lanes that train together in one group, one row a lane.

    Attributes:
      trial: int32 (lanes,), trial ids.
      replicate: int32 (lanes,).
      budget: int32 (lanes,), the number of calls of ``Program.step`` after which each lane ends.
      h: the hyperparameters; leaves of shape (lanes,).
    """

    trial: Ints
    replicate: Ints
    budget: Ints
    h: Hparams


class SegmentResult(NamedTuple):
    """The results of a segment for the lanes that were live when it began, on the host.

    Attributes:
      lanes: int32 (live,), their rows in the ``LaneTable``.
      step: int32 (live,), steps taken.
      diverged: int32 (live,), the step of divergence or ``HEALTHY``.
      done: bool (live,), whether the program calls the trial complete.
      metrics: name to values, (live,); empty where the segment ended without an evaluation.
      iterations: how many chunks all devices computed together.
    """

    lanes: Ints
    step: Ints
    diverged: Ints
    done: Bools
    metrics: dict[str, Floats]
    iterations: int


def rng_groups(replicate: Ints, independent: bool) -> Ints:
    """Returns int32 (lanes,), equal numbers for lanes that may stand in one chunk.

    They are the replicates where lanes of a replicate share their random numbers, and all 0 where each lane draws its
    own.
    """
    return np.zeros_like(replicate) if independent else replicate


class DeviceLanes:
    """The lanes of one group on their devices.

    Live lanes stand in front, and a segment computes only the chunks that hold them; finished lanes keep their state in
    the slots behind.

    Args:
      config: what the program was compiled for.
      compiled: the compiled program.
      table: the lanes.
      seed: the sweep's seed.
      train, valid: the splits, on the devices, whole on each. Where the train split is a stream it is not used: each
        segment brings a block of batches.

    Attributes:
      live: bool (lanes,), which lanes train; ``retire`` and ``clone`` change it.
    """

    def __init__(
        self, config: SegmentConfig, compiled: Compiled, table: LaneTable, seed: int, train: Arrays, valid: Arrays
    ):
        self._config, self._compiled, self._table = config, compiled, table
        self._mesh = compiled.mesh
        self._arrays = config.arrays
        self._splits = train, valid
        self._keys = lane_keys(seed, table.replicate // config.folds, table.trial if config.independent else None)
        self._rng_group = rng_groups(table.replicate, config.independent)
        self.live = np.ones(len(table.trial), bool)
        self._in_flight: list[SegmentOutputs] = []
        self._arrange()
        # Lanes are initialized before the first segment; until then they are zeros.
        self._begun = False
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), compiled.lanes)
        self._lanes: Lane = sharding.put(zeros, self._mesh, compiled.specs)

    @property
    def config(self) -> SegmentConfig:
        """What the program of the lanes was compiled for."""
        return self._config

    @property
    def table(self) -> LaneTable:
        """The lanes, with the hyperparameters that they have now."""
        return self._table

    def _arrange(self) -> None:
        """Lays out the lanes anew and puts the inputs of each slot on the devices. The state is left where it is."""
        table, self._stale = self._table, False
        devices, chunks, width = self._compiled.lanes.step.shape
        self._layout = layout.arrange(self._rng_group, self.live, width, devices, chunks)
        slots = self._layout.slots
        # An empty slot gets the inputs of lane 0. It is computed along with its chunk, but it is not alive, and its
        # result is dropped.
        filled = np.where(slots == layout.EMPTY, 0, slots)
        self._inputs = sharding.put(
            SegmentInputs(
                h=jax.tree.map(lambda x: x[filled], table.h),
                key=self._keys[filled],
                alive=(slots != layout.EMPTY) & self.live[filled],
                budget=table.budget[filled],
                replicate=table.replicate[filled],
                live_chunks=self._layout.live_chunks,
            ),
            self._mesh,
            sharding.SPLIT,
        )

    def offload(self) -> None:
        """Moves the state to the hosts, each that of its devices, until it is needed on the devices again."""
        self._lanes = sharding.copies(self._lanes)

    def advance(self, stop: int, evaluate: bool, block: Arrays = None) -> SegmentResult:
        """Takes the live lanes to step ``stop``, or to their own end before it, in one device call.

        Args:
          stop: the step.
          evaluate: whether they are evaluated there.
          block: where the train split is a stream, the batches of these steps, (block, ...), on the devices.
        """
        self.dispatch(stop, evaluate, block)
        return self.collect()

    def dispatch(
        self,
        stop: int,
        evaluate: bool,
        block: Arrays = None,
        meanwhile: Callable[[Callable[[], bool]], object] = lambda _: None,
    ) -> None:
        """Begins what ``advance`` does without waiting for it.

        One more segment may be dispatched before the first is collected, unless ``moves``: lanes that end in a segment
        do nothing in the next, whether or not the host knows of it by then.

        Args:
          stop, evaluate, block: as for ``advance``.
          meanwhile: called while the devices train, if what evaluates begins to compile only now, with a function that
            says whether it still compiles.
        """
        self._to_devices()
        if self._in_flight:
            # The host has not seen the last segment yet. The devices have, and say themselves which lanes go on.
            inputs = self._inputs._replace(alive=self._in_flight[-1].alive)
        else:
            self._sync_live()
            inputs = self._inputs
        train, splits = self._splits[0], self._config.program.evaluated(*self._splits)
        # The lanes are donated: the old ones' memory is that of the new ones.
        if not self._begun:
            self._lanes, _ = self._compiled.start(self._lanes, inputs)
            self._begun = True
        train = train if self._config.block is None else block
        self._lanes, outputs = self._compiled.advance(self._lanes, inputs, np.int32(stop), train)
        if evaluate:
            if self._compiled.prepare("evaluate"):
                meanwhile(lambda: not self._compiled.evaluate.future.done())
            # Of all lanes that began the segment, those that diverged in it too: what they measure tells of it.
            self._lanes, (evaluation, diverged, alive) = self._compiled.evaluate(self._lanes, inputs, splits)
            outputs = outputs._replace(evaluation=evaluation, diverged=diverged, alive=alive)
        self._in_flight.append(outputs)

    def wait(self) -> None:
        """Waits until the devices of this host computed the segment that was dispatched first; raises what they do."""
        jax.block_until_ready(self._in_flight[0])

    def collect(self) -> SegmentResult:
        """Waits for the segment that was dispatched first, and returns its results for the live lanes."""
        outputs = self._in_flight.pop(0)
        # Without ``alive``: the next segment, dispatched already, may still need it on the devices.
        found: SegmentOutputs = sharding.fetch(outputs._replace(alive=None), self._mesh)
        lanes = np.flatnonzero(self.live).astype(np.int32)
        # No lane has moved since it was dispatched (see ``moves``), so the layout is still that of the outputs.
        at, evaluation = self._layout.positions(len(self.live))[lanes], found.evaluation
        return SegmentResult(
            lanes=lanes,
            step=found.step.reshape(-1)[at],
            diverged=found.diverged.reshape(-1)[at],
            done=np.zeros(len(lanes), bool) if evaluation is None else evaluation.done.reshape(-1)[at],
            metrics={} if evaluation is None else {n: v.reshape(-1)[at] for n, v in evaluation.metrics.items()},
            iterations=int(found.iterations.sum()),
        )

    def retire(self, lanes: Sequence[int] | Ints) -> None:
        """Ends lanes: they keep their state and cost nothing from the next segment on."""
        if len(lanes) > 0:
            self.live[np.asarray(lanes)] = False
            # The devices get ``live`` before the next segment, not here: with one in flight nothing may move.
            self._stale = True

    @property
    def moves(self) -> bool:
        """Whether lanes change slots before the next segment; all segments must be collected before.

        They do where that spares time: a chunk without a live lane would still be visited, and a device with more live
        chunks than the others would keep them waiting. Moving every time that a lane ends would cost a copy of the
        state for nothing.
        """
        if not self._stale or not self.live.any():
            return False
        devices, _, width = self._layout.slots.shape
        fewer = layout.chunks_needed(self._rng_group[self.live], width, devices) < self._layout.live_chunks.max()
        return bool(fewer) or layout.idle_chunks(self._layout, self.live) > 0

    def _sync_live(self) -> None:
        """Brings the devices up to date with ``live``: moves lanes where that spares time, else masks them."""
        if self.moves:
            before = self._layout
            self._arrange()
            self._move(before.positions(len(self.live)))
        elif self._stale:
            slots = self._layout.slots
            alive = (slots != layout.EMPTY) & self.live[np.where(slots == layout.EMPTY, 0, slots)]
            self._inputs = self._inputs._replace(alive=sharding.put(alive, self._mesh, sharding.SPLIT))
            self._stale = False

    @property
    def _offloaded(self) -> bool:
        return isinstance(self._lanes.step, HostCopy)

    def _to_devices(self) -> None:
        if self._offloaded:
            self._lanes = sharding.put_copies(self._lanes, self._mesh, self._compiled.specs)

    def copy(self, number: int) -> Lane:
        """Returns a lane's state as leaves of type ``HostCopy``, (spans, ...): one for each row of the mesh, all equal.

        With several hosts all must call it.
        """
        slot = self._slots([number])[0]
        if self._offloaded and jax.process_count() == 1:
            return lane_of(self._lanes, slot, self._mesh)
        place = np.array([slot[0], np.ravel_multi_index(slot[1:], self._layout.slots.shape[1:])], np.int32)
        offloaded = self._offloaded
        self._to_devices()
        found = copy_of_rows(self._compiled.copy(self._lanes, place), self._mesh)
        if offloaded:
            self.offload()
        return found

    def _slots(self, lanes: Iterable[int]) -> list[Slot]:
        at = np.unravel_index(self._layout.positions(len(self.live))[list(lanes)], self._layout.slots.shape)
        return list(zip(*(each.tolist() for each in at), strict=True))

    def clone(self, sources: Mapping[int, int | Lane], points: Hparams) -> None:
        """Makes lanes live with the state of others and new hyperparameters.

        Args:
          sources: for each lane that is replaced, the lane that it clones, as that was before this call; or the state
            itself, where it comes from another wave.
          points: the new hyperparameters; leaves of shape (lanes that are replaced,), in the order of ``sources``.
        """
        targets = np.fromiter(sources, np.int32, len(sources))
        for whole, new in zip(jax.tree.leaves(self._table.h), jax.tree.leaves(points), strict=True):
            whole[targets] = new
        self.live[targets] = True
        before = self._layout.positions(len(self.live))
        self._arrange()
        # One permutation serves both: every lane moves to its new slot, and targets get their source's state. As it
        # gathers from the old slots, a lane may be a source and a target at the same time.
        source = np.arange(len(self.live))
        source[targets] = [lane if isinstance(lane, int) else target for target, lane in sources.items()]
        self._move(before[source])
        foreign = {target: lane for target, lane in sources.items() if not isinstance(lane, int)}
        if foreign:
            self.offload()
            placed = dict(zip(self._slots(foreign), foreign.values(), strict=True))
            self._lanes = with_lanes(self._lanes, placed, self._mesh)

    def write(self, number: int, lanes: Sequence[int], values: Array) -> None:
        """Replaces one array of the state in some lanes.

        Args:
          number: the number of the array.
          lanes: the lanes.
          values: their new arrays, (lanes that are given, ...).
        """
        old: Any = self._lanes.state[number]
        slots: Any = tuple(np.array(self._slots(lanes), np.int32).T)
        new: Any = with_values(sharding.copies(old), slots, values, number, self._arrays, self._mesh)
        if not self._offloaded:
            new = sharding.put_copies(new, self._mesh, self._compiled.specs.state[number])
        state = (*self._lanes.state[:number], new, *self._lanes.state[number + 1 :])
        self._lanes = self._lanes._replace(state=state)

    def _move(self, positions: Ints) -> None:
        """Moves states to the slots of the layout: the state of lane ``i`` comes from flat slot ``positions[i]``."""
        self._to_devices()
        slots = self._layout.slots
        wanted = np.where(slots == layout.EMPTY, 0, positions[slots]).astype(np.int32)
        self._lanes = self._compiled.move(self._lanes, sharding.put(wanted, self._mesh, sharding.SPLIT))

    def snapshot(self) -> list[LaneShard]:
        """Returns what this host holds of the state of every lane, with an array at a time on the host besides."""
        leaves = map(sharding.copies, jax.tree.leaves(self._lanes))
        return shards_of(leaves, self._arrays, self._layout, self._mesh)

    def gathered(self) -> Lane:
        """Returns the state of every lane on the host, in the order of the table; leaves of shape (lanes, ...).

        With several hosts all must call it, and each gets all.
        """
        at = self._layout.positions(len(self.live))
        self._to_devices()
        found: Lane = jax.tree.map(lambda x: layout.in_slots(sharding.fetch(x, self._mesh))[at], self._lanes)
        return found

    def restore(self, shards: Sequence[LaneShard], live: Bools, begun: bool) -> None:
        """Gives every lane the state that ``snapshot`` returned.

        The layout may differ from that at the time of the snapshot: slots change no bit (law 2).

        Args:
          shards: the states, with all that devices of this host get; see ``lane_shards.needs``.
          live: bool (lanes,), ``live`` at the time of the snapshot.
          begun: whether they had been initialized; the same on all hosts.

        Raises:
          RunError: the shards lack something.
        """
        self.live, self._begun = live.copy(), begun
        self._arrange()
        held = in_slots(shards, self._arrays, self._layout, self._mesh)
        lanes: Lane = jax.tree.unflatten(jax.tree.structure(self._compiled.lanes), list(held))
        self._lanes = sharding.put_copies(lanes, self._mesh, self._compiled.specs)
