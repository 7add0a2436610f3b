"""A race: the waves of a round side by side, from one decision of a scheduler to the next."""

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError
from hpjax.core.format import show
from hpjax.results.store.rows import Change
from hpjax.schedulers import Clone, Race, Scheduler
from hpjax.sweep.planning.planner import check_point
from hpjax.sweep.running.context import RunContext
from hpjax.sweep.running.events import Decision, Event
from hpjax.sweep.running.state import RunProgress
from hpjax.sweep.running.wave import Wave


class RoundRace:
    """The waves of a round that a scheduler decides on.

    Args:
      context: what the waves share.
      scheduler: decides.
      waves: of the round.
      progress: where the last decision was.

    Attributes:
      progress: where the last decision is now.
    """

    def __init__(self, context: RunContext, scheduler: Scheduler, waves: list[Wave], progress: RunProgress) -> None:
        self._context, self._scheduler, self._waves, self.progress = context, scheduler, waves, progress
        self._trials = sorted(set[int]().union(*(wave.trials for wave in waves)))
        self._budget = max(context.plan.budgets[trial] for trial in self._trials)
        self._home = {trial: wave for wave in waves for trial in wave.trials}

    def events(self) -> Iterator[Event]:
        """Trains the waves to the end, and yields what happens."""
        every = self._context.plan.groups[0].eval_every
        while any(wave.live.any() for wave in self._waves):
            step = self.progress.step
            wanted = self._scheduler.next(step)
            if wanted <= step:
                remedy = f"Return {step} + the steps until the next decision."
                raise InputError("Scheduler.next", wanted, f"must be above the step, {step}", remedy)
            step = ceil_div(wanted, every) * every
            # Where each lane stops on its own is known; that all stop here makes their scores comparable.
            for wave in self._waves:
                yield from wave.advance(step)
            if not any(wave.live.any() for wave in self._waves):
                self._finish()
                break
            yield self._decide(step)
        for wave in self._waves:  # those that a resumed run finds at their end
            yield from wave.advance()
        self._finish()

    def _decide(self, step: int) -> Decision:
        """Has the scheduler stop trials, and then replace some by clones of others."""
        context, live = self._context, set[int]().union(*(wave.live_trials for wave in self._waves))
        race = context.scores.race(step, self._budget, live, self._trials)._replace(
            points=dict(context.points),
            groups={trial: wave.group.number for trial, wave in self._home.items()},
            free=frozenset(verdict.name for verdict in context.plan.verdicts if verdict.traced),
            space=context.spec.space,
            seed=context.spec.seed,
        )
        stopped = _decided(self._scheduler, race)
        changes = [(wave, wave.stop(stopped)) for wave in self._waves]
        ended = [change for _, own in changes for change in own.values()]
        spared = sum(wave.spared(own) for wave, own in changes)
        live -= stopped
        # A group none of whose lanes runs has its final states, and no trial of it can run again.
        running = {wave.group.number for wave in self._waves if wave.live.any()}
        lost = set[int]().union(*(wave.lost_trials for wave in self._waves if wave.group.number in running))
        population = tuple(sorted(live | lost))
        clones = self._scheduler.replace(race._replace(live=tuple(sorted(live)), population=population))
        for trial, clone in clones.items():
            self._check_clone(race, live, lost, trial, clone)
        again = self._clone(clones, ended)
        self._finish()
        self.progress = self.progress._replace(step=step)
        return Decision(
            round=self.progress.round,
            step=step,
            steps=self._budget,
            live=sum(int(wave.live.sum()) for wave in self._waves),
            lanes=sum(wave.size for wave in self._waves),
            spared=spared,
            changes=(*ended, *again),
            best=context.best,
        )

    def _clone(self, clones: Mapping[int, Clone], ended: list[Change]) -> list[Change]:
        """Has trials go on from the states of others, and records that with what ended before."""
        context, home = self._context, self._home
        steps = {trial: home[clone.source].taken(clone.source) for trial, clone in clones.items()}
        # Read before any of them is overwritten. Two waves of one group are never on the devices together.
        from_others = {
            clone.source: home[clone.source].lanes_of(clone.source)
            for trial, clone in clones.items()
            if home[trial] is not home[clone.source]
        }
        again = [change for wave in self._waves for change in wave.clone(clones, from_others)]
        context.points.update({trial: clone.point for trial, clone in clones.items()})
        context.scores = context.scores.with_changes(ended)
        with context.store.transaction():
            context.store.add_changes([*ended, *again])
            context.store.add_clones(
                (trial, steps[trial], clone.source, {name: jsonable(value) for name, value in clone.point.items()})
                for trial, clone in sorted(clones.items())
            )
        return again

    def _finish(self) -> None:
        """Records the states of groups that ended; until then any of their trials may run again as another's clone."""
        running = {wave.group.number for wave in self._waves if wave.live.any()}
        for wave in self._waves:
            if wave.group.number not in running:
                wave.finish()

    def _check_clone(self, race: Race, live: set[int], lost: set[int], trial: int, clone: Clone) -> None:
        """Raises ``InputError`` unless a trial can go on so."""
        if trial not in live | lost or clone.source not in live or race.groups[trial] != race.groups[clone.source]:
            allowed = "must clone a live trial of the same group into a live or a diverged one"
            remedy = "Choose both among the trials of one group in race.groups."
            raise InputError("Scheduler.replace", (trial, clone.source), allowed, remedy)
        self._context.spec.space.branch_of(clone.point)
        before = race.points[trial]
        for name in clone.point:
            if name not in race.free and clone.point[name] != before.get(name, None):
                remedy = f"Keep {name}={show(before.get(name, None))}, or change names in race.free only."
                raise InputError("Scheduler.replace", name, "is static and cannot change while trials run", remedy)
        check_point(self._context.spec, self._context.plan, trial, clone.point)


def _decided(scheduler: Scheduler, race: Race) -> set[int]:
    """Returns the trials that the scheduler stops now."""
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
    """Returns a hyperparameter as JSON has it."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return [jsonable(v) for v in value]
    return value if isinstance(value, bool | int | float | str | None) else show(value)
