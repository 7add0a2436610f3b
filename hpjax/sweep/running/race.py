"""A race: the waves of a round side by side, from one decision of a scheduler to the next."""

import operator
from collections.abc import Iterator, Mapping

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError
from hpjax.core.format import show
from hpjax.results.store.rows import Change
from hpjax.schedulers import Clone, Race, Scheduler
from hpjax.sweep.planning.planner import check_point
from hpjax.sweep.running.context import RunContext
from hpjax.sweep.running.events import Decision, Event
from hpjax.sweep.running.wave import Wave


class RoundRace:
    """The waves of a round that a scheduler decides on.

    Args:
      context: what the waves share.
      scheduler: decides which trials stop, and which go on from the state of another.
      waves: all waves of the round.
      step: the call of ``step`` at which the scheduler decided last; 0 before its first decision.
    """

    def __init__(self, context: RunContext, scheduler: Scheduler, waves: list[Wave], step: int) -> None:
        self._context, self._waves, self._step = context, waves, step
        self._trials = sorted(set[int]().union(*(wave.trials for wave in waves)))
        self._budget = max(context.plan.budgets[trial] for trial in self._trials)
        self._scheduler = scheduler.within(self._budget)
        self._wave_of = {trial: wave for wave in waves for trial in wave.trials}

    def events(self) -> Iterator[Event]:
        """Trains the waves to the end, and yields what happens."""
        while self._any_live():
            # All waves stop at the same step, an evaluation of all of them: only then can their scores be compared,
            # and no wave knows before the decision whether its lanes go on.
            until = self._next_decision()
            for wave in self._waves:
                yield from wave.advance(until)
            if self._any_live():
                yield self._decide(until)
        # A run may have been interrupted after the last lane of a wave ended and before its final states were
        # recorded. When it is resumed, advancing brings the lanes of such a wave back to the devices.
        for wave in self._waves:
            yield from wave.advance()
        self._finish_groups()

    def _any_live(self) -> bool:
        return any(wave.live.any() for wave in self._waves)

    def _next_decision(self) -> int:
        """Returns the step of the next decision: the first evaluation at or after the step that the scheduler names."""
        wanted, every = self._scheduler.next(self._step), self._context.plan.groups[0].eval_every
        if wanted <= self._step:
            remedy = f"Return {self._step} + the steps until the next decision."
            raise InputError("Scheduler.next", wanted, f"must be above the step, {self._step}", remedy)
        return int(ceil_div(wanted, every) * every)

    def _decide(self, step: int) -> Decision:
        """Has the scheduler stop trials, and then has it replace some by clones of others."""
        context, live = self._context, set[int]().union(*(wave.live_trials for wave in self._waves))
        race = context.scores.race(step, self._budget, live, self._trials)._replace(
            points=dict(context.points),
            groups={trial: wave.group.number for trial, wave in self._wave_of.items()},
            free=context.plan.free,
            space=context.spec.space,
            seed=context.spec.seed,
        )
        stopped = _stopped_by(self._scheduler, race)
        stops = [(wave, wave.stop(stopped)) for wave in self._waves]
        ended = [change for _, changes in stops for change in changes.values()]
        spared = sum(wave.spared(changes) for wave, changes in stops)
        live -= stopped
        clones = self._clones(race, live)
        again = self._clone(clones, ended)
        # Only now: until the clones are known, a stopped wave may be brought to life again.
        self._finish_groups()
        self._step = step
        return Decision(
            round=context.plan.round_of(self._trials[0]),
            step=step,
            steps=self._budget,
            live=sum(int(wave.live.sum()) for wave in self._waves),
            lanes=sum(wave.size for wave in self._waves),
            spared=spared,
            changes=(*ended, *again),
            best=context.best,
        )

    def _clones(self, race: Race, live: set[int]) -> Mapping[int, Clone]:
        """Returns the trials that go on as clones of others, as the scheduler says.

        Raises:
          InputError: a trial cannot go on so.
        """
        # The states of a group without a live lane are about to be recorded, and have no live source to clone. In the
        # other groups trials of which a lane diverged may go on from the state of a live one.
        running = self._running_groups()
        lost = set[int]().union(*(wave.lost_trials for wave in self._waves if wave.group.number in running))
        population = tuple(sorted(live | lost))
        race = race._replace(live=tuple(sorted(live)), population=population)
        answer = self._scheduler.replace(race)
        for trial, clone in answer.items():
            self._check_clone(race, trial, clone)
        canonical = self._context.spec.space.canonical
        return {int(trial): Clone(int(clone.source), canonical(clone.point)) for trial, clone in answer.items()}

    def _clone(self, clones: Mapping[int, Clone], ended: list[Change]) -> list[Change]:
        """Has trials go on from the states of others, and records that together with what ended before.

        Returns:
          A change for each lane that had ended and runs again.
        """
        context, wave_of = self._context, self._wave_of
        # Steps and states are read before the first lane is overwritten: a source may itself become a clone of a third
        # trial in the same decision, and what counts is the state that it had when the scheduler looked.
        steps = {trial: wave_of[clone.source].taken(clone.source) for trial, clone in clones.items()}
        from_other_waves = {
            clone.source: wave_of[clone.source].lanes_of(clone.source)
            for trial, clone in clones.items()
            if wave_of[trial] is not wave_of[clone.source]
        }
        again = [change for wave in self._waves for change in wave.clone(clones, from_other_waves)]
        context.points.update({trial: clone.point for trial, clone in clones.items()})
        context.scores = context.scores.with_changes([*ended, *again])
        # One transaction: a run that is resumed knows all of a decision, or nothing.
        with context.store.transaction():
            context.store.add_changes([*ended, *again])
            context.store.add_clones(
                (trial, steps[trial], clone.source, context.spec.space.recorded(clone.point))
                for trial, clone in sorted(clones.items())
            )
        return again

    def _running_groups(self) -> set[int]:
        """Returns the numbers of the groups of which a lane runs."""
        return {wave.group.number for wave in self._waves if wave.live.any()}

    def _finish_groups(self) -> None:
        """Records the final states of the groups that ended.

        A wave that ended waits for the others of its group, since its trials may run again as clones of theirs.
        """
        running = self._running_groups()
        for wave in self._waves:
            if wave.group.number not in running:
                wave.finish()

    def _check_clone(self, race: Race, trial: int, clone: Clone) -> None:
        """Raises ``InputError`` unless a trial can go on so."""
        fits = trial in race.population and clone.source in race.live
        if not fits or race.groups[trial] != race.groups[clone.source]:
            allowed = "must clone a live trial of the same group into a live or a diverged one"
            remedy = "Choose both among the trials of one group in race.groups."
            raise InputError("Scheduler.replace", (trial, clone.source), allowed, remedy)
        self._context.spec.space.branch_of(clone.point)
        # What is static is that of all trials of the group, and what is in the source's state that of the source.
        before = race.points[clone.source]
        for name in clone.point:
            if name not in race.free and clone.point[name] != before.get(name, None):
                allowed = "is static, or part of the trained state, and cannot change while trials run"
                remedy = f"Keep {name}={show(before.get(name, None))}, or change names in race.free only."
                raise InputError("Scheduler.replace", name, allowed, remedy)
        check_point(self._context.spec, self._context.plan, trial, clone.point)


def _stopped_by(scheduler: Scheduler, race: Race) -> set[int]:
    """Returns the trials that the scheduler stops now."""
    answer = scheduler.decide(race)
    try:
        decided = list(answer)
        chosen = {operator.index(trial) for trial in decided if not isinstance(trial, bool | np.bool_)}
        fits = len(chosen) == len(set(decided)) and chosen <= set(race.live)
    except TypeError:
        fits = False
    if not fits:
        raise InputError("Scheduler.decide", answer, "must give ids of live trials", "Return ids out of race.live.")
    return chosen
