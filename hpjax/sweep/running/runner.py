"""The loop: every round to its end, wave by wave or as a race. Run → tell → record, and go on where one was cut."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import count

import jax
import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import RunError
from hpjax.core.space import Point
from hpjax.engine.device_errors import OutOfMemoryError
from hpjax.engine.distributed import holding_together, several
from hpjax.results.store.checkpoints import Cut
from hpjax.results.store.rows import NO_WAVE, STATUSES, Planned
from hpjax.sweep.planning.arrange import narrowed, pieces, regrouped
from hpjax.sweep.planning.plan import Group
from hpjax.sweep.planning.planner import Prepared, prepare
from hpjax.sweep.running.events import Event
from hpjax.sweep.running.preemption import leave, notices
from hpjax.sweep.running.race import RunProgress, jsonable, raced
from hpjax.sweep.running.recorder import Record
from hpjax.sweep.running.wave import Wave, part_of, run_context
from hpjax.sweep.spec import Settings


def train(settings: Settings, prepared: Prepared, record: Record) -> Iterator[Event]:
    """Trains every trial of a sweep, round after round, and says what happens.

    Args:
      settings, prepared: the sweep, and the plan of its first round.
      record: where it is recorded, and where to go on.

    Raises:
      Preempted: a notice came, and a checkpoint is written.
      RunError: the record cannot be written, or one lane alone does not fit in memory.
    """
    run = _Run(settings, prepared, record)
    try:
        yield from run.events()
    finally:
        run.close()


class _Ahead:
    """Whether no checkpoint is about to be made, which needs all lanes at the step that was told of.

    Args:
      record: what says when one is due.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self.leaving: Callable[[], int] = lambda: 0

    def __call__(self) -> bool:
        return not several() and not self.leaving() and not self._record.due(False)


class _Run:
    """A sweep that trains.

    Args:
      settings, prepared, record: as for ``train``.
    """

    def __init__(self, settings: Settings, prepared: Prepared, record: Record) -> None:
        self._settings, self._prepared, self._record = settings, prepared, record
        self._store, self._cut = record.store, record.cut
        self._begun = time.perf_counter()
        self._ahead = _Ahead(record)
        self._place = run_context(settings, prepared.plan, self._store, self._ahead)
        self._reached = RunProgress()
        if self._cut is not None:
            self._begun -= self._cut.about["seconds"]
            self._place.scores.resume(self._cut.part("standing"))
            self._reached = RunProgress(**self._cut.about["reached"])
            self._prepared = prepared._replace(
                plan=narrowed(settings, prepared.plan, dict(self._cut.about["narrowed"]))
            )
        self._waves: list[Wave] = []
        self._next_wave = 0

    def close(self) -> None:
        """Ends what goes on beside."""
        self._place.feeds.close()
        self._record.close()

    def events(self) -> Iterator[Event]:
        """All that happens."""
        record, reached, first = self._record, self._reached, self._reached.round
        heeding = notices() if record.directory is not None else nullcontext(lambda: 0)
        with holding_together(), heeding as leaving:
            self._ahead.leaving = leaving
            for number in range(len(self._prepared.plan.rounds)):
                again = self._cut is not None and number == first
                self._prepare(number)
                if number < first:
                    continue
                if again:
                    yield self._resume()
                else:
                    self._begin(number)
                for event in self._round():
                    reached.done += max(event.lane_steps, 0)  # what narrowing took back is off already
                    reached.spared += event.spared
                    yield event
                    if any(wave.ahead for wave in self._waves):
                        continue
                    over = leaving()
                    if over or record.due(event.kind == "decision"):
                        record.save(self._here)
                    if over and record.directory is not None:
                        record.close()
                        leave(over, record.directory)
        record.finish(time.perf_counter() - self._begun)

    def _prepare(self, number: int) -> None:
        """Plans a round, from what those before it found."""
        points = self._place.points
        if number > 0:
            history = self._place.scores.history([points[t] for t in sorted(points)])
            self._prepared = prepare(self._settings, self._prepared, history)
        mine = self._trials_of(number)
        points.update({trial: self._prepared.points[trial] for trial in mine})
        if self._cut is not None and number <= self._reached.round:
            points.update(self._taken_over(mine))

    def _trials_of(self, number: int) -> range:
        rounds = self._prepared.plan.rounds
        return range(sum(rounds[:number]), sum(rounds[: number + 1]))

    def _taken_over(self, trials: range) -> dict[int, Point]:
        """The hyperparameters that trials went on with from the states of others."""
        points, recalled = self._place.points, self._settings.space.recalled
        found = {trial: hparams for trial, _, _, hparams in self._store.clones() if trial in trials}
        return {trial: recalled(points[trial], hparams) for trial, hparams in found.items()}

    def _round_of(self, waves: list[Wave]) -> None:
        """Has a round of these waves."""
        self._waves = waves
        for wave, after in zip(waves, [*waves[1:], None], strict=True):
            wave.next = after

    def _wave(self, number: int, group: Group, trials: tuple[int, ...]) -> Wave:
        self._next_wave = max(self._next_wave, number + 1)
        return Wave(self._settings, self._prepared, number, group, trials, self._place)

    def _begin(self, number: int) -> None:
        """Records the trials of a round, and begins its waves."""
        plan, mine, first = self._prepared.plan, self._trials_of(number), self._next_wave
        planned = [(g, trials) for g in plan.groups for trials in plan.waves[g.number] if trials[0] in mine]
        self._round_of([self._wave(first + i, g, trials) for i, (g, trials) in enumerate(planned)])
        self._reached.round, self._reached.step = number, 0
        waves = {trial: wave.number for wave in self._waves for trial in wave.trials}
        groups = {trial: g.number for g in plan.groups for trial in g.trials}
        points = {trial: {n: jsonable(v) for n, v in self._place.points[trial].items()} for trial in mine}
        rows = [Planned(t, number, groups[t], waves.get(t, NO_WAVE), plan.width_of(groups[t]), points[t]) for t in mine]
        with self._store.transaction():
            self._store.add_trials(rows, self._settings.lanes_a_trial)

    def _resume(self) -> Event:
        """Goes back to where the cut was made; where a wave does not fit on these devices, as several."""
        assert self._cut is not None
        numbers, group_of = self._cut.about["waves"], {t: g for g in self._prepared.plan.groups for t in g.trials}
        found: list[tuple[int, Group, tuple[int, ...], Cut]] = []
        new = count(max(numbers) + 1)
        for number in numbers:
            part = self._cut.part(f"wave-{number}")
            trials = tuple(dict.fromkeys(part.arrays["trial"].tolist()))
            group = group_of[trials[0]]
            fitting = [trials] if part.about["finished"] else pieces(self._settings, self._prepared.plan, group, trials)
            for i, own in enumerate(fitting):
                found.append((number if i == 0 else next(new), group, own, part_of(part, own)))
        found.sort(key=lambda each: each[0])
        plan = regrouped(self._settings, self._prepared.plan, [(group, own) for _, group, own, _ in found])
        self._prepared = self._prepared._replace(plan=plan)
        self._round_of([self._wave(number, group, own) for number, group, own, _ in found])
        for wave, (*_, part) in zip(self._waves, found, strict=True):
            wave.resume(part)
        with self._store.transaction():
            self._store.move(self._places(self._waves))
        at = next((wave for wave in self._waves if not wave.finished), self._waves[-1])
        return at.resumed(self._reached.done, self._reached.spared)

    def _places(self, waves: list[Wave]) -> dict[int, tuple[int, int]]:
        """Trial to the number of its wave and its width."""
        plan = self._prepared.plan
        return {t: (wave.number, plan.width_of(wave.group.number)) for wave in waves for t in wave.trials}

    def _round(self) -> Iterator[Event]:
        """Trains the waves of a round; a group that runs out of memory begins again, of half the width."""
        settings = self._settings
        while True:
            try:
                if settings.scheduler is None:
                    for wave in self._waves:
                        yield from wave.advance()
                        wave.finish()
                else:
                    yield from raced(
                        settings, settings.scheduler, self._waves, self._prepared, self._reached, self._place
                    )
                return
            except OutOfMemoryError as error:
                group = error.group
            yield self._narrow(group)

    def _narrow(self, group: int) -> Event:
        """Has a group begin anew at half its width; in a race, which compares all of them, all groups."""
        plan = self._prepared.plan
        width = plan.width_of(group)
        if several():
            raise RunError(
                f"group {group} runs out of memory at the width {width} on host {jax.process_index()}, and hosts "
                f"cannot agree on another while they run. Begin anew with width={ceil_div(width, 2)}."
            )
        if width == 1:
            raise RunError(
                f"group {group} runs out of memory with one lane at a time. Make its model or its batch smaller, let "
                "evaluations take fewer examples at once, or use fewer trials."
            )
        widths = {**plan.narrowed, group: ceil_div(width, 2)}
        self._prepared = self._prepared._replace(plan=narrowed(self._settings, plan, widths))
        raced = self._settings.scheduler is not None
        again = [wave for wave in self._waves if raced or wave.group.number == group]
        trials = set[int]().union(*(wave.trials for wave in again))
        for wave in again:
            wave.drop()
        self._place.points.update({trial: self._prepared.points[trial] for trial in trials})
        self._place.scores.forget(trials)
        self._round_of(
            [
                self._wave(wave.number, wave.group, tuple(sorted(wave.trials))) if wave in again else wave
                for wave in self._waves
            ]
        )
        self._place.compiled.discard(group)
        if raced:
            self._reached.step = 0
        lost = min(sum(wave.computed for wave in again), self._reached.done)
        self._reached.done -= lost
        with self._store.transaction():
            self._store.forget([wave.number for wave in again], trials)
            self._store.move(self._places([wave for wave in self._waves if wave.trials <= trials]))
            # The checkpoint first: what it does not know of is rolled back, what it needs must not be gone.
            self._record.save(self._here, at_once=True)
        self._record.amend(str(self._prepared.plan))
        own = next(wave for wave in again if wave.group.number == group)
        return own.narrowed(lost)

    def _here(self) -> Cut:
        """All that is needed to go on from here."""
        store = self._store
        store.sync()
        rows = [[c.trial, c.replicate, STATUSES.index(c.status), c.step] for c in store.lanes()]
        about = {
            "reached": asdict(self._reached),
            "narrowed": sorted(self._prepared.plan.narrowed.items()),
            "waves": [wave.number for wave in self._waves],
            "seconds": time.perf_counter() - self._begun,
            "clones": len(store.clones()),
        }
        parts = {"lanes": Cut({}, {"changes": np.array(rows, np.int64)}), "standing": self._place.scores.cut()}
        return Cut.of(about, parts | {f"wave-{wave.number}": wave.cut() for wave in self._waves})
