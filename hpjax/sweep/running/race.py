"""A race: the waves of a round side by side, from one decision of a scheduler to the next."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError
from hpjax.core.format import show
from hpjax.schedulers import Clone, Race, Scheduler
from hpjax.sweep.planning.planner import Prepared, check_point
from hpjax.sweep.running.events import Event
from hpjax.sweep.running.wave import RunContext, Wave
from hpjax.sweep.spec import Settings


@dataclass
class RunProgress:
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


def raced(
    settings: Settings,
    scheduler: Scheduler,
    waves: list[Wave],
    prepared: Prepared,
    reached: RunProgress,
    place: RunContext,
) -> Iterator[Event]:
    """Trains the waves of a round, and says what happens; ``reached`` is where the last decision was."""
    trials = sorted(set[int]().union(*(wave.trials for wave in waves)))
    every, budget = prepared.plan.groups[0].eval_every, max(prepared.plan.budgets[t] for t in trials)
    while any(wave.live.any() for wave in waves):
        step = reached.step
        wanted = scheduler.next(step)
        if wanted <= step:
            raise InputError("Scheduler.next", wanted, f"must be above the step, {step}", "Mend it.")
        step = ceil_div(wanted, every) * every
        for wave in waves:
            yield from wave.advance(step)
        live = set[int]().union(*(wave.live_trials for wave in waves))
        if not live:
            _finish(waves)
            break
        race = place.scores.race(step, budget, live, trials)._replace(
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
        place.scores.changed(ended)
        with place.store.transaction():
            place.store.add_changes([*ended, *again])
            place.store.add_clones(
                (trial, steps[trial], clone.source, {name: jsonable(value) for name, value in clone.point.items()})
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
            best=place.scores.best(),
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


def jsonable(value: Any) -> Any:
    """A hyperparameter as JSON has it."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return [jsonable(v) for v in value]
    return value if isinstance(value, bool | int | float | str | None) else show(value)
