"""Replay: trains one trial of a result again, alone, and compares every bit with the record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec.structs import replace as changed

from hpjax.core.arrays import Array, Bools, ceil_div
from hpjax.core.errors import RunError
from hpjax.core.format import count
from hpjax.engine.lane_shards import LaneShard
from hpjax.results.result import Result
from hpjax.results.store.differences import differences, how_to_set
from hpjax.results.store.rows import Planned, Status
from hpjax.results.store.run_store import Store
from hpjax.results.trial import Trial
from hpjax.schedulers import Scheduler
from hpjax.sweep.artifact_choice import ArtifactChoice
from hpjax.sweep.identity import description, digests, manifest
from hpjax.sweep.planning.arrange import with_widths
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.running.context import RunContext
from hpjax.sweep.running.state import WaveState
from hpjax.sweep.running.wave import Wave
from hpjax.sweep.spec import SweepSpec

# How many differences the text shows.
SHOWN = 10
# Other versions of these packages may trace the same program to another text, so that digests cannot be compared.
OF_CODE = ("jax", "jaxlib", "flax", "optax", "hpjax")


@dataclass(frozen=True)
class Replay:
    """What training one trial again, alone, gave.

    Attributes:
      trial: the id of the trial.
      differences: where it differs from the record, a line each; empty if every bit agrees.
      notes: what else was different, versions and the kind of device, a line each.
      replicates: how many replicates were compared.
      evaluations: how many evaluations of the longest replicate were compared.
      metrics: how many metrics were compared.
      arrays: how many arrays of final states were compared; diverged replicates have none.
      ended: how the trial ended, such as ``complete at step 40``.
    """

    trial: int
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    replicates: int
    evaluations: int
    metrics: int
    arrays: int
    ended: str

    @property
    def agrees(self) -> bool:
        """Whether every bit agrees."""
        return not self.differences

    def __str__(self) -> str:
        compared = (
            f"{count(self.replicates, 'replicate')} × {count(self.evaluations, 'evaluation')} of "
            f"{count(self.metrics, 'metric')}, {count(self.arrays, 'array')} of final state, {self.ended}"
        )
        notes = "".join(f"\n  {note}" for note in self.notes)
        if self.agrees:
            return f"trial {self.trial}: every bit agrees: {compared}{notes}"
        lines = "".join(f"\n  {line}" for line in self.differences[:SHOWN])
        more = len(self.differences) - SHOWN
        rest = f"\n  and {count(more, 'more difference')}" if more > 0 else ""
        return f"trial {self.trial}: does not agree, of {compared}:{lines}{rest}{notes}"


def replay(spec: SweepSpec, plan: Plan, trial: Trial, notes: Sequence[str] = ()) -> Replay:
    """Trains a trial again with the program and the width that it had, and compares it with the record.

    Args:
      spec: the sweep, with the width of the result.
      plan: the plan up to the trial's round.
      trial: a trial of the result.
      notes: what else is different, for the answer to show.

    Raises:
      RunError: the trial has not ended, or the record does not tell what happened to it.
    """
    result, id = trial.result, trial.id
    if id in result.failures:
        raise RunError(f"trial {id} failed, and there is nothing to compare with: {result.failures[id]}")
    there = _states(result, id)  # read before anything trains: a trial that still runs has none
    # Its group may have ended at another width than planned, after it ran out of memory or was measured.
    plan = with_widths(spec, plan, {int(result.groups[id]): int(result.widths[id])}, why="")
    again, start = _trained(spec, plan, trial)
    apart = [*_of_status(result, again, id), *_of_curves(result, again, id, start)]
    apart += _of_states(there, _states(again, id))
    evaluations = (~np.isnan(result.curves("step")[id, :, start:])).sum(axis=-1)
    return Replay(
        trial=id,
        differences=tuple(apart),
        notes=tuple(notes),
        replicates=len(result.lane_status[id]),
        evaluations=int(evaluations.max(initial=0)),
        metrics=len(result.metrics),
        arrays=sum(map(len, there.values())),
        ended=f"{trial.status} at step {trial.step}",
    )


def check_result(spec: SweepSpec, plan: Plan, result: Result) -> list[str]:
    """Validates that a result is one of this sweep.

    Args:
      spec: the sweep, with the width of the result.
      plan: the plan of its first round.
      result: the result.

    Returns:
      What is different nevertheless, versions and the kind of device, a line each.

    Raises:
      RunError: the result is of another sweep.
    """
    # A shard, or what is merged of some, has the trials of the whole sweep.
    there, here = (changed(each, shard=None) for each in (result.manifest.sweep, description(spec, plan)))
    if there.data is not None:  # recorded in a directory
        here = changed(here, **digests(spec, plan)._asdict())
    versions = list(_versions(spec, plan, result))
    if any(name in OF_CODE for name, *_ in versions):
        there, here = changed(there, code=None), changed(here, code=None)
    lines = differences(there, here)
    if lines:
        raise RunError(
            "the result is of a different sweep. What differs:\n  "
            + "\n  ".join(lines)
            + "\nReplay it with the sweep that it came from."
            + how_to_set(there.settings, here.settings)
        )
    return [f"{name}: {there} there, {here} here, which may decide the last bits" for name, there, here in versions]


def _versions(spec: SweepSpec, plan: Plan, result: Result) -> Iterator[tuple[str, str, str]]:
    """Yields name, value there and value here of versions and devices that differ."""
    own = manifest(spec, plan, recorded=False)
    for name, here in own.versions.items():
        there = result.manifest.versions.get(name)
        if there != here:
            yield name, str(there), str(here)
    there, here = (each.devices.kind for each in (result.manifest, own))
    if there != here:
        yield "devices", there, here


def _trained(spec: SweepSpec, plan: Plan, trial: Trial) -> tuple[Result, int]:
    """Retrains the trial as a result in memory; also returns the index of its first own evaluation.

    A trial that took over the state of another is retrained along its descent: the first ancestor from the beginning
    to the step at which it was cloned, the next one from there with its own hyperparameters, and so on to the trial
    itself. Each has a wave of its own.
    """
    result = trial.result
    group = plan.groups[int(result.groups[trial.id])]
    store = Store.create(None, result.manifest)
    descent = trial.descent
    last = len(descent) - 1
    rows = [
        Planned(t, int(result.rounds[t]), int(result.groups[t]), last, int(result.widths[t]), h)
        for t, h in enumerate(result.hparams)
    ]
    with store.transaction():
        store.add_trials(rows, plan.replicates)
    context = RunContext.of(replace(spec, artifacts=ArtifactChoice.none()), plan, store)
    decisions = list(_decisions(spec.scheduler, plan, trial.id))
    handed, start = None, 0
    with context.streams:
        for number, (id, _, hparams) in enumerate(descent):
            context.points[id] = spec.space.recalled(hparams)
            own = np.full(plan.replicates, id, np.int32)
            state = WaveState.begin(number, own, streaming=spec.stream is not None)
            if handed is not None:
                # A clone goes on from the state of its source, with all lanes running.
                start = handed.evaluations
                lanes = _renewed(context, plan, group, id, *handed.lanes)
                state = handed._replace(number=number, trial=own, live=state.live, lost=state.lost, lanes=(lanes,))
            wave = Wave(context, group, state)
            if number < last:
                until = _call(decisions, descent[number + 1][1], plan.lengths[id].microsteps, id)
                decisions = [step for step in decisions if step > until]
                _run(wave, until)
                handed = wave.state(whole=True)
        stopped = result.lane_status[trial.id] == Status.STOPPED
        if stopped.any():
            step = int(result.lane_step[trial.id][stopped].max())
            _run(wave, _call(decisions, step, plan.lengths[trial.id].microsteps, trial.id))
            with store.transaction():
                store.add_changes(wave.stop({trial.id}).values())
        else:
            _run(wave, None)
        wave.finish()
    return Result(store, result.manifest), start


def _renewed(context: RunContext, plan: Plan, group: Group, trial: int, lanes: LaneShard) -> LaneShard:
    """Returns whole lanes, one for each replicate, after a trial took them over with its hyperparameters."""
    renewal, found = context.programs.renewal(plan, group), [np.array(leaf) for leaf in lanes.arrays]
    for replicate in range(plan.replicates):
        arrays = renewal(context.points[trial], replicate)
        # The arrays of the state come first among the leaves of a lane.
        for number, array in zip(plan.takeovers[group.number].renewed, arrays, strict=True):
            found[number][replicate] = array
    return lanes._replace(arrays=tuple(found))


def _run(wave: Wave, until: int | None) -> None:
    """Trains a wave, and drops its events."""
    for _ in wave.advance(until):
        pass


def _decisions(scheduler: Scheduler | None, plan: Plan, trial: int) -> Iterator[int]:
    """Yields the calls of ``step`` at which the scheduler decided in the round of a trial."""
    if scheduler is None:
        return
    number, every, step = plan.round_of(trial), plan.groups[0].eval_every, 0
    begin, end = sum(plan.rounds[:number]), sum(plan.rounds[: number + 1])
    budget = max(plan.budgets[begin:end])
    scheduler = scheduler.within(budget)
    while step < budget:
        step = ceil_div(scheduler.next(step), every) * every
        yield step


def _call(decisions: list[int], step: int, microsteps: int, trial: int) -> int:
    """Returns the decision at which a trial had taken so many optimizer steps.

    Args:
      decisions: the calls of ``step`` at which the scheduler decided.
      step: the optimizer steps that the record has.
      microsteps: calls of ``step`` that make an optimizer step of the trial.
      trial: the id of the trial.

    Raises:
      RunError: no decision, or more than one, was made then.
    """
    found = [at for at in decisions if at // microsteps == step]
    if len(found) != 1:
        raise RunError(
            f"trial {trial} cannot be replayed: the scheduler decided {count(len(found), 'time')} at its step {step}, "
            "and the record does not tell which decision it was."
        )
    return found[0]


def _states(result: Result, trial: int) -> dict[int, list[tuple[str, Array]]]:
    """Returns replicate to name and array of each leaf of its final state; diverged replicates are left out."""
    status = result.lane_status[trial]
    return {
        replicate: [("/".join(map(str, path)), leaf) for path, leaf in result.leaves(trial, replicate)]
        for replicate in np.flatnonzero(status != Status.DIVERGED).tolist()
    }


def _of_status(there: Result, here: Result, trial: int) -> Iterator[str]:
    """Yields a line for each replicate that ended in another way or at another step."""
    for replicate in range(len(there.lane_status[trial])):
        was, now = (f"{r.lane_status[trial, replicate]} at step {r.lane_step[trial, replicate]}" for r in (there, here))
        if was != now:
            yield f"replicate {replicate}: {was} there, {now} here"


def _of_curves(there: Result, here: Result, trial: int, start: int) -> Iterator[str]:
    """Yields a line for each metric of each replicate that differs, with the first evaluation at which it does.

    Evaluations before ``start`` are those of other trials.
    """
    shape = (len(there.lane_status[trial]), max(r.curves("step").shape[-1] for r in (there, here)))

    def curve(result: Result, name: str) -> Array:
        values = result.curves(name)[trial]
        whole = np.full(shape, np.nan, values.dtype)
        whole[:, : values.shape[-1]] = values
        return whole[:, start:]

    steps = [curve(result, "step") for result in (there, here)]
    for name in there.metrics:
        was, now = (curve(result, name) for result in (there, here))
        apart = _differ(was, now) | _differ(*steps)
        for replicate in np.flatnonzero(apart.any(axis=-1)).tolist():
            at, many = int(apart[replicate].argmax()), int(apart[replicate].sum())
            step = np.fmax(steps[0], steps[1])[replicate, at]
            first = f", the first of {many}" if many > 1 else ""
            values = " ".join(f"{value[replicate, at]} {where}," for value, where in ((was, "there"), (now, "here")))
            yield f"{name} at step {step:.0f}, replicate {replicate}: {values.rstrip(',')}{first}"


def _of_states(there: dict[int, list[tuple[str, Array]]], here: dict[int, list[tuple[str, Array]]]) -> Iterator[str]:
    """Yields a line for each array of the final states that differs."""
    for replicate in there.keys() & here.keys():
        for (name, was), (_, now) in zip(there[replicate], here[replicate], strict=True):
            many = int(_differ(was, now).sum())
            if many:
                yield f"state {name or '()'}, replicate {replicate}: {many} of {count(was.size, 'number')}"


def _differ(a: Array, b: Array) -> Bools:
    """Returns whether each number of two arrays differs in a bit; all do if shapes or dtypes differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.ones(a.shape, bool)
    bits = [np.ascontiguousarray(x).reshape(*x.shape, 1).view(np.uint8) for x in (a, b)]
    found: Bools = (bits[0] != bits[1]).any(axis=-1)
    return found
