"""The runner: trains every round to its end, wave by wave or as a race, and goes on where a run was interrupted."""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain, count

import numpy as np

from hpjax.core.space import Point
from hpjax.engine.device_errors import GroupFailedError, OutOfMemoryError
from hpjax.engine.distributed import holding_together
from hpjax.results.store.rows import NO_WAVE, Planned
from hpjax.sweep.planning.arrange import halved, with_measured, with_waves, with_widths
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.planner import plan_next_round
from hpjax.sweep.planning.programs import lane_ids
from hpjax.sweep.running.context import RunContext
from hpjax.sweep.running.events import (
    Decision,
    Event,
    GroupFailed,
    Resumed,
    SegmentFinished,
    WidthHalved,
    WidthMeasured,
)
from hpjax.sweep.running.failure import fail_group, nothing_left
from hpjax.sweep.running.notices import Notices
from hpjax.sweep.running.preemption import leave, notices
from hpjax.sweep.running.race import RoundRace
from hpjax.sweep.running.recorder import Record
from hpjax.sweep.running.restored import restored, with_lanes
from hpjax.sweep.running.scores import observed
from hpjax.sweep.running.state import RunProgress, RunState, WaveState, statuses_of
from hpjax.sweep.running.tuner import GroupMeasured, Tuner
from hpjax.sweep.running.wave import Wave
from hpjax.sweep.spec import SweepSpec


def train(spec: SweepSpec, plan: Plan, record: Record) -> Iterator[Event]:
    """Trains every trial of a sweep, round after round, and yields what happens.

    Args:
      spec: the sweep.
      plan: the plan of its first round.
      record: the record of the run, with the state from which it goes on where it was interrupted.

    Raises:
      Preempted: the process got a notice of preemption, and a checkpoint is written.
      KeyboardInterrupt: the user pressed Ctrl-C, and a checkpoint is written.
      RunError: the record cannot be written, or one lane alone does not fit in memory.
    """
    run = _Run(spec, plan, record)
    try:
        yield from run.events()
    finally:
        run.close()


# A group begins anew at a better width if what is lost took at most this share of the time that the width saves.
LOST = 0.25


class _Run:
    """A sweep in training: the waves of its current round, and how far it is."""

    def __init__(self, spec: SweepSpec, plan: Plan, record: Record) -> None:
        self._spec, self._record, self._store = spec, record, record.store
        self._context = RunContext.of(spec, plan, record.store)
        # The width belongs to the result: a run that goes on from a checkpoint has chosen it.
        self._tuner = Tuner(self._context.programs, plan, enabled=record.state is None)
        self._notices = Notices(record, self._tuner)
        self._context.may_run_ahead = self._notices.may_run_ahead
        self._progress = RunProgress()
        self._saved, record.state = record.state, None
        if self._saved is not None:
            self._context.begun -= self._saved.seconds
            self._progress, self._context.scores = self._saved.progress, self._saved.scores
        self._waves: list[Wave] = []

    def close(self) -> None:
        """Ends the threads that draw from streams or write checkpoints, and lets other processes write the record."""
        try:
            self._context.timing.close()
            self._context.streams.close()
        finally:
            self._record.close()

    def events(self) -> Iterator[Event]:
        """Trains every round to its end, and yields what happens; writes checkpoints between events."""
        record = self._record
        heeding = notices() if record.directory is not None else nullcontext(lambda: 0)
        with holding_together(), heeding as leaving:
            self._notices.leaving = leaving
            first = self._progress.round
            for number in range(len(self._context.plan.rounds)):
                self._plan_round(number)
                if number < first:
                    continue
                if self._saved is not None and number == first:
                    resumed = self._resume(self._saved)
                    self._saved = None  # it holds the lanes of all waves, which go to the devices one by one
                    yield resumed
                else:
                    self._begin_round(number)
                for event in self._train_round():
                    self._count(event)
                    yield event
                    # The states on the devices are already those of a later segment than the events tell of.
                    if any(wave.runs_ahead for wave in self._waves):
                        continue
                    # With several hosts each must ask for notices equally often: after every event.
                    notice = leaving()
                    if notice or record.due(isinstance(event, Decision)):
                        record.save(self._state)
                    if notice and record.directory is not None:
                        record.close()
                        leave(notice, record.directory)
                # What a later round brings was chosen by what the first found at its width.
                self._tuner.close()
        record.finish(self._context.seconds, self._state if self._tried_again else None)

    def _count(self, event: Event) -> None:
        """Adds what an event tells to the progress of the run."""
        now = self._progress
        if isinstance(event, SegmentFinished):
            self._progress = now._replace(done=now.done + event.lane_steps, spared=now.spared + event.spared)
            self._context.timing.trained(self._context.plan, event)
        elif isinstance(event, Decision):
            self._progress = now._replace(step=event.step, spared=now.spared + event.spared)

    def _plan_round(self, number: int) -> None:
        """Plans a round by what the rounds before it found, with the hyperparameters that its trials have by now.

        A run that is resumed plans the rounds before its own anew: they follow from the scores.
        """
        context, points = self._context, self._context.points
        if number > 0:
            known = [points[trial] for trial in sorted(points)]
            scores, rounds = context.scores, context.plan.rounds
            history = observed(self._spec.objective, rounds, known, scores.values, scores.steps)
            context.plan = plan_next_round(self._spec, context.plan, history)
        mine = self._trials_of(number)
        points.update({trial: context.plan.points[trial] for trial in mine})
        if self._saved is not None and number <= self._progress.round:
            points.update(self._clones_of(mine))

    def _trials_of(self, number: int) -> range:
        """Returns the trials of a round."""
        rounds = self._context.plan.rounds
        return range(sum(rounds[:number]), sum(rounds[: number + 1]))

    def _clones_of(self, trials: range) -> dict[int, Point]:
        """Returns trial to the hyperparameters with which it last went on from the state of another."""
        found = {trial: hparams for trial, _, _, hparams in self._store.clones() if trial in trials}
        return {trial: self._spec.space.recalled(hparams) for trial, hparams in found.items()}

    def _set_waves(self, waves: list[Wave]) -> None:
        """Makes these the waves of the round, each linked to the next, whose program compiles while it trains."""
        self._waves = waves
        for wave, after in zip(waves, [*waves[1:], None], strict=True):
            wave.next = after

    def _wave(self, number: int, group: Group, trials: tuple[int, ...]) -> Wave:
        """Returns a wave before its first step."""
        trial, _ = lane_ids(self._context.plan, trials)
        state = WaveState.begin(number, trial, streaming=self._spec.stream is not None)
        return Wave(self._context, group, state)

    def _begin_round(self, number: int) -> None:
        """Makes the waves of a round, and records its trials."""
        plan, mine = self._context.plan, self._trials_of(number)
        planned = [(g, own) for g in plan.groups for own in plan.arrangements[g.number].waves if own[0] in mine]
        # Numbers go on from those of the round before: curves and final states are found by the number of the wave.
        numbers = count(1 + max((wave.number for wave in self._waves), default=-1))
        self._set_waves([self._wave(next(numbers), group, trials) for group, trials in planned])
        self._progress = self._progress._replace(round=number, step=0)
        waves = {trial: wave.number for wave in self._waves for trial in wave.trials}
        groups = {trial: g.number for g in plan.groups for trial in g.trials}
        rows = []
        for trial in mine:
            hparams = self._spec.space.recorded(self._context.points[trial])
            width, wave = plan.arrangements[groups[trial]].width, waves.get(trial, NO_WAVE)
            rows.append(Planned(trial, number, groups[trial], wave, width, hparams))
        with self._store.transaction():
            self._store.add_trials(rows, plan.replicates)

    def _resume(self, saved: RunState) -> Resumed:
        """Makes the waves of a checkpoint's round; one that does not fit on these devices becomes several."""
        context = self._context
        found = restored(context, saved, self._trials_of(self._progress.round))
        waves = [(group.number, state.trials) for group, state, _ in found]
        context.plan = with_waves(self._spec, context.plan, waves)
        found = with_lanes(context, found, chain([saved], self._record.others()))
        self._set_waves([Wave(context, *each) for each in found])
        with self._store.transaction():
            self._store.move(self._places(self._waves))
        at = next((wave for wave in self._waves if not wave.finished), self._waves[-1])
        done, spared = self._progress.done, self._progress.spared
        return Resumed(step=at.step, live=int(at.live.sum()), lane_steps=done, spared=spared, **at.shared)

    def _places(self, waves: list[Wave]) -> dict[int, tuple[int, int]]:
        """Returns trial to the number of its wave and its width."""
        arrangements = self._context.plan.arrangements
        return {t: (wave.number, arrangements[wave.group.number].width) for wave in waves for t in wave.trials}

    def _train_round(self) -> Iterator[Event]:
        """Trains the waves of the round to their end.

        A group that runs out of memory begins anew at half its width, and one that has hardly begun at a width that is
        measured to be better; without one that fails the others go on.
        """
        while True:
            try:
                for event in self._train_waves():
                    yield event
                    measured = self._measure_width() if isinstance(event, SegmentFinished) else None
                    if measured is not None:
                        yield measured
                        if measured.anew:
                            break
                else:
                    return
                continue
            except OutOfMemoryError as error:
                group, reason = error.group, None
            except GroupFailedError as error:
                if nothing_left(self._waves, error.group):
                    raise (error.__cause__ or error) from None
                group, reason = error.group, error.reason
            # Outside of the handler: while it is handled, the error keeps what its frames hold on the devices.
            yield self._halve(group) if reason is None else self._fail(group, reason)

    def _train_waves(self) -> Iterator[Event]:
        """Trains the waves of the round, one after the other or as a race."""
        if self._spec.scheduler is None:
            for wave in self._waves:
                yield from wave.advance()
                wave.finish()
        else:
            race = RoundRace(self._context, self._spec.scheduler, self._waves, self._progress.step)
            yield from race.events()

    def _measure_width(self) -> WidthMeasured | None:
        """Has the tuner go on; once it knows the best width of a group, the group takes it if that saves time."""
        context = self._context
        found = self._tuner.step(context.plan, free=not any(wave.runs_ahead for wave in self._waves))
        if found is None:
            return None
        number, lost = found.group.number, 0
        context.plan = with_measured(context.plan, number, found.measured)
        before = context.plan.arrangements[number].width
        anew = found.width != before and self._saves_time(found)
        if anew:
            why = f"was measured to be faster than at the width {before}"
            lost = self._begin_anew(number, with_widths(self._spec, context.plan, {number: found.width}, why))
        else:
            self._record.amend(str(context.plan))
        own = next(wave for wave in self._waves if wave.group.number == number)
        width = context.plan.arrangements[number].width
        rates, seconds = found.measured.rates, found.seconds
        return WidthMeasured(rates=rates, width=width, anew=anew, lost=lost, seconds=seconds, **own.shared)

    def _saves_time(self, found: GroupMeasured) -> bool:
        """Returns whether a better width saves more time than what is lost when its group begins anew.

        All that the run did may be lost, unless the group has not begun.
        """
        begun = any(wave.computed for wave in self._waves_anew(found.group.number))
        lost = self._context.seconds if begun else 0.0
        return lost < LOST * found.saved

    def _fail(self, group: int, reason: str) -> GroupFailed:
        """Has the run go on without a group."""
        event, self._progress = fail_group(self._context, self._waves, self._progress, (group, reason))
        return event

    @property
    def _tried_again(self) -> bool:
        """Whether a run that ended has groups to try again.

        Those of earlier rounds are not, by what was found without them the later ones were chosen; nor any under a
        scheduler, which compared the others without them.
        """
        return self._spec.scheduler is None and any(wave.failed for wave in self._waves)

    def _halve(self, group: int) -> WidthHalved:
        """Has a group begin anew at half its width."""
        self._tuner.close()
        lost = self._begin_anew(group, halved(self._spec, self._context.plan, group))
        own = next(wave for wave in self._waves if wave.group.number == group)
        return WidthHalved(lost=lost, **own.shared)

    def _waves_anew(self, group: int) -> list[Wave]:
        """Returns the waves that begin anew if a group does.

        All waves of the group do, those that are finished too, as a group has one width; under a scheduler those of all
        groups, whose trials it compares.
        """
        racing = self._spec.scheduler is not None
        return [wave for wave in self._waves if racing or wave.group.number == group]

    def _begin_anew(self, group: int, plan: Plan) -> int:
        """Has a group begin anew by a plan that gives it another width; returns the lane-steps that are lost."""
        context, again = self._context, self._waves_anew(group)
        context.plan = plan
        trials = set[int]().union(*(wave.trials for wave in again))
        lost = min(sum(wave.computed for wave in again), self._progress.done)
        spared = min(sum(wave.spared_so_far for wave in again), self._progress.spared)
        for wave in again:
            wave.drop()
        context.points.update({trial: context.plan.points[trial] for trial in trials})
        context.scores = context.scores.without(trials)
        context.compiled.discard(group)
        self._set_waves(
            [
                self._wave(wave.number, wave.group, tuple(sorted(wave.trials))) if wave in again else wave
                for wave in self._waves
            ]
        )
        done, kept = self._progress.done - lost, self._progress.spared - spared
        self._progress = self._progress._replace(done=done, spared=kept, step=0)
        with self._store.transaction():
            self._store.forget([wave.number for wave in again], trials)
            self._store.move(self._places([wave for wave in self._waves if wave.trials <= trials]))
            # The checkpoint is written before the database forgets: one that is ahead of its checkpoint is rolled back,
            # but one that lacks what its checkpoint was made of is damaged.
            self._record.save(self._state, wait=True)
        self._store.artifacts.forget(trials)  # only now: what the checkpoint before had would not come back
        self._record.amend(str(context.plan))
        return lost

    def _state(self) -> RunState:
        """Returns all that the run needs to go on from here."""
        self._store.sync()
        self._context.artifacts.make()  # a run that is resumed does not make them again
        plan = self._context.plan
        status, lane_step = statuses_of(self._store.lanes(), plan.trials, plan.replicates)
        return RunState(
            progress=self._progress,
            scores=self._context.scores,
            status=status,
            lane_step=lane_step,
            clones=len(self._store.clones()),
            seconds=self._context.seconds,
            widths=np.array([each.width for each in plan.arrangements], np.int64),
            waves=tuple(wave.state() for wave in self._waves),
        )
