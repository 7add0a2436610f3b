"""The loop: a group after the other, a segment after the other. Run → tell → record."""

import operator
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np

from hpjax.engine import spread
from hpjax.engine.lane import HEALTHY
from hpjax.engine.lanes import Cohort, Ints, Lanes, Recipe, Report, compile_segment
from hpjax.engine.plan import Group
from hpjax.engine.trace import shapes_of, together
from hpjax.errors import InputError
from hpjax.objective import Objective
from hpjax.planning import Prepared, tracer
from hpjax.schedulers import Scheduler
from hpjax.settings import Settings
from hpjax.store import Change, Store
from hpjax.text import show


@dataclass(frozen=True)
class Event:
    """What happened while a sweep runs: a group began to compile, or a segment was computed.

    Attributes:
      kind: ``"compile"``, ``"compiled"`` or ``"segment"``.
      group, groups: the number of the group, and how many there are.
      step, steps: calls of ``step`` that the group's longest-running lanes took, and those they will take; each is
        an optimizer step, unless the program accumulates gradients over several.
      live, lanes: lanes of the group still running, and all of them.
      lane_steps: calls that all lanes took in this segment.
      spared: calls that lanes which ended in this segment, before their budget, will not take.
      evaluated: the lanes that this evaluation measured, as trial ids and replicates, each (lanes,).
      metrics: name to values of these lanes; empty where the segment ended without an evaluation.
      changes: lanes whose status changed.
      best: trial id and objective of the best trial so far, or None.
      seconds: what the compilation or the segment took.
    """

    kind: Literal["compile", "compiled", "segment"]
    group: int
    groups: int
    step: int
    steps: int
    live: int
    lanes: int
    lane_steps: int = 0
    spared: int = 0
    evaluated: tuple[Any, Any] = ((), ())
    metrics: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    best: tuple[int, float] | None = None
    seconds: float = 0.0


class Standing:
    """The last value of the objective of every lane, and which trials are out of the race."""

    def __init__(self, objective: Objective, trials: int, replicates: int) -> None:
        self._objective = objective
        self._values = np.full((trials, replicates), np.nan)
        self._stopped = np.zeros(trials, bool)

    def update(self, trials: Ints, replicates: Ints, values: Mapping[str, Any], changes: Iterable[Change]) -> None:
        """Takes in what an evaluation measured, and which lanes diverged or were stopped."""
        if values:
            self._values[trials, replicates] = values[self._objective.metric]
        for change in changes:
            if change.status == "diverged":
                self._values[change.trial, change.replicate] = np.nan
            elif change.status == "stopped":
                self._stopped[change.trial] = True

    def scores(self) -> Any:
        """(trials,), lower is better; NaN where a replicate diverged or was not evaluated."""
        return self._objective.scores(self._values).mean(axis=1)

    def best(self) -> tuple[int, float] | None:
        """Trial id and objective of the best trial so far that was not stopped, or None."""
        scores = np.where(self._stopped, np.nan, self.scores())
        if not np.isfinite(scores).any():
            return None
        trial = int(np.nanargmin(scores))
        return trial, float(self._values[trial].mean())


def train(settings: Settings, prepared: Prepared, store: Store) -> Iterator[Event]:
    """Trains every trial of a plan into a fresh store, and says what happens."""
    plan = prepared.plan
    begun = time.perf_counter()
    group_of = {trial: g.number for g in plan.groups for trial in g.trials}
    rows = [(t, group_of[t], {n: _jsonable(v) for n, v in p.items()}) for t, p in enumerate(prepared.points)]
    with store.transaction():
        store.add_trials(rows, settings.lanes_a_trial)
    standing = Standing(settings.objective, plan.trials, settings.lanes_a_trial)
    mesh = spread.mesh(spread.local_devices(settings.devices))
    train, valid = settings.splits
    once = spread.put(train, mesh, spread.WHOLE)
    splits = once, once if valid is train else spread.put(valid, mesh, spread.WHOLE)
    try:
        for g in plan.groups:
            yield from _run_group(settings, prepared, g, mesh, splits, store, standing)
        with store.transaction():
            store.finish(time.perf_counter() - begun)
    finally:
        store.unlock()


def _run_group(
    settings: Settings,
    prepared: Prepared,
    group: Group,
    mesh: jax.sharding.Mesh,
    splits: tuple[Any, Any],
    store: Store,
    standing: Standing,
) -> Iterator[Event]:
    plan = prepared.plan
    cohort = _cohort(settings, prepared, group)
    calls = np.array([plan.schedules[t].calls for t in cohort.trial], np.int32)
    ends = int(cohort.budget.max())
    shared: dict[str, Any] = {
        "group": group.number,
        "groups": len(plan.groups),
        "steps": ends,
        "lanes": len(cohort.trial),
    }
    recipe = Recipe(
        settings.program,
        plan.shapes[group.number],
        plan.width,
        own_luck=settings.randomness == "independent",
        own_budget=callable(settings.program.steps) or callable(settings.program.calls),
        folds=settings.folds or 1,
    )
    yield Event("compile", step=0, live=len(cohort.trial), **shared)
    begun = time.perf_counter()
    train, valid = map(shapes_of, splits)
    compiled = compile_segment(recipe, cohort.h, train, valid, mesh, plan.chunks[group.number])
    seconds = time.perf_counter() - begun
    with store.transaction():
        store.add_compilation(group.number, seconds)
    yield Event("compiled", step=0, live=len(cohort.trial), seconds=seconds, **shared)
    lanes = Lanes(recipe, compiled, cohort, settings.seed, *splits)
    step = evaluations = 0
    while lanes.live.any():
        begun, before = time.perf_counter(), step
        step, evaluate = _next_stop(step, group.eval_every, settings.segment, cohort.budget[lanes.live])
        report = lanes.advance(step, evaluate)
        # A lane that diverged is not recorded any more: at which evaluation it would be depends on the segments.
        healthy = report.diverged == HEALTHY
        trials, replicates = cohort.trial[report.lanes[healthy]], cohort.replicate[report.lanes[healthy]]
        values = {name: value[healthy] for name, value in report.metrics.items()}
        # Optimizer steps, of several calls each where gradients accumulate; one that diverged may not be whole.
        taken, lost_at = report.step // calls[report.lanes], -(-report.diverged // calls[report.lanes])
        changes = _changes(cohort, report, taken, lost_at, evaluate)
        standing.update(trials, replicates, values, changes.values())
        lanes.retire(list(changes))
        if evaluate and settings.scheduler is not None:
            stopped = _stopped(settings.scheduler, step, cohort, lanes, report, taken, standing)
            lanes.retire(list(stopped))
            standing.update(trials, replicates, {}, stopped.values())
            changes |= stopped
        with store.transaction():
            if evaluate:
                where = {"trial": trials, "replicate": replicates, "step": taken[healthy]}
                store.add_curves(group.number, evaluations, where | values)
                evaluations += 1
            store.add_changes(changes.values())
        ended = list(changes)
        yield Event(
            "segment",
            step=step,
            spared=int(np.maximum(cohort.budget[ended] - step, 0).sum()),
            live=int(lanes.live.sum()),
            lane_steps=int((report.step - np.minimum(before, report.step)).sum()),
            evaluated=(trials, replicates),
            metrics=values,
            changes=tuple(changes.values()),
            best=standing.best(),
            seconds=time.perf_counter() - begun,
            **shared,
        )
    leaves = [(_path(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(lanes.states())]
    store.add_states(group.number, np.stack([cohort.trial, cohort.replicate], axis=1), leaves)


def _next_stop(step: int, eval_every: int, segment: int | None, budgets: Ints) -> tuple[int, bool]:
    """Where the next segment ends, and whether with an evaluation: at its multiples, and when all lanes are done."""
    last = int(budgets.max())
    stops = [(step // eval_every + 1) * eval_every, last, step + (segment or last)]
    stop = min(at for at in stops if at > step)
    return stop, stop % eval_every == 0 or stop == last


def _stopped(
    scheduler: Scheduler, step: int, cohort: Cohort, lanes: Lanes, report: Report, taken: Ints, standing: Standing
) -> dict[int, Change]:
    """The lanes of the trials that the scheduler stops now."""
    scores = standing.scores()
    # A trial of which a replicate diverged can win no more: bad news, not missing news.
    live = {int(t): float(scores[t]) if np.isfinite(scores[t]) else np.inf for t in np.unique(cohort.trial[lanes.live])}
    if not live:
        return {}
    answer = scheduler.decide(step, live)
    try:
        decided = list(answer)
        chosen = {operator.index(trial) for trial in decided if not isinstance(trial, bool)}
        fits = len(chosen) == len(set(decided)) and chosen <= live.keys()
    except TypeError:
        fits = False
    if not fits:
        raise InputError("Scheduler.decide", answer, "must give ids of live trials", "Choose among the keys of scores.")
    steps = dict(zip(report.lanes.tolist(), taken.tolist(), strict=True))
    return {
        lane: Change(int(cohort.trial[lane]), int(cohort.replicate[lane]), "stopped", steps[lane])
        for lane in np.flatnonzero(lanes.live).tolist()
        if int(cohort.trial[lane]) in chosen
    }


def _cohort(settings: Settings, prepared: Prepared, group: Group) -> Cohort:
    """The lanes of a group."""
    budgets = prepared.plan.budgets
    # Lanes that end late stand together, so that a chunk ends when all of its lanes do.
    trials = sorted(group.trials, key=lambda t: (-budgets[t], t))
    trial = np.tile(np.array(trials, np.int32), settings.lanes_a_trial)
    replicate = np.repeat(np.arange(settings.lanes_a_trial, dtype=np.int32), len(trials))
    own = [prepared.points[t] for t in trial]
    budget = np.array([budgets[t] for t in trial], np.int32)
    return Cohort(trial, replicate, budget, together(tracer(settings).kinds, own, own[0].keys() - group.static.keys()))


def _changes(cohort: Cohort, report: Report, taken: Ints, lost_at: Ints, evaluated: bool) -> dict[int, Change]:
    """The lanes that diverged or came to their end, with the optimizer step at which they did."""
    lost = report.diverged != HEALTHY
    done = ((report.step >= cohort.budget[report.lanes]) & evaluated | report.done) & ~lost
    changes = {}
    for status, which, steps in (("diverged", lost, lost_at), ("complete", done, taken)):
        for at in np.flatnonzero(which):
            lane = int(report.lanes[at])
            changes[lane] = Change(int(cohort.trial[lane]), int(cohort.replicate[lane]), status, int(steps[at]))
    return changes


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return [_jsonable(v) for v in value]
    return value if isinstance(value, bool | int | float | str | None) else show(value)


def _path(path: Any) -> tuple[str | int, ...]:
    """The names along a key path; positions of tuples stay numbers."""
    names = (getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", None))) for entry in path)
    return tuple(name if isinstance(name, int) else str(name) for name in names)
