"""The loop: every wave to its end, or from decision to decision of a scheduler. Run → tell → record."""

import operator
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from hpjax.engine import spread
from hpjax.errors import InputError
from hpjax.planning import Prepared, check_point, prepare
from hpjax.schedulers import Clone, Race, Scheduler
from hpjax.settings import Settings
from hpjax.standing import Standing
from hpjax.store import Store
from hpjax.text import show
from hpjax.wave import Event, Place, Wave


def train(settings: Settings, prepared: Prepared, store: Store) -> Iterator[Event]:
    """Trains every trial of a sweep into a fresh store, round after round, and says what happens."""
    begun = time.perf_counter()
    mesh = spread.mesh(spread.local_devices(settings.devices))
    train, valid = settings.splits
    once = spread.put(train, mesh, spread.WHOLE)
    splits = once, once if valid is train else spread.put(valid, mesh, spread.WHOLE)
    standing = Standing(settings.objective, prepared.plan.rounds, settings.lanes_a_trial)
    place = Place(mesh, splits, store, standing, set(), {})
    waves = 0
    try:
        for number in range(len(prepared.plan.rounds)):
            if number > 0:
                prepared = prepare(
                    settings, prepared, standing.history([place.points[t] for t in sorted(place.points)])
                )
            started = _started(settings, prepared, number, waves, place)
            waves += len(started)
            if settings.scheduler is None:
                for wave in started:
                    yield from wave.advance()
                    wave.finish()
            else:
                yield from _raced(settings, settings.scheduler, started, prepared, number, place)
        with store.transaction():
            store.finish(time.perf_counter() - begun)
    finally:
        store.unlock()


def _started(settings: Settings, prepared: Prepared, number: int, first: int, place: Place) -> list[Wave]:
    """The waves of a round, whose trials are recorded; ``first`` is the number of the first wave."""
    plan = prepared.plan
    mine = range(sum(plan.rounds[:number]), sum(plan.rounds[: number + 1]))
    together = [(g, trials) for g in plan.groups for trials in plan.waves[g.number] if trials[0] in mine]
    rows = [
        (t, number, g.number, first + wave, {n: _jsonable(v) for n, v in prepared.points[t].items()})
        for wave, (g, trials) in enumerate(together)
        for t in trials
    ]
    place.points.update({trial: prepared.points[trial] for trial in mine})
    with place.store.transaction():
        place.store.add_trials(rows, settings.lanes_a_trial)
    return [Wave(settings, prepared, first + i, g, trials, place) for i, (g, trials) in enumerate(together)]


def _raced(
    settings: Settings, scheduler: Scheduler, waves: list[Wave], prepared: Prepared, number: int, place: Place
) -> Iterator[Event]:
    """The waves of a round side by side, from one decision to the next."""
    trials = sorted(set[int]().union(*(wave.live_trials for wave in waves)))
    every, budget = prepared.plan.groups[0].eval_every, max(prepared.plan.budgets[t] for t in trials)
    step = 0
    while any(wave.live.any() for wave in waves):
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
        yield Event(
            "decision",
            group=-1,
            groups=len(prepared.plan.groups),
            round=number,
            step=step,
            steps=budget,
            live=sum(int(wave.live.sum()) for wave in waves),
            lanes=sum(wave.size for wave in waves),
            spared=sum(wave.spared(own) for wave, own in changes),
            changes=(*ended, *again),
            best=place.standing.best(),
        )


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
