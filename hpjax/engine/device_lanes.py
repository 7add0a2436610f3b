"""Lanes of one group on their devices, as the host has them: which are live, where they stand, what they bring."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from hpjax.core.arrays import Ints
from hpjax.core.hparams import Hparams
from hpjax.core.program import Arrays
from hpjax.engine import layout
from hpjax.engine import sharding as spread
from hpjax.engine.compile import Compiled
from hpjax.engine.segment import SegmentConfig, SegmentInputs, SegmentOutputs
from hpjax.engine.shapes import Lane


class InFlight(NamedTuple):
    """A segment that was launched, and may still be computed.

    Attributes:
      emitted: what it tells, on the devices.
      evaluate: whether it ends with an evaluation.
    """

    emitted: SegmentOutputs
    evaluate: bool


class Cohort(NamedTuple):
    """The lanes that enter a group together: arrays of shape (lanes,).

    Attributes:
      trial: int32 trial ids.
      replicate: int32.
      budget: int32, the call of ``step`` after which each ends.
      h: the hyperparameters; leaves of shape (lanes,).
    """

    trial: Ints
    replicate: Ints
    budget: Ints
    h: Hparams


class SegmentResult(NamedTuple):
    """What a segment brought, for the lanes that were live when it began; arrays of shape (live,).

    Attributes:
      lanes: their numbers in the cohort.
      step: steps taken.
      diverged: the step of divergence, or ``HEALTHY``.
      done: bool, whether the program calls its trial complete.
      metrics: name to values, empty where the segment ended without an evaluation.
      iterations: chunks computed by all devices.
    """

    lanes: Ints
    step: Ints
    diverged: Ints
    done: NDArray[np.bool_]
    metrics: dict[str, NDArray[np.floating[Any]]]
    iterations: int


def rng_groups(replicate: Ints, independent: bool) -> Ints:
    """Equal numbers for lanes that may stand in one chunk: those of a replicate, or where each draws for itself all."""
    return np.zeros_like(replicate) if independent else replicate


class DeviceLanes:
    """The lanes of one group on their devices; ``train`` and ``valid`` are there already, whole on each.

    Where the train split is a stream, each segment brings a block of it in its place.

    Finished lanes keep their state behind the live ones, which stand in front: a segment computes the
    chunks of the live ones and no others.
    """

    def __init__(
        self, recipe: SegmentConfig, compiled: Compiled, cohort: Cohort, seed: int, train: Arrays, valid: Arrays
    ):
        self._recipe, self._compiled, self._cohort = recipe, compiled, cohort
        self._mesh = compiled.mesh
        self._fixed = (spread.put(np.int32(seed), self._mesh, spread.WHOLE), train, valid)
        self._rng_group = rng_groups(cohort.replicate, recipe.independent)
        self.live = np.ones(len(cohort.trial), bool)
        self._in_flight: list[InFlight] = []
        self._arrange()
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), compiled.lanes)
        self._lanes: Lane = spread.put(zeros, self._mesh, spread.SPLIT)

    def _arrange(self) -> None:
        cohort, self._stale = self._cohort, False
        devices, chunks, width = self._compiled.lanes.step.shape
        self._layout = layout.arrange(self._rng_group, self.live, width, devices, chunks)
        slots = self._layout.slots
        filled = np.where(slots == layout.EMPTY, 0, slots)
        self._slots = spread.put(
            SegmentInputs(
                jax.tree.map(lambda x: x[filled], cohort.h),
                cohort.trial[filled],
                (slots != layout.EMPTY) & self.live[filled],
                cohort.budget[filled],
                cohort.replicate[filled],
                self._layout.live_chunks,
            ),
            self._mesh,
            spread.SPLIT,
        )

    def offload(self) -> None:
        """Moves the state to the host, until it is needed on the devices again."""
        self._lanes = spread.fetch(self._lanes, self._mesh)

    def advance(self, stop: int, evaluate: bool, block: Arrays = None) -> SegmentResult:
        """Takes the live lanes to step ``stop``, or to their own end before it, in one device call.

        Args:
          stop: the step.
          evaluate: whether they are evaluated there.
          block: of a stream the batches of these steps, on the devices.
        """
        self.dispatch(stop, evaluate, block)
        return self.collect()

    def dispatch(self, stop: int, evaluate: bool, block: Arrays = None) -> None:
        """Begins what ``advance`` does, and does not wait for it; one more may be launched unless ``moves``.

        Lanes that end in a segment do nothing in the next, whether or not the host knows by then.
        """
        self._to_devices()
        if self._in_flight:
            slots = self._slots._replace(alive=self._in_flight[-1].emitted.alive)
        else:
            self._sync_live()
            slots = self._slots
        seed, train, valid = self._fixed
        self._lanes, emitted = self._compiled.segment(
            self._lanes,
            slots,
            np.int32(stop),
            np.bool_(evaluate),
            seed,
            train if self._recipe.block is None else block,
            valid,
        )
        self._in_flight.append(InFlight(emitted, evaluate))

    def collect(self) -> SegmentResult:
        """Waits for what was launched first, and what it brought to the lanes that are live."""
        emitted, evaluate = self._in_flight.pop(0)
        found: SegmentOutputs = spread.fetch(emitted._replace(alive=None), self._mesh)
        lanes = np.flatnonzero(self.live).astype(np.int32)
        at = self._layout.positions(len(self.live))[lanes]
        return SegmentResult(
            lanes,
            found.step.reshape(-1)[at],
            found.diverged.reshape(-1)[at],
            found.evaluation.done.reshape(-1)[at],
            {name: values.reshape(-1)[at] for name, values in found.evaluation.metrics.items()} if evaluate else {},
            int(found.iterations.sum()),
        )

    def retire(self, lanes: Sequence[int] | Ints) -> None:
        """Ends lanes: they keep their state and cost nothing from the next segment on."""
        if len(lanes) > 0:
            self.live[np.asarray(lanes)] = False
            self._stale = True

    @property
    def moves(self) -> bool:
        """Whether lanes change places before the next segment, for which all that is launched must have landed.

        A chunk without a live lane would still be visited, and an uneven device would keep the others waiting.
        """
        if not self._stale or not self.live.any():
            return False
        devices, _, width = self._layout.slots.shape
        fewer = layout.chunks_needed(self._rng_group[self.live], width, devices) < self._layout.live_chunks.max()
        return bool(fewer) or layout.idle_chunks(self._layout, self.live) > 0

    def _sync_live(self) -> None:
        """Has the devices know which lanes are live, and these stand in front."""
        if self.moves:
            before = self._layout
            self._arrange()
            self._move(before.positions(len(self.live)))
        elif self._stale:
            slots = self._layout.slots
            alive = (slots != layout.EMPTY) & self.live[np.where(slots == layout.EMPTY, 0, slots)]
            self._slots = self._slots._replace(alive=spread.put(alive, self._mesh, spread.SPLIT))
            self._stale = False

    def _to_devices(self) -> None:
        if not isinstance(self._lanes.step, jax.Array):
            self._lanes = spread.put(self._lanes, self._mesh, spread.SPLIT)

    def lane(self, number: int) -> Lane:
        """One lane of those that are parked."""
        at = np.unravel_index(self._layout.positions(len(self.live))[number], self._lanes.step.shape)
        found: Lane = jax.tree.map(lambda x: x[at].copy(), self._lanes)
        return found

    def clone(self, sources: Mapping[int, int | Lane], points: Hparams) -> None:
        """Lanes go on, or run again, from the state of others.

        Args:
          sources: lane to the lane whose state it takes over, all at once; or that state itself, where it comes from
            elsewhere.
          points: the hyperparameters that they go on with; leaves of shape (lanes that take over,), in that order.
        """
        targets = np.fromiter(sources, np.int32, len(sources))
        for whole, new in zip(jax.tree.leaves(self._cohort.h), jax.tree.leaves(points), strict=True):
            whole[targets] = new
        self.live[targets] = True
        before = self._layout.positions(len(self.live))
        self._arrange()
        source = np.arange(len(self.live))
        source[targets] = [lane if isinstance(lane, int) else target for target, lane in sources.items()]
        self._move(before[source])
        foreign = {target: lane for target, lane in sources.items() if not isinstance(lane, int)}
        if foreign:
            self._lanes = jax.tree.map(np.array, spread.fetch(self._lanes, self._mesh))
            after = self._layout.positions(len(self.live))
            for target, lane in foreign.items():
                at = np.unravel_index(after[target], self._lanes.step.shape)
                jax.tree.map(lambda x, new, at=at: x.__setitem__(at, new), self._lanes, lane)

    def _move(self, positions: Ints) -> None:
        """Takes each lane's state from that flat slot to where the layout now wants it."""
        self._to_devices()
        slots = self._layout.slots
        wanted = np.where(slots == layout.EMPTY, 0, positions[slots]).astype(np.int32)
        self._lanes = self._compiled.permute(self._lanes, spread.put(wanted, self._mesh, spread.SPLIT))

    def snapshot(self) -> Lane:
        """Every lane of the cohort, on the host; leaves of shape (lanes, ...)."""
        at = self._layout.positions(len(self.live))
        found: Lane = jax.tree.map(lambda x: spread.fetch(x, self._mesh).reshape(-1, *x.shape[3:])[at], self._lanes)
        return found

    def restore(self, lanes: Lane, live: NDArray[np.bool_]) -> None:
        """Makes every lane what it was when ``snapshot`` was called, wherever it then stood; ``live`` as then."""
        self.live = live.copy()
        self._arrange()
        at = self._layout.positions(len(self.live))

        def placed(like: Any, values: NDArray[Any]) -> NDArray[Any]:
            whole = np.zeros(like.shape, like.dtype)
            whole.reshape(-1, *like.shape[3:])[at] = values
            return whole

        host = jax.tree.map(placed, self._compiled.lanes, lanes)
        self._lanes = spread.put(host, self._mesh, spread.SPLIT)
