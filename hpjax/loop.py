"""The loop: every wave to its end, or from decision to decision of a scheduler. Run → tell → record."""

import operator
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from hpjax.engine import spread
from hpjax.errors import InputError
from hpjax.planning import Prepared
from hpjax.schedulers import Race, Scheduler
from hpjax.settings import Settings
from hpjax.standing import Standing
from hpjax.store import Store
from hpjax.text import show
from hpjax.wave import Event, Wave


def train(settings: Settings, prepared: Prepared, store: Store) -> Iterator[Event]:
    """Trains every trial of a plan into a fresh store, and says what happens."""
    plan = prepared.plan
    begun = time.perf_counter()
    together = [(g, trials) for g in plan.groups for trials in plan.waves[g.number]]
    place = {trial: (g.number, wave) for wave, (g, trials) in enumerate(together) for trial in trials}
    rows = [(t, *place[t], {n: _jsonable(v) for n, v in p.items()}) for t, p in enumerate(prepared.points)]
    with store.transaction():
        store.add_trials(rows, settings.lanes_a_trial)
    standing = Standing(settings.objective, plan.trials, settings.lanes_a_trial)
    mesh = spread.mesh(spread.local_devices(settings.devices))
    train, valid = settings.splits
    once = spread.put(train, mesh, spread.WHOLE)
    splits = once, once if valid is train else spread.put(valid, mesh, spread.WHOLE)
    waves = (
        Wave(settings, prepared, number, g, trials, mesh, splits, store, standing)
        for number, (g, trials) in enumerate(together)
    )
    try:
        if settings.scheduler is None:
            for wave in waves:
                yield from wave.advance()
        else:
            yield from _raced(settings.scheduler, list(waves), prepared, store, standing)
        with store.transaction():
            store.finish(time.perf_counter() - begun)
    finally:
        store.unlock()


def _raced(
    scheduler: Scheduler, waves: list[Wave], prepared: Prepared, store: Store, standing: Standing
) -> Iterator[Event]:
    """All waves side by side, from one decision to the next."""
    every, budget = prepared.plan.groups[0].eval_every, max(prepared.plan.budgets)
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
            break
        stopped = _decided(scheduler, standing.race(step, budget, live))
        changes = [(wave, wave.stop(stopped)) for wave in waves]
        ended = [change for _, own in changes for change in own]
        standing.update((), (), {}, ended)
        with store.transaction():
            store.add_changes(ended)
        yield Event(
            "decision",
            group=-1,
            groups=len(prepared.plan.groups),
            step=step,
            steps=budget,
            live=sum(int(wave.live.sum()) for wave in waves),
            lanes=sum(wave.size for wave in waves),
            spared=sum(wave.spared(own) for wave, own in changes),
            changes=tuple(ended),
            best=standing.best(),
        )


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
