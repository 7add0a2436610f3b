"""A wave: lanes of one group that are on their devices together, from their first step to their final states."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from hpjax.data.stream import Position
from hpjax.engine.compile import COMPILE_THREADS, FUNCTIONS, Compiled
from hpjax.engine.device_errors import failing_alone, failing_the_run
from hpjax.engine.device_lanes import DeviceLanes, SegmentResult
from hpjax.engine.lane_shards import LaneShard
from hpjax.engine.tracing import kinds_of, stack_hparams
from hpjax.results.store.rows import Change, Status
from hpjax.schedulers import Clone
from hpjax.sweep.planning.plan import Group, next_stop
from hpjax.sweep.running.cloning import sources_of
from hpjax.sweep.running.context import RunContext
from hpjax.sweep.running.events import CompileFinished, CompileStarted, Event, SegmentFinished, WaveFields
from hpjax.sweep.running.final_states import record_states
from hpjax.sweep.running.outcome import DispatchedSegment, Outcome
from hpjax.sweep.running.prefetch import BlockPrefetcher
from hpjax.sweep.running.state import Snapshot, WaveState


class Wave:
    """The lanes of some trials of one group, on their devices.

    Args:
      context: what the wave shares with the others of the run.
      group: the group of its trials.
      state: the state in which it begins, or goes on.
      failed: whether its group failed before, and is not tried again.

    Attributes:
      group: the group of its trials.
      next: the wave after it, or None; its program compiles while this one trains.
      failed: whether its group failed, so that its lanes do not train.
      shared: what all events of the wave have in common, by the names of their fields.

    Raises:
      RunError: the state holds lanes of another program.
    """

    def __init__(self, context: RunContext, group: Group, state: WaveState, failed: bool = False) -> None:
        self._context, self._plan, self.group, self._state = context, context.plan, group, state
        self._table = context.programs.lane_table(self._plan, group, state.trials, context.points)
        state.check(self._table.trial, context.programs.config(self._plan, group.number).arrays)
        self._width = self._plan.arrangements[group.number].width
        self._microsteps = np.array([self._plan.lengths[t].microsteps for t in self._table.trial], np.int32)
        self._renewal = context.programs.renewal(self._plan, group)
        self._compiled: Compiled | None = None
        self._lanes: DeviceLanes | None = None
        self._blocks: BlockPrefetcher | None = None
        self._in_flight, self._collected = list[DispatchedSegment](), 0.0
        self.next: Wave | None = None
        self.failed = failed
        self.shared = WaveFields(
            group=group.number,
            groups=len(self._plan.own_groups),
            round=self._plan.round_of(min(state.trials)),
            lanes=self.size,
        )

    @property
    def number(self) -> int:
        """The number of the wave, in the order of all."""
        return self._state.number

    @property
    def step(self) -> int:
        """How many calls of ``step`` its longest-running lanes took."""
        return self._state.step

    @property
    def size(self) -> int:
        """How many lanes it has."""
        return len(self._table.trial)

    @property
    def live(self) -> Any:
        """Whether each lane runs, bool (lanes,)."""
        return self._state.live & (not self.failed)

    @property
    def finished(self) -> bool:
        """Whether the final states of its lanes are recorded."""
        return self._state.finished

    @property
    def trials(self) -> set[int]:
        """Its trials."""
        return set(self._table.trial.tolist())

    @property
    def live_trials(self) -> set[int]:
        """The trials of which a lane runs."""
        return set(self._table.trial[self.live].tolist())

    @property
    def lost_trials(self) -> set[int]:
        """The trials of which a lane diverged."""
        return set(self._table.trial[self._state.lost].tolist())

    @property
    def runs_ahead(self) -> bool:
        """Whether its lanes may be at a later step than its events told; then there is no state to save."""
        return bool(self._in_flight)

    @property
    def computed(self) -> int:
        """How many lane-steps its lanes took; of a clone those of its source."""
        return int((self._state.taken * self._microsteps).sum())

    @property
    def spared_so_far(self) -> int:
        """Calls of ``step`` that lanes which have ended did not take."""
        left = self._table.budget - self._state.taken * self._microsteps
        return int(np.maximum(left, 0)[~self.live].sum())

    def taken(self, trial: int) -> int:
        """Returns the optimizer steps that a trial took."""
        return int(self._state.taken[self._table.trial == trial].max())

    def state(self, whole: bool = False) -> WaveState:
        """Returns all that the wave needs to go on from here.

        Args:
          whole: whether each host gets all lanes; else those of its devices.
        """
        lanes, own = self._state.lanes, self._lanes  # of the checkpoint, if it was resumed and has not begun again
        if own is not None:
            lanes = (LaneShard.whole(jax.tree.leaves(own.gathered())),) if whole else tuple(own.snapshot())
        stream = self._state.stream if self._blocks is None else self._blocks.position(self._state.step).packed()
        return self._state._replace(lanes=lanes, stream=stream)

    def advance(self, until: int | None = None) -> Iterator[Event]:
        """Trains the live lanes, and yields what happens; compiles their program first if nobody has.

        Args:
          until: the step at which to stop, one with an evaluation; None trains them to their ends.
        """
        if self.finished or self.failed:
            return
        if self._lanes is None:
            yield from self._begin()
        assert self._lanes is not None
        while self.live.any() and (until is None or self._state.step < until):
            yield self._segment(self._lanes, until)
        while self._in_flight:  # dispatched before the host knew that no lane goes on: it changed nothing
            self._collect(self._lanes)
        last = int(self._table.budget.max())
        while until is not None and self._state.step < min(until, last):
            # No lane runs, but the other waves of a race go on to the decision, where a lane of this one may become a
            # clone. The evaluations till then count, so that its next one has the same number as theirs.
            step, evaluated = next_stop(self._state.step, last, self.group.eval_every, None, None)
            self._state = self._state._replace(step=step, evaluations=self._state.evaluations + evaluated)
        if self._plan.offloads:
            # The other waves of the race need the memory; this one waits on the host for the decision.
            self._lanes.offload()
            if self._blocks is not None:
                self._blocks.offload()

    def finish(self) -> None:
        """Records the final states, once all lanes ended and none of them can run again."""
        if self._lanes is None:
            return  # recorded already
        self._context.artifacts.make()
        record_states(self._context.store, self.number, self._lanes, self._plan.shapes[self.group.number])
        self._state = self._state._replace(finished=True)
        self.drop()

    def drop(self) -> None:
        """Frees what the wave has on the devices."""
        if self._blocks is not None:
            self._blocks.close()
        self._lanes, self._blocks, self._in_flight = None, None, []
        self._context.artifacts.drop(self.group.number)

    def fail(self) -> dict[tuple[int, int], int]:
        """Gives up its lanes, which are at their beginning again; returns trial and replicate to the steps taken."""
        taken = dict(zip(self._ids(), self._state.taken.tolist(), strict=True))
        self.drop()
        self._state, self.failed = self._state.begun(), True
        return taken

    def stop(self, trials: Collection[int]) -> dict[int, Change]:
        """Ends the live lanes of some trials; returns lane number to the change of each."""
        ended = [lane for lane in np.flatnonzero(self.live).tolist() if int(self._table.trial[lane]) in trials]
        if not ended:
            return {}
        assert self._lanes is not None
        self._lanes.retire(ended)
        self._state, ids = self._state._replace(live=self._lanes.live.copy()), self._ids()
        return {lane: Change(*ids[lane], Status.STOPPED, int(self._state.taken[lane])) for lane in ended}

    def lanes_of(self, trial: int) -> dict[int, Snapshot]:
        """Returns copies of a trial's lanes, by replicate."""
        assert self._lanes is not None
        return {
            int(self._table.replicate[lane]): Snapshot(self._lanes.copy(lane), int(self._state.taken[lane]))
            for lane in np.flatnonzero(self._table.trial == trial).tolist()
        }

    def clone(self, clones: Mapping[int, Clone], from_others: Mapping[int, Mapping[int, Snapshot]]) -> list[Change]:
        """Has trials go on from the states of others, as all of them are before the first one changes.

        Args:
          clones: trial id to what becomes of it; trials of other waves are passed over.
          from_others: for sources in other waves, trial id to copies of its lanes by replicate.

        Returns:
          A change for each lane that had ended and runs again.
        """
        own, ids = {trial: clone for trial, clone in clones.items() if trial in self.trials}, self._ids()
        if not own:
            return []
        assert self._lanes is not None
        sources, taken = sources_of(ids, self._state.taken, own, from_others)
        points = [own[int(self._table.trial[lane])].point for lane in sources]
        again = [lane for lane in sources if not self.live[lane]]
        names = points[0].keys() - self.group.static.keys()
        with failing_the_run(self.group.number, self._width):
            self._lanes.clone(sources, stack_hparams(kinds_of(self._context.spec.space), points, names))
            renewed = [self._renewal(point, ids[lane][1]) for lane, point in zip(sources, points, strict=True)]
            for i, number in enumerate(self._plan.takeovers[self.group.number].renewed):
                self._lanes.write(number, list(sources), np.stack([arrays[i] for arrays in renewed]))
        lost = self._state.lost & ~np.isin(self._table.trial, list(own))
        self._state = self._state._replace(taken=taken, live=self._lanes.live.copy(), lost=lost)
        if self._plan.offloads:
            self._lanes.offload()
        return [Change(*ids[lane], Status.RUNNING, int(taken[lane])) for lane in again]

    def spared(self, lanes: Collection[int]) -> int:
        """Returns how many calls of ``step`` these lanes, which just ended, had left of their budgets."""
        return int(np.maximum(self._table.budget[list(lanes)] - self._state.step, 0).sum())

    def prepare(self, *names: str) -> None:
        """Begins to compile functions of its program in the background."""
        if not (self.finished or self.failed):
            programs = self._context.programs
            self._compiled = self._compiled or programs.compile(self._plan, self.group.number, self._table.h)
            self._compiled.prepare(*names)

    def _ids(self) -> list[tuple[int, int]]:
        """Returns trial and replicate of each lane."""
        return list(zip(self._table.trial.tolist(), self._table.replicate.tolist(), strict=True))

    def _begin(self) -> Iterator[Event]:
        """Waits for the program, and puts the lanes on the devices."""
        context, number, stream = self._context, self.group.number, self._context.spec.stream
        first = number not in context.compiled
        context.compiled.add(number)
        if first:
            yield CompileStarted(**self.shared)
        begun = time.perf_counter()
        if stream is not None and self._state.stream is not None:  # the first block is drawn while the program compiles
            position, steps = Position.unpacked(self._state.stream), int(self._table.budget.max())
            self._blocks = BlockPrefetcher(stream, context.programs.mesh, self._state.step, steps, position)
            context.streams.callback(self._blocks.close)
        self.prepare("advance", "start")
        assert self._compiled is not None
        with failing_alone(number, self._width, compiling=True):
            compiled = self._compiled.wait()
        seconds = time.perf_counter() - begun
        if first:
            with context.store.transaction():
                context.store.add_compilation(number, seconds)
            context.timing.compiled(self._plan, number, seconds, compiled.seconds.get("advance", 0.0))
            yield CompileFinished(seconds=seconds, exchanges=compiled.exchanges, **self.shared)
        with failing_alone(number, self._width):
            self._lanes = context.programs.lanes(self._plan, number, compiled, self._table)
            if self._state.lanes:  # those of a checkpoint
                self._lanes.restore(self._state.lanes, self.live, begun=self._state.step > 0)
        self._state = self._state._replace(lanes=())  # they are on the devices now

    def _prepare_following(self, there_is_time: Callable[[], bool] = lambda: True) -> None:
        """Begins to compile the programs of the waves after it, one function after the other while there is time."""
        wave, left = self.next, COMPILE_THREADS - 1
        while wave is not None and left > 0:
            for name in FUNCTIONS:
                if not there_is_time():
                    return
                wave.prepare(name)
            wave, left = wave.next, left - 1

    def _dispatch(self, lanes: DeviceLanes) -> None:
        """Dispatches the segment after those that are in flight."""
        begin, since = self._in_flight[-1].stop if self._in_flight else self._state.step, time.perf_counter()
        block, waited = (None, 0.0) if self._blocks is None else self._blocks.at(begin)
        last, plan = int(self._table.budget[lanes.live].max()), self._plan
        stop, evaluate = next_stop(begin, last, self.group.eval_every, plan.segment, plan.block)
        with failing_alone(self.group.number, self._width):
            lanes.dispatch(stop, evaluate, block, self._prepare_following)
        self._in_flight.append(DispatchedSegment(stop, evaluate, since, waited))

    def _collect(self, lanes: DeviceLanes) -> tuple[DispatchedSegment, SegmentResult]:
        """Waits for the segment that was dispatched first."""
        with failing_alone(self.group.number, self._width):
            lanes.wait()
        return self._in_flight.pop(0), lanes.collect()

    def _segment(self, lanes: DeviceLanes, until: int | None) -> SegmentFinished:
        """Runs one segment, dispatching the next first if nothing can intervene."""
        table, context, before = self._table, self._context, self._state
        if not self._in_flight:
            self._dispatch(lanes)
        context.artifacts.make()  # those of the evaluation before, while the devices compute
        last = int(table.budget[lanes.live].max())
        more = self._in_flight[-1].stop < (last if until is None else min(last, until))
        # With the next segment on its way the devices need not wait for the host. Four things can intervene: a stream,
        # whose next block is drawn meanwhile; lanes that are about to move, to places that the results decide; a
        # checkpoint, for which nothing may be in flight; and artifacts, which are of the lanes at the evaluation.
        wanted = self._in_flight[-1].evaluate and context.artifacts.wants(self.group.number, self.live_trials)
        if more and not wanted and self._blocks is None and not lanes.moves and context.may_run_ahead():
            self._dispatch(lanes)
        if not self._collected:  # nothing else compiles before the first segment trains
            self.prepare("evaluate")
            self._prepare_following()
        segment, result = self._collect(lanes)
        # Two segments in flight compute one after the other: the second begins when the first was collected.
        begun, self._collected = max(segment.since, self._collected), time.perf_counter()
        outcome = Outcome.of(table, self._microsteps, result, segment.evaluate)
        context.scores = outcome.scored(context.scores, context.spec.objective)
        # Retired lanes do nothing in a segment that is in flight already, though the host learned of it only now.
        lanes.retire(list(outcome.changes))
        # One transaction: whoever reads the database sees the values and the statuses of the same segment.
        with context.store.transaction():
            if outcome.evaluated:
                context.store.add_curves(self.number, before.evaluations, outcome.curves(context.seconds))
            context.store.add_changes(outcome.changes.values())
        if outcome.evaluated:
            context.artifacts.take(self.group.number, lanes, outcome, context.scores, before.evaluations)
        self._state = outcome.after(before, segment.stop, lanes.live)
        return SegmentFinished(
            step=segment.stop,
            steps=int(table.budget.max()),
            live=int(lanes.live.sum()),
            lane_steps=int((result.step - np.minimum(before.step, result.step)).sum()),
            spared=self.spared(outcome.changes),
            evaluated=(outcome.trials, outcome.replicates, outcome.steps),
            metrics=outcome.metrics,
            changes=tuple(outcome.changes.values()),
            best=context.best,
            seconds=self._collected - begun,
            waited=segment.waited,
            **self.shared,
        )
