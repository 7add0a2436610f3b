"""A wave: lanes of one group that are on their devices together, from their first step to their final states."""

import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.data.stream import Position
from hpjax.engine.compile import AT_ONCE, Compiled
from hpjax.engine.device_errors import translating_device_errors
from hpjax.engine.device_lanes import DeviceLanes, SegmentResult
from hpjax.engine.shapes import Lane
from hpjax.engine.tracing import kinds_of, stack_hparams
from hpjax.results.store.rows import Change
from hpjax.schedulers import Clone
from hpjax.sweep.planning.plan import Group, next_stop
from hpjax.sweep.running.context import RunContext
from hpjax.sweep.running.events import CompileFinished, CompileStarted, Event, Resumed, SegmentFinished, WidthHalved
from hpjax.sweep.running.outcome import Outcome
from hpjax.sweep.running.prefetch import BlockPrefetcher
from hpjax.sweep.running.state import WaveState


class Snapshot(NamedTuple):
    """A lane on the host, and the optimizer steps that it took."""

    lane: Lane
    taken: int


class InFlight(NamedTuple):
    """A segment that was dispatched, and is not read yet.

    Attributes:
      stop: the step at which it ends.
      evaluate: whether it ends with an evaluation.
      since: when it was dispatched, by ``time.perf_counter``.
      waited: seconds that it waited for the batches of a data stream.
    """

    stop: int
    evaluate: bool
    since: float
    waited: float


class Wave:
    """The lanes of some trials of one group, on their devices.

    Args:
      context: what it shares with the other waves of the run.
      group: the trials' group.
      state: where it begins, or goes on.

    Attributes:
      group: the trials' group.
      next: the wave after it, whose program is compiled meanwhile.

    Raises:
      RunError: the state is not of lanes of this group.
    """

    def __init__(self, context: RunContext, group: Group, state: WaveState) -> None:
        self._context, self._plan, self.group, self._state = context, context.plan, group, state
        state.check(self._plan.shapes[group.number])
        self._cohort = context.programs.cohort(self._plan, group, state.trials, context.points)
        self._microsteps = np.array([self._plan.lengths[t].microsteps for t in self._cohort.trial], np.int32)
        self._compiled: Future[Compiled] | None = None
        self._lanes: DeviceLanes | None = None
        self._blocks: BlockPrefetcher | None = None
        self._in_flight: list[InFlight] = []
        self._collected = 0.0
        self.next: Wave | None = None
        self._shared: dict[str, Any] = {
            "group": group.number,
            "groups": len(self._plan.own_groups),
            "round": self._plan.round_of(min(state.trials)),
            "lanes": self.size,
        }

    @property
    def number(self) -> int:
        """The number of the wave, in the order of all."""
        return self._state.number

    @property
    def size(self) -> int:
        """How many lanes there are."""
        return len(self._cohort.trial)

    @property
    def live(self) -> Any:
        """Which lanes run, bool (lanes,)."""
        return self._state.live

    @property
    def finished(self) -> bool:
        """Whether its final states are recorded."""
        return self._state.finished

    @property
    def trials(self) -> set[int]:
        """All trials."""
        return set(self._cohort.trial.tolist())

    @property
    def live_trials(self) -> set[int]:
        """The trials of which a lane runs."""
        return set(self._cohort.trial[self.live].tolist())

    @property
    def lost_trials(self) -> set[int]:
        """The trials of which a lane diverged."""
        return set(self._cohort.trial[self._state.lost].tolist())

    @property
    def runs_ahead(self) -> bool:
        """Whether its lanes are, or may be, at a later step than events told: it has no state to save now."""
        return bool(self._in_flight)

    @property
    def computed(self) -> int:
        """Lane-steps that it has computed, as far as they are of use."""
        return int((self._state.taken * self._microsteps).sum())

    def taken(self, trial: int) -> int:
        """Returns the optimizer steps that a trial took."""
        return int(self._state.taken[self._cohort.trial == trial].max())

    def state(self) -> WaveState:
        """Returns all that it needs to go on from here."""
        # A wave that was resumed may not have begun again: it still has the lanes that it was given.
        lanes = self._state.lanes if self._lanes is None else tuple(jax.tree.leaves(self._lanes.snapshot()))
        stream = self._state.stream if self._blocks is None else self._blocks.position(self._state.step).packed()
        return self._state._replace(lanes=lanes, stream=stream)

    def advance(self, until: int | None = None) -> Iterator[Event]:
        """Trains until that step, an evaluation, or to the end; compiles first where that is still to do.

        Where waves take turns it then waits on the host.
        """
        if self.finished:
            return
        if self._lanes is None:
            yield from self._begin()
        assert self._lanes is not None
        while self.live.any() and (until is None or self._state.step < until):
            yield self._segment(self._lanes, until)
        while self._in_flight:  # dispatched before it was known that no lane would go on
            self._collect(self._lanes)
        last = int(self._cohort.budget.max())
        while until is not None and self._state.step < min(until, last):
            # Without live lanes; should any run again, it is as if these evaluations had passed them by.
            step, evaluated = next_stop(self._state.step, last, self.group.eval_every, None, None)
            self._state = self._state._replace(step=step, evaluations=self._state.evaluations + evaluated)
        if self._plan.offloads:
            self._lanes.offload()
            if self._blocks is not None:
                self._blocks.offload()

    def finish(self) -> None:
        """Records the final states, once all lanes ended and none of them will run again."""
        if self._lanes is None:
            return
        leaves = jax.tree_util.tree_leaves_with_path(self._lanes.snapshot().state)
        ids = np.stack([self._cohort.trial, self._cohort.replicate], axis=1)
        self._context.store.states.add(self.number, ids, [(_path(path), leaf) for path, leaf in leaves])
        self._state = self._state._replace(finished=True)
        self.drop()

    def drop(self) -> None:
        """Lets go of what it has on the devices, which is of no use any more."""
        if self._blocks is not None:
            self._blocks.close()
        self._lanes, self._blocks, self._in_flight = None, None, []

    def stop(self, trials: Collection[int]) -> dict[int, Change]:
        """Ends the lanes of these trials; returns their numbers, with the change of each."""
        ended = [lane for lane in np.flatnonzero(self.live).tolist() if int(self._cohort.trial[lane]) in trials]
        if ended:
            assert self._lanes is not None
            with translating_device_errors(self.group.number):
                self._lanes.retire(ended)
            self._state = self._state._replace(live=self._lanes.live.copy())
            if self._plan.offloads:
                self._lanes.offload()
        ids = self._ids() if ended else []
        return {lane: Change(*ids[lane], "stopped", int(self._state.taken[lane])) for lane in ended}

    def lanes_of(self, trial: int) -> dict[int, Snapshot]:
        """Returns what a trial's lanes hold while they wait on the host, by replicate."""
        assert self._lanes is not None
        return {
            int(self._cohort.replicate[lane]): Snapshot(self._lanes.lane(lane), int(self._state.taken[lane]))
            for lane in np.flatnonzero(self._cohort.trial == trial).tolist()
        }

    def clone(self, clones: Mapping[int, Clone], from_others: Mapping[int, Mapping[int, Snapshot]]) -> list[Change]:
        """Has trials go on from the states of others, all at the same time; returns the lanes that run again.

        Args:
          clones: trial id to what becomes of it; those of other waves are passed over.
          from_others: trial id to its lanes, of the sources that are in other waves.
        """
        own = {trial: clone for trial, clone in clones.items() if trial in self.trials}
        if not own:
            return []
        assert self._lanes is not None
        ids, taken = self._ids(), self._state.taken.copy()
        lane_of = {id: lane for lane, id in enumerate(ids)}
        sources: dict[int, Any] = {}
        for lane, (trial, replicate) in enumerate(ids):
            if trial not in own:
                continue
            source = own[trial].source
            if (source, replicate) in lane_of:
                sources[lane] = lane_of[source, replicate]
                taken[lane] = self._state.taken[sources[lane]]
            else:
                sources[lane], taken[lane] = from_others[source][replicate]
        points = [own[int(self._cohort.trial[lane])].point for lane in sources]
        again = [lane for lane in sources if not self.live[lane]]
        names = points[0].keys() - self.group.static.keys()
        with translating_device_errors(self.group.number):
            self._lanes.clone(sources, stack_hparams(kinds_of(self._context.spec.space), points, names))
        lost = self._state.lost & ~np.isin(self._cohort.trial, list(own))
        self._state = self._state._replace(taken=taken, live=self._lanes.live.copy(), lost=lost)
        if self._plan.offloads:
            self._lanes.offload()
        return [Change(*ids[lane], "running", int(taken[lane])) for lane in again]

    def spared(self, lanes: Collection[int]) -> int:
        """Returns the calls that lanes which just ended, by their numbers, will not take."""
        return int(np.maximum(self._cohort.budget[list(lanes)] - self._state.step, 0).sum())

    def width_halved(self, lost: int) -> WidthHalved:
        """Returns the event that its group begins anew, with so many lane-steps to compute again."""
        return WidthHalved(lost=lost, **self._shared)

    def resumed(self, done: int, spared: int) -> Resumed:
        """Returns the event that the run goes on here."""
        live = int(self.live.sum())
        return Resumed(step=self._state.step, live=live, lane_steps=done, spared=spared, **self._shared)

    def prepare(self) -> None:
        """Has its program compiled in the background."""
        if self._compiled is None and not self.finished:
            self._compiled = self._context.programs.compile(self._plan, self.group.number, self._cohort.h)

    def _ids(self) -> list[tuple[int, int]]:
        """Returns trial and replicate of each lane."""
        return list(zip(self._cohort.trial.tolist(), self._cohort.replicate.tolist(), strict=True))

    def _begin(self) -> Iterator[Event]:
        """Compiles, and puts the lanes on the devices."""
        context, number, stream = self._context, self.group.number, self._context.spec.stream
        first = number not in context.compiled
        context.compiled.add(number)
        if first:
            yield CompileStarted(**self._shared)
        begun = time.perf_counter()
        if stream is not None and self._state.stream is not None:
            # Before the program is compiled, so that the first block is drawn meanwhile.
            position, steps = Position.unpacked(self._state.stream), int(self._cohort.budget.max())
            self._blocks = BlockPrefetcher(stream, context.programs.mesh, self._state.step, steps, position)
            context.streams.callback(self._blocks.close)
        for wave in islice(self._following(), AT_ONCE):
            wave.prepare()
        assert self._compiled is not None
        with translating_device_errors(number):
            compiled = self._compiled.result()
        seconds = time.perf_counter() - begun
        if first:
            with context.store.transaction():
                context.store.add_compilation(number, seconds)
            yield CompileFinished(seconds=seconds, **self._shared)
        with translating_device_errors(number):
            self._lanes = context.programs.lanes(self._plan, number, compiled, self._cohort)
            if self._state.lanes:
                lanes = jax.tree.unflatten(jax.tree.structure(compiled.lanes), self._state.lanes)
                self._lanes.restore(lanes, self.live)
        self._state = self._state._replace(lanes=())

    def _following(self) -> Iterator["Wave"]:
        """Yields this wave, and those after it."""
        wave: Wave | None = self
        while wave is not None:
            yield wave
            wave = wave.next

    def _dispatch(self, lanes: DeviceLanes) -> None:
        """Begins a device call."""
        begin, since = self._in_flight[-1].stop if self._in_flight else self._state.step, time.perf_counter()
        block, waited = (None, 0.0) if self._blocks is None else self._blocks.at(begin)
        last, plan = int(self._cohort.budget[lanes.live].max()), self._plan
        stop, evaluate = next_stop(begin, last, self.group.eval_every, plan.segment, plan.block)
        with translating_device_errors(self.group.number):
            lanes.dispatch(stop, evaluate, block)
        self._in_flight.append(InFlight(stop, evaluate, since, waited))

    def _collect(self, lanes: DeviceLanes) -> tuple[InFlight, SegmentResult]:
        """Waits for the device call that was dispatched first."""
        with translating_device_errors(self.group.number):
            result = lanes.collect()
        return self._in_flight.pop(0), result

    def _segment(self, lanes: DeviceLanes, until: int | None) -> SegmentFinished:
        """Runs one segment, dispatching the next first if nothing can intervene."""
        cohort, context, before = self._cohort, self._context, self._state
        if not self._in_flight:
            self._dispatch(lanes)
        last = int(cohort.budget[lanes.live].max())
        more = self._in_flight[-1].stop < (last if until is None else min(last, until))
        # A block of a stream is drawn while the devices compute, and lanes that move need all segments read.
        if more and self._blocks is None and not lanes.moves and context.may_run_ahead():
            self._dispatch(lanes)
        dispatched, result = self._collect(lanes)
        begun, self._collected = max(dispatched.since, self._collected), time.perf_counter()
        outcome = Outcome.of(cohort, self._microsteps, result, dispatched.evaluate)
        changes = outcome.changes.values()
        scores = context.scores.with_changes(changes) if changes else context.scores
        if dispatched.evaluate:
            healthy, evaluated = (outcome.trials, outcome.replicates), np.unique(cohort.trial[result.lanes]).tolist()
            scores = scores.with_evaluation(context.spec.objective, healthy, outcome.steps, outcome.metrics, evaluated)
        context.scores = scores
        lanes.retire(list(outcome.changes))
        with context.store.transaction():
            if dispatched.evaluate:
                where = {"trial": outcome.trials, "replicate": outcome.replicates, "step": outcome.steps}
                context.store.add_curves(self.number, before.evaluations, where | outcome.metrics)
            context.store.add_changes(changes)
        taken = before.taken.copy()
        taken[result.lanes] = outcome.taken
        lost = [change.trial for change in changes if change.status == "diverged"]
        self._state = before._replace(
            step=dispatched.stop,
            evaluations=before.evaluations + dispatched.evaluate,
            live=lanes.live.copy(),
            taken=taken,
            lost=before.lost | np.isin(cohort.trial, lost),
        )
        return SegmentFinished(
            step=dispatched.stop,
            steps=int(cohort.budget.max()),
            live=int(lanes.live.sum()),
            lane_steps=int((result.step - np.minimum(before.step, result.step)).sum()),
            spared=self.spared(outcome.changes),
            evaluated=(outcome.trials, outcome.replicates),
            metrics=outcome.metrics,
            changes=tuple(changes),
            best=context.best,
            seconds=self._collected - begun,
            waited=dispatched.waited,
            **self._shared,
        )


def _path(path: Any) -> tuple[str | int, ...]:
    """Returns the names along a key path; positions of tuples stay numbers."""
    names = (getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", None))) for entry in path)
    return tuple(name if isinstance(name, int) else str(name) for name in names)
