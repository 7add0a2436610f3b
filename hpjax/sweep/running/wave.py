"""A wave: lanes of one group that are on their devices together, from their first step to their final states."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.core.arrays import Ints, ceil_div
from hpjax.core.errors import RunError
from hpjax.core.space import Point
from hpjax.data.stream import Position
from hpjax.engine import sharding as spread
from hpjax.engine.compile import AT_ONCE, Compiled
from hpjax.engine.device_errors import translating_device_errors
from hpjax.engine.device_lanes import Cohort, DeviceLanes, SegmentResult
from hpjax.engine.lane import HEALTHY
from hpjax.engine.shapes import Lane, lane_shapes
from hpjax.engine.tracing import stack_hparams
from hpjax.results.store.checkpoints import Cut
from hpjax.results.store.rows import Change, Status
from hpjax.results.store.run_store import Store
from hpjax.schedulers import Clone
from hpjax.sweep.planning.plan import Group, Plan, next_stop
from hpjax.sweep.planning.planner import Prepared, tracer
from hpjax.sweep.planning.programs import cohort, compiled_of, recipe_of, splits_on
from hpjax.sweep.running.events import Event
from hpjax.sweep.running.prefetch import BlockPrefetcher
from hpjax.sweep.running.scores import Scores
from hpjax.sweep.running.state import OF_WAVE, check_lanes
from hpjax.sweep.spec import Settings


class Snapshot(NamedTuple):
    """A lane on the host, and the optimizer steps that it took."""

    lane: Lane
    taken: int


class RunContext(NamedTuple):
    """Where waves train.

    Attributes:
      mesh: the devices.
      splits: the data, which is on them; of a stream nothing.
      store: where what happens is recorded.
      standing: where it is scored.
      compiled: the groups that are compiled already.
      points: trial id to its hyperparameters now.
      feeds: what closes the streams that they draw from.
      ahead: whether a segment may be launched before the one before it is read.
    """

    mesh: jax.sharding.Mesh
    splits: tuple[Any, Any]
    store: Store
    scores: Scores
    compiled: set[int]
    points: dict[int, Point]
    feeds: ExitStack
    ahead: Callable[[], bool]


class InFlight(NamedTuple):
    """A segment that is launched: where it ends, whether with an evaluation, when it was, and what it waited for."""

    stop: int
    evaluate: bool
    since: float
    waited: float


def run_context(settings: Settings, plan: Plan, store: Store, ahead: Callable[[], bool] = lambda: False) -> RunContext:
    """The devices of a sweep with its data on them, and nothing scored yet; its feeds are to be closed."""
    mesh = spread.mesh(spread.devices(settings.devices))
    splits = splits_on(settings, mesh)
    standing = Scores(settings.objective, plan.rounds, settings.lanes_a_trial)
    return RunContext(mesh, splits, store, standing, set(), {}, ExitStack(), ahead)


class Wave:
    """The lanes of some trials of one group.

    Args:
      settings, prepared: the sweep.
      number: of the wave, in the order of all.
      group: the trials' group.
      trials: ids.
      place: where they train.

    Attributes:
      number: of the wave.
      group: the trials' group.
      live: bool (lanes,), which lanes run.
      lost: trials of which a lane diverged.
      finished: whether its final states are recorded.
      next: the wave after it, whose program is compiled meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        prepared: Prepared,
        number: int,
        group: Group,
        trials: Collection[int],
        place: RunContext,
    ) -> None:
        self._settings, self._plan, self.number, self.group = settings, prepared.plan, number, group
        self._place, self._store = place, place.store
        self._cohort = cohort(settings, prepared, group, trials, place.points)
        self._calls = np.array([prepared.plan.lengths[t].microsteps for t in self._cohort.trial], np.int32)
        self._lanes: DeviceLanes | None = None
        self._feed: BlockPrefetcher | None = None
        self._position = Position()
        self.live = np.ones(len(self._cohort.trial), bool)
        self.lost: set[int] = set()
        self.finished = False
        self.next: Wave | None = None
        self._compiled: Future[Compiled] | None = None
        self._in_flight: list[InFlight] = []
        self._landed = 0.0
        self._saved: list[Any] = []
        self._step = self._evaluations = 0
        self._taken = np.zeros(len(self._cohort.trial), np.int32)
        self._shared: dict[str, Any] = {
            "group": group.number,
            "groups": len(prepared.plan.own_groups),
            "round": prepared.plan.round_of(min(trials)),
            "steps": int(self._cohort.budget.max()),
            "lanes": len(self._cohort.trial),
        }

    @property
    def size(self) -> int:
        """How many lanes there are."""
        return len(self._cohort.trial)

    @property
    def trials(self) -> set[int]:
        """All trials."""
        return set(self._cohort.trial.tolist())

    @property
    def live_trials(self) -> set[int]:
        """The trials of which a lane runs."""
        return set(self._cohort.trial[self.live].tolist())

    def advance(self, until: int | None = None) -> Iterator[Event]:
        """Trains until that step, an evaluation, or to the end; compiles first where that is still to do.

        Where waves take turns it then waits on the host.
        """
        if self.finished:
            return
        if self._lanes is None:
            yield from self._begin()
        assert self._lanes is not None
        while self.live.any() and (until is None or self._step < until):
            yield self._segment(self._lanes, until)
        while self._in_flight:  # launched before it was known that no lane would go on
            self._collect(self._lanes)
        while until is not None and self._step < min(until, self._cohort.budget.max()):
            # Without live lanes; should any run again, it is as if these evaluations had passed them by.
            last = int(self._cohort.budget.max())
            self._step, evaluated = next_stop(self._step, last, self.group.eval_every, None, None)
            self._evaluations += evaluated
        if self._plan.offloads:
            self._lanes.offload()
            if self._feed is not None:
                self._feed.offload()

    def finish(self) -> None:
        """Records the final states, once all lanes ended and none of them will run again."""
        if self._lanes is None:
            return
        if self._feed is not None:
            self._feed.close()
        leaves = [
            (_path(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(self._lanes.snapshot().state)
        ]
        ids = np.stack([self._cohort.trial, self._cohort.replicate], axis=1)
        self._store.states.add(self.number, ids, leaves)
        self._lanes, self._feed, self.finished = None, None, True

    @property
    def ahead(self) -> bool:
        """Whether its lanes are, or may be, at a later step than was told of: it cannot be cut now."""
        return bool(self._in_flight)

    def cut(self) -> Cut:
        """What it needs to go on from here."""
        about = {"step": self._step, "evaluations": self._evaluations, "finished": self.finished}
        lost = np.array(sorted(self.lost), np.int32)
        arrays: dict[str, Any] = {"trial": self._cohort.trial.copy(), "live": self.live.copy()}
        arrays |= {"taken": self._taken.copy(), "lost": lost}
        if self._settings.stream is not None:
            position = self._position if self._feed is None else self._feed.position(self._step)
            arrays["stream"] = position.packed()
        # One that was resumed may not have begun again.
        lanes = self._saved if self._lanes is None else jax.tree.leaves(self._lanes.snapshot())
        return Cut(about, arrays | {f"lanes/{i}": leaf for i, leaf in enumerate(lanes)})

    def resume(self, cut: Cut) -> None:
        """Goes back to what it was at a cut.

        Raises:
          RunError: the cut is of another wave.
        """
        check_lanes(cut, self.size, jax.tree.leaves(lane_shapes(self._plan.shapes[self.group.number])))
        self._step, self._evaluations, self.finished = (cut.about[n] for n in ("step", "evaluations", "finished"))
        self.live, self._taken = cut.arrays["live"], cut.arrays["taken"]
        self.lost = set(cut.arrays["lost"].tolist())
        if self._settings.stream is not None:
            if "stream" not in cut.arrays:
                raise RunError("the checkpoint is not of this sweep: it has no position in the data stream.")
            self._position = Position.unpacked(cut.arrays["stream"])
        count = sum(name.startswith("lanes/") for name in cut.arrays)
        self._saved = [cut.arrays[f"lanes/{i}"] for i in range(count)]

    def drop(self) -> None:
        """Lets go of what it has on the devices; it is of no use any more."""
        if self._feed is not None:
            self._feed.close()
        self._lanes, self._feed, self._in_flight = None, None, []

    @property
    def computed(self) -> int:
        """Lane-steps that it has computed, as far as they are of use."""
        return int((self._taken * self._calls).sum())

    def narrowed(self, lost: int) -> Event:
        """That its group begins anew at a smaller width, and so many lane-steps are to be computed again."""
        return Event("narrowed", step=0, live=self.size, lane_steps=-lost, **self._shared)

    def resumed(self, done: int, spared: int) -> Event:
        """That the run goes on here."""
        live = int(self.live.sum())
        return Event("resumed", step=self._step, live=live, lane_steps=done, spared=spared, **self._shared)

    def stop(self, trials: Collection[int]) -> dict[int, Change]:
        """Ends the lanes of these trials; which they are, by their numbers."""
        ended = [lane for lane in np.flatnonzero(self.live).tolist() if int(self._cohort.trial[lane]) in trials]
        if ended:
            assert self._lanes is not None
            with translating_device_errors(self.group.number):
                self._lanes.retire(ended)
            self.live = self._lanes.live
            if self._plan.offloads:
                self._lanes.offload()
        ids = self._ids() if ended else []
        return {lane: Change(*ids[lane], Status.STOPPED, int(self._taken[lane])) for lane in ended}

    def lanes_of(self, trial: int) -> dict[int, Snapshot]:
        """What a trial's lanes hold while they wait on the host, by replicate."""
        assert self._lanes is not None
        return {
            int(self._cohort.replicate[lane]): Snapshot(self._lanes.lane(lane), int(self._taken[lane]))
            for lane in np.flatnonzero(self._cohort.trial == trial).tolist()
        }

    def clone(self, clones: Mapping[int, Clone], elsewhere: Mapping[int, Mapping[int, Snapshot]]) -> list[Change]:
        """Has trials go on from the states of others, all at once: the lanes that run again.

        Args:
          clones: trial id to what becomes of it; those of other waves are passed over.
          elsewhere: trial id to its lanes, of the sources that are in other waves.
        """
        own = {trial: clone for trial, clone in clones.items() if trial in self.trials}
        if not own:
            return []
        assert self._lanes is not None
        ids = self._ids()
        place = {lane: number for number, lane in enumerate(ids)}
        sources: dict[int, Any] = {}
        taken = self._taken.copy()
        for trial, replicate in ids:
            if trial in own:
                lane, source = place[trial, replicate], own[trial].source
                if (source, replicate) in place:
                    sources[lane] = place[source, replicate]
                    taken[lane] = self._taken[sources[lane]]
                else:
                    sources[lane], taken[lane] = elsewhere[source][replicate]
        points = [own[int(self._cohort.trial[lane])].point for lane in sources]
        again = [lane for lane in sources if not self.live[lane]]
        names = points[0].keys() - self.group.static.keys()
        with translating_device_errors(self.group.number):
            self._lanes.clone(sources, stack_hparams(tracer(self._settings).kinds, points, names))
        self._taken, self.live = taken, self._lanes.live
        self.lost -= own.keys()
        if self._plan.offloads:
            self._lanes.offload()
        return [Change(*ids[lane], Status.RUNNING, int(self._taken[lane])) for lane in again]

    def taken(self, trial: int) -> int:
        """Optimizer steps that a trial took."""
        return int(self._taken[self._cohort.trial == trial].max())

    def _ids(self) -> list[tuple[int, int]]:
        """Trial and replicate of each lane."""
        return list(zip(self._cohort.trial.tolist(), self._cohort.replicate.tolist(), strict=True))

    def spared(self, lanes: Collection[int]) -> int:
        """Calls that lanes which just ended, by their numbers, will not take."""
        return int(np.maximum(self._cohort.budget[list(lanes)] - self._step, 0).sum())

    def prepare(self) -> None:
        """Has its program compiled in the background."""
        if self._compiled is None and not self.finished:
            settings, place = self._settings, self._place
            number, h = self.group.number, self._cohort.h
            self._compiled = compiled_of(settings, self._plan, number, h, place.mesh, place.splits)

    def _begin(self) -> Iterator[Event]:
        settings, stream = self._settings, self._settings.stream
        place, number = self._place, self.group.number
        first = number not in place.compiled
        place.compiled.add(number)
        if first:
            yield Event("compile", step=0, live=self.size, **self._shared)
        begun = time.perf_counter()
        if stream is not None:
            # Before the program is compiled, so that the first block is drawn meanwhile.
            self._feed = BlockPrefetcher(stream, place.mesh, self._step, self._shared["steps"], self._position)
            place.feeds.callback(self._feed.close)
        for wave in islice(self._following(), AT_ONCE):
            wave.prepare()
        assert self._compiled is not None
        with translating_device_errors(number):
            compiled = self._compiled.result()
        seconds = time.perf_counter() - begun
        if first:
            with self._store.transaction():
                self._store.add_compilation(number, seconds)
            yield Event("compiled", step=0, live=self.size, seconds=seconds, **self._shared)
        with translating_device_errors(number):
            self._lanes = DeviceLanes(
                recipe_of(settings, self._plan, number), compiled, self._cohort, settings.seed, *place.splits
            )
            if self._saved:
                self._lanes.restore(jax.tree.unflatten(jax.tree.structure(compiled.lanes), self._saved), self.live)
                self._saved = []

    def _following(self) -> Iterator["Wave"]:
        """It, and those after it."""
        wave: Wave | None = self
        while wave is not None:
            yield wave
            wave = wave.next

    def _dispatch(self, lanes: DeviceLanes) -> None:
        """Begins a device call."""
        begin, since = self._in_flight[-1].stop if self._in_flight else self._step, time.perf_counter()
        block, waited = (None, 0.0) if self._feed is None else self._feed.at(begin)
        last, plan = int(self._cohort.budget[lanes.live].max()), self._plan
        stop, evaluate = next_stop(begin, last, self.group.eval_every, plan.segment, plan.block)
        with translating_device_errors(self.group.number):
            lanes.dispatch(stop, evaluate, block)
        self._in_flight.append(InFlight(stop, evaluate, since, waited))

    def _collect(self, lanes: DeviceLanes) -> tuple[InFlight, SegmentResult]:
        """Waits for a device call."""
        with translating_device_errors(self.group.number):
            report = lanes.collect()
        return self._in_flight.pop(0), report

    def _segment(self, lanes: DeviceLanes, until: int | None) -> Event:
        """One device call, and what it brought; the next one, where nothing can come between, is launched before."""
        cohort, before = self._cohort, self._step
        if not self._in_flight:
            self._dispatch(lanes)
        last = int(cohort.budget[lanes.live].max())
        more = self._in_flight[-1].stop < (last if until is None else min(last, until))
        if more and self._feed is None and not lanes.moves and self._place.ahead():
            self._dispatch(lanes)
        launched, report = self._collect(lanes)
        self._step, evaluate = launched.stop, launched.evaluate
        begun, self._landed = max(launched.since, self._landed), time.perf_counter()
        # A lane that diverged is not recorded any more: at which evaluation it would be depends on the segments.
        healthy = report.diverged == HEALTHY
        trials, replicates = cohort.trial[report.lanes[healthy]], cohort.replicate[report.lanes[healthy]]
        values = {name: value[healthy] for name, value in report.metrics.items()}
        # Optimizer steps, of several calls each where gradients accumulate; one that diverged may not be whole.
        calls = self._calls[report.lanes]
        taken, lost_at = report.step // calls, ceil_div(report.diverged, calls)
        self._taken[report.lanes] = taken
        changes = _changes(cohort, report, taken, lost_at, evaluate)
        standing = self._place.scores
        standing.changed(changes.values())
        if evaluate:
            evaluated = np.unique(cohort.trial[report.lanes]).tolist()
            standing.measured((trials, replicates), taken[healthy], values, evaluated)
        lanes.retire(list(changes))
        self.live = lanes.live
        self.lost |= {change.trial for change in changes.values() if change.status == Status.DIVERGED}
        with self._store.transaction():
            if evaluate:
                where = {"trial": trials, "replicate": replicates, "step": taken[healthy]}
                self._store.add_curves(self.number, self._evaluations, where | values)
                self._evaluations += 1
            self._store.add_changes(changes.values())
        return Event(
            "segment",
            step=self._step,
            spared=self.spared(changes),
            live=int(lanes.live.sum()),
            lane_steps=int((report.step - np.minimum(before, report.step)).sum()),
            evaluated=(trials, replicates),
            metrics=values,
            changes=tuple(changes.values()),
            best=standing.best(),
            seconds=self._landed - begun,
            waited=launched.waited,
            **self._shared,
        )


def part_of(cut: Cut, trials: Collection[int]) -> Cut:
    """The cut of a wave as if it had been of some of its trials."""
    mine = np.isin(cut.arrays["trial"], list(trials))
    arrays = {name: array if name in OF_WAVE else array[mine] for name, array in cut.arrays.items()}
    lost = cut.arrays["lost"]
    return Cut(cut.about, arrays | {"lost": lost[np.isin(lost, list(trials))]})


def _changes(cohort: Cohort, report: SegmentResult, taken: Ints, lost_at: Ints, evaluated: bool) -> dict[int, Change]:
    """The lanes that diverged or came to their end, with the optimizer step at which they did."""
    lost = report.diverged != HEALTHY
    done = ((report.step >= cohort.budget[report.lanes]) & evaluated | report.done) & ~lost
    changes = {}
    for status, which, steps in ((Status.DIVERGED, lost, lost_at), (Status.COMPLETE, done, taken)):
        for at in np.flatnonzero(which):
            lane = int(report.lanes[at])
            changes[lane] = Change(int(cohort.trial[lane]), int(cohort.replicate[lane]), status, int(steps[at]))
    return changes


def _path(path: Any) -> tuple[str | int, ...]:
    """The names along a key path; positions of tuples stay numbers."""
    names = (getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", None))) for entry in path)
    return tuple(name if isinstance(name, int) else str(name) for name in names)
