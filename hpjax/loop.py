"""The loop: every wave to its end, or from decision to decision of a scheduler. Run → tell → record."""

import operator
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hpjax.checkpoint import Cut
from hpjax.distributed import holding_together
from hpjax.engine.plan import Group
from hpjax.errors import InputError
from hpjax.planning import Prepared, check_point, prepare
from hpjax.preemption import Preempted, notices
from hpjax.record import Record
from hpjax.schedulers import Clone, Race, Scheduler
from hpjax.settings import Settings
from hpjax.space import Point
from hpjax.store import NO_WAVE, STATUSES
from hpjax.text import show
from hpjax.wave import Event, Place, Wave, place_for


def train(settings: Settings, prepared: Prepared, record: Record) -> Iterator[Event]:
    """Trains every trial of a sweep, round after round, and says what happens.

    Args:
      settings, prepared: the sweep, and the plan of its first round.
      record: where it is recorded, and where to go on.

    Raises:
      Preempted: a notice came, and a checkpoint is written.
      RunError: the record cannot be written.
    """
    store, cut = record.store, record.cut
    begun = time.perf_counter() - (0.0 if cut is None else cut.about["seconds"])
    place = place_for(settings, prepared.plan, store)
    standing = place.standing
    reached = Reached()
    if cut is not None:
        standing.resume(cut.part("standing"))
        reached = Reached(**cut.about["reached"])
    first, waves = reached.round, 0
    try:
        with holding_together(), notices() if record.directory is not None else nullcontext(lambda: False) as leaving:
            for number in range(len(prepared.plan.rounds)):
                if number > 0:
                    history = standing.history([place.points[t] for t in sorted(place.points)])
                    prepared = prepare(settings, prepared, history)
                mine = _trials_of(prepared, number)
                place.points.update({trial: prepared.points[trial] for trial in mine})
                if number <= first and cut is not None:
                    place.points.update(_taken_over(settings, place, mine))
                groups = _waves_of(prepared, number)
                if number < first:
                    waves += len(groups)
                    continue
                started = [
                    Wave(settings, prepared, waves + i, g, trials, place) for i, (g, trials) in enumerate(groups)
                ]
                if number > first or cut is None:
                    reached.round, reached.step = number, 0
                    _record(settings, prepared, number, waves, place)
                else:
                    for wave in started:
                        wave.resume(cut.part(f"wave-{wave.number}"))
                    at = next((wave for wave in started if not wave.finished), started[-1])
                    yield at.resumed(reached.done, reached.spared)
                waves += len(started)
                for event in _round(settings, started, prepared, reached, place):
                    reached.done += event.lane_steps
                    reached.spared += event.spared
                    yield event
                    over = leaving()
                    if over or record.due(event.kind == "decision"):
                        record.save(_cut(reached, started, place, time.perf_counter() - begun))
                    if over and record.directory is not None:
                        record.close()
                        raise Preempted(record.directory)
        record.finish(time.perf_counter() - begun)
    finally:
        place.feeds.close()
        record.close()


@dataclass
class Reached:
    """How far a run is.

    Attributes:
      round: its number.
      step: of the last decision in it.
      done: lane-steps that were computed.
      spared: those that lanes which ended early will not take.
    """

    round: int = 0
    step: int = 0
    done: int = 0
    spared: int = 0


def _round(
    settings: Settings, waves: list[Wave], prepared: Prepared, reached: Reached, place: Place
) -> Iterator[Event]:
    if settings.scheduler is not None:
        yield from _raced(settings, settings.scheduler, waves, prepared, reached, place)
        return
    for wave in waves:
        yield from wave.advance()
        wave.finish()


def _trials_of(prepared: Prepared, number: int) -> range:
    rounds = prepared.plan.rounds
    return range(sum(rounds[:number]), sum(rounds[: number + 1]))


def _waves_of(prepared: Prepared, number: int) -> list[tuple[Group, tuple[int, ...]]]:
    """Group and trials of each wave of a round."""
    plan, mine = prepared.plan, _trials_of(prepared, number)
    return [(g, trials) for g in plan.groups for trials in plan.waves[g.number] if trials[0] in mine]


def _record(settings: Settings, prepared: Prepared, number: int, first: int, place: Place) -> None:
    """Records the trials of a round; ``first`` is the number of its first wave."""
    waves = {t: first + i for i, (_, trials) in enumerate(_waves_of(prepared, number)) for t in trials}
    groups = {t: g.number for g in prepared.plan.groups for t in g.trials}
    rows = [
        (t, number, groups[t], waves.get(t, NO_WAVE), {n: _jsonable(v) for n, v in prepared.points[t].items()})
        for t in _trials_of(prepared, number)
    ]
    with place.store.transaction():
        place.store.add_trials(rows, settings.lanes_a_trial)


def _taken_over(settings: Settings, place: Place, trials: range) -> dict[int, Point]:
    """The hyperparameters that trials went on with from the states of others."""
    found = {trial: hparams for trial, _, _, hparams in place.store.takeovers() if trial in trials}
    return {trial: settings.space.recalled(place.points[trial], hparams) for trial, hparams in found.items()}


def _cut(reached: Reached, waves: list[Wave], place: Place, seconds: float) -> Cut:
    """All that is needed to go on from here."""
    place.store.sync()
    rows = [[c.trial, c.replicate, STATUSES.index(c.status), c.step] for c in place.store.lanes()]
    about = {
        "reached": asdict(reached),
        "waves": [wave.number for wave in waves],
        "seconds": seconds,
        "takeovers": len(place.store.takeovers()),
    }
    parts = {"lanes": Cut({}, {"changes": np.array(rows, np.int64)}), "standing": place.standing.cut()}
    return Cut.of(about, parts | {f"wave-{wave.number}": wave.cut() for wave in waves})


def _raced(
    settings: Settings, scheduler: Scheduler, waves: list[Wave], prepared: Prepared, reached: Reached, place: Place
) -> Iterator[Event]:
    """The waves of a round side by side, from one decision to the next."""
    trials = sorted(set[int]().union(*(wave.trials for wave in waves)))
    every, budget = prepared.plan.groups[0].eval_every, max(prepared.plan.budgets[t] for t in trials)
    while any(wave.live.any() for wave in waves):
        step = reached.step
        wanted = scheduler.next(step)
        if wanted <= step:
            raise InputError("Scheduler.next", wanted, f"must be above the step, {step}", "Mend it.")
        step = -(-wanted // every) * every
        for wave in waves:
            yield from wave.advance(step)
        live = set[int]().union(*(wave.live_trials for wave in waves))
        if not live:
            _finish(waves)
            break
        race = place.standing.race(step, budget, live, trials)._replace(
            points=dict(place.points),
            groups={trial: wave.group.number for wave in waves for trial in wave.trials},
            free=frozenset(verdict.name for verdict in prepared.plan.verdicts if verdict.traced),
            space=settings.space,
            seed=settings.seed,
        )
        stopped = _decided(scheduler, race)
        changes = [(wave, wave.stop(stopped)) for wave in waves]
        ended = [change for _, own in changes for change in own.values()]
        running = {wave.group.number for wave in waves if wave.live.any()}
        lost = set[int]().union(*(wave.lost for wave in waves if wave.group.number in running))
        live -= stopped
        clones = scheduler.replace(race._replace(live=tuple(sorted(live)), population=tuple(sorted(live | lost))))
        for trial, clone in clones.items():
            _check_clone(settings, prepared, race, live, lost, trial, clone)
        home = {trial: wave for wave in waves for trial in wave.trials}
        steps = {trial: home[clone.source].taken(clone.source) for trial, clone in clones.items()}
        # Before any of them takes over another's state. Of one group, two waves are never on the devices.
        elsewhere = {
            clone.source: home[clone.source].lanes_of(clone.source)
            for trial, clone in clones.items()
            if home[trial] is not home[clone.source]
        }
        again = [change for wave in waves for change in wave.clone(clones, elsewhere)]
        _finish(waves)
        place.points.update({trial: clone.point for trial, clone in clones.items()})
        place.standing.changed(ended)
        with place.store.transaction():
            place.store.add_changes([*ended, *again])
            place.store.add_takeovers(
                (trial, steps[trial], clone.source, {name: _jsonable(value) for name, value in clone.point.items()})
                for trial, clone in sorted(clones.items())
            )
        reached.step = step
        yield Event(
            "decision",
            group=-1,
            groups=len(prepared.plan.groups),
            round=reached.round,
            step=step,
            steps=budget,
            live=sum(int(wave.live.sum()) for wave in waves),
            lanes=sum(wave.size for wave in waves),
            spared=sum(wave.spared(own) for wave, own in changes),
            changes=(*ended, *again),
            best=place.standing.best(),
        )

    for wave in waves:  # those that a resumed run finds at their end
        yield from wave.advance()
    _finish(waves)


def _finish(waves: list[Wave]) -> None:
    """Records the states of groups that ended; until then any of their trials may run again as another's clone."""
    running = {wave.group.number for wave in waves if wave.live.any()}
    for wave in waves:
        if wave.group.number not in running:
            wave.finish()


def _check_clone(
    settings: Settings, prepared: Prepared, race: Race, live: set[int], lost: set[int], trial: int, clone: Clone
) -> None:
    """Raises ``InputError`` where a trial cannot go on so."""
    if trial not in live | lost or clone.source not in live or race.groups[trial] != race.groups[clone.source]:
        allowed = "must clone a live trial of the same group into a live or a diverged one"
        raise InputError("Scheduler.replace", (trial, clone.source), allowed, "Look at race.groups.")
    settings.space.branch_of(clone.point)
    before = race.points[trial]
    for name in clone.point:
        if name not in race.free and clone.point[name] != before.get(name, None):
            raise InputError("Scheduler.replace", name, "is static and cannot change while trials run", "Keep it.")
    check_point(settings, prepared, trial, clone.point)


def _decided(scheduler: Scheduler, race: Race) -> set[int]:
    """The trials that the scheduler stops now."""
    answer = scheduler.decide(race)
    try:
        decided = list(answer)
        chosen = {operator.index(trial) for trial in decided if not isinstance(trial, bool)}
        fits = len(chosen) == len(set(decided)) and chosen <= set(race.live)
    except TypeError:
        fits = False
    if not fits:
        raise InputError("Scheduler.decide", answer, "must give ids of live trials", "Choose among race.live.")
    return chosen


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return [_jsonable(v) for v in value]
    return value if isinstance(value, bool | int | float | str | None) else show(value)
