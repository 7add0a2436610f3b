"""Extension: turns a finished run into one that goes on, with more trials or with more steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from msgspec.structs import replace

from hpjax.core.arrays import Array, Ints
from hpjax.core.errors import RunError
from hpjax.core.program import AT_THE_END
from hpjax.data.stream import Position
from hpjax.engine.lane import HEALTHY
from hpjax.engine.lane_shards import LaneArrays, LaneShard
from hpjax.engine.padding.program import resized
from hpjax.engine.shapes import Lane, ProgramShapes, lane_shapes
from hpjax.results.result import Result
from hpjax.results.store.checkpoints import KEPT, Checkpoints, forget
from hpjax.results.store.final_states import StateShard
from hpjax.results.store.manifest import Manifest, SweepRecord, read_manifest, write_manifest
from hpjax.results.store.rows import NO_WAVE, STATUSES, Status
from hpjax.results.store.run_store import Store
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.running.scores import Scores
from hpjax.sweep.running.state import RunProgress, RunState, WaveState
from hpjax.sweep.spec import SweepSpec

# In what the description of an extended sweep may differ from that of the finished run.
MAY_CHANGE = {"trials", "rounds", "steps"}


def extend(path: Path, spec: SweepSpec, plan: Plan, manifest: Manifest) -> None:
    """Turns a finished run of a sweep with fewer trials or steps into an interrupted run of this sweep.

    It writes a checkpoint to go on from, and then the manifest: until that is written, the directory holds the
    finished run. Nothing happens if the run is of this very sweep, or of another one altogether.

    Args:
      path: the run directory.
      spec: the sweep.
      plan: the plan of its first round.
      manifest: the manifest of the sweep.

    Raises:
      RunError: the run is not finished, or cannot be extended in this way.
    """
    there = read_manifest(path)
    was, now = there.sweep, manifest.sweep
    changed = {name for name in was.__struct_fields__ if getattr(was, name) != getattr(now, name)}
    if not changed or changed - MAY_CHANGE or now.trials < was.trials:
        return
    store = Store.finished(path, there.extended)
    if store is None:
        raise RunError(
            f"the run in {str(path)!r} is not finished, and only a finished one can be extended. Run it first with the "
            f"trials and steps that it began with: trials={was.trials}, steps={was.steps}."
        )
    try:
        _check_failures(path, store)
        if "steps" in changed:
            _check_steps(spec, plan, was, now, changed)
        arrays = _state(spec, plan, store, Result(store, there), more_steps="steps" in changed).arrays()
    finally:
        store.close()
    forget(path)
    checkpoints = Checkpoints(path, 0.0)
    for _ in range(KEPT):  # as many as a run keeps: should one be damaged, the other is used
        checkpoints.save(arrays, 0.0)
    checkpoints.close()
    extended_by = (*there.extended_by, manifest.command)
    extended = replace(manifest, extended=there.extended + 1, extended_by=extended_by)
    write_manifest(path, replace(extended, created=there.created, command=there.command))


def _check_failures(path: Path, store: Store) -> None:
    """Raises ``RunError`` if trials of the last round failed: what is added goes on from their final states."""
    rows, failures = store.trials(), store.failures()
    last = max(row.round for row in rows)
    if failed := [row.trial for row in rows if row.round == last and row.trial in failures]:
        raise RunError(
            f"trial {failed[0]} in {str(path)!r} failed: {failures[failed[0]]}. A run is extended once all of its last "
            "round has trained: mend that, and run the sweep without extending it, which tries again what failed."
        )


def _check_steps(spec: SweepSpec, plan: Plan, was: SweepRecord, now: SweepRecord, changed: set[str]) -> None:
    """Raises ``RunError`` unless a run with more steps ends with the bits of one that had them from the beginning."""
    steps = was.steps

    def refused(why: str) -> RunError:
        return RunError(f"the run cannot be extended from {steps} to {now.steps} steps: {why}.")

    if "trials" in changed or len(plan.rounds) > 1:
        raise refused("only a run of one round can, without more trials. Add the trials afterwards")
    if not isinstance(steps, int) or not isinstance(now.steps, int):
        raise refused("its trials take different numbers of steps. Begin a new run")
    if now.steps < steps:
        raise refused("these are fewer. Begin a new run")
    if spec.program.finishes:
        raise refused("its program changed the states of complete trials, as early stopping does. Begin a new run")
    if spec.scheduler is not None:
        raise refused("its scheduler decided by the number of steps that it knew. Begin a new run")
    calls = steps * plan.lengths[0].microsteps
    if any(group.eval_every == AT_THE_END for group in plan.groups):
        raise refused("it was evaluated at its end only, where a longer run is not. Begin a new run")
    if any(calls % group.eval_every for group in plan.groups):
        why = "it ended with an evaluation that a longer run does not make"
        raise refused(f"{why}. Begin a new run with an eval_every that divides its steps")


def _state(spec: SweepSpec, plan: Plan, store: Store, result: Result, more_steps: bool) -> RunState:
    """Returns the state of a finished run at the end of its last round.

    Args:
      spec: the extended sweep.
      plan: the plan of its first round.
      store: the store of the finished run.
      result: its result.
      more_steps: whether its complete trials go on; else only more trials are to come.
    """
    sizes, known, last = (plan.trials, plan.replicates), len(result), int(result.rounds.max())
    again = (result.lane_status == Status.COMPLETE) & (result.lane_step == result.lane_step.max()) & more_steps
    status, lane_step = np.zeros(sizes, np.int8), np.zeros(sizes, np.int64)
    indices = np.vectorize(STATUSES.index, otypes=[np.int8])(np.where(again, Status.RUNNING, result.lane_status))
    status[:known], lane_step[:known] = indices, np.where(again, 0, result.lane_step)
    scores = Scores.none(*sizes, racing=spec.scheduler is not None)
    scores.values[:known] = result.last(spec.objective.metric)
    scores.steps[:known] = np.nan_to_num(result.curves("step")).max(axis=(1, 2), initial=0)
    scores.stopped[:known] = (result.lane_status == Status.STOPPED).any(axis=1)
    # The plan is that of the first round: groups that later rounds brought are in the result only.
    widths = [result.widths[result.groups == group].min() for group in range(int(result.groups.max()) + 1)]
    waves = sorted(set(result.waves[result.rounds == last].tolist()) - {NO_WAVE})
    stream = None if spec.stream is None else Position().packed()
    return RunState(
        # In calls of ``step``, as events count.
        progress=RunProgress(last, 0, int(result.lane_step.sum()) * plan.lengths[0].microsteps, 0),
        scores=scores,
        status=status,
        lane_step=lane_step,
        clones=len(result.lineage),
        seconds=store.seconds() or 0.0,
        widths=np.array(widths, np.int64),
        waves=tuple(_wave(plan, store, result, wave, again if more_steps else None, stream) for wave in waves),
    )


def _wave(
    plan: Plan, store: Store, result: Result, number: int, again: Array | None, stream: Array | None
) -> WaveState:
    """Returns the state of a finished wave.

    Args:
      plan: the plan of the first round.
      store: the store of the finished run.
      result: its result.
      number: the number of the wave.
      again: which lanes take more steps, bool (trials, replicates); None if none does.
      stream: where its data stream goes on, as ``WaveState`` has it; None without a stream.
    """
    ids = store.states.table(number)
    own, trial = (ids[:, 0], ids[:, 1]), ids[:, 0].astype(np.int32)
    taken = result.lane_step[own].astype(np.int32)
    # If steps are added, all trials take equally many calls; for those that ended the number is not used any more.
    calls = plan.lengths[0].microsteps
    live = np.zeros(len(trial), bool) if again is None else again[own]
    lanes: tuple[LaneShard, ...] = ()
    if again is not None:
        group, step = int(result.groups[result.waves == number][0]), taken * np.int32(calls)
        lanes = tuple(_lanes(plan.shapes[group], ids, shard, step) for shard in store.states.of(number))
    state = WaveState(
        number=number,
        step=int(taken.max(initial=0)) * calls,
        evaluations=store.evaluations(number),
        finished=not live.any(),
        trial=trial,
        live=live,
        taken=taken,
        lost=np.zeros(len(trial), bool),
        stream=stream,
        lanes=lanes,
    )
    if again is not None:
        partition, of = plan.partitions[group], plan.devices_per_lane
        try:
            state.check(trial, LaneArrays.of_program(plan.shapes[group], partition, of))
        except RunError as error:
            why = f"the final states of wave {number} are not of this sweep: {error}"
            raise RunError(f"{why}. Restore them from a copy.") from None
        if plan.padding(group) is not None:
            trained = jax.tree.leaves(lane_shapes(plan.trained(group)))
            state = state._replace(lanes=tuple(_padded(shard, trained) for shard in state.lanes))
    return state


def _padded(shard: LaneShard, trained: Sequence[jax.ShapeDtypeStruct]) -> LaneShard:
    """Returns lanes with their arrays in the shapes of the padded program that trains them."""
    pairs = zip(shard.arrays, trained, strict=True)
    return shard._replace(arrays=tuple(resized(x, (len(x), *like.shape)) for x, like in pairs))


def _lanes(shapes: ProgramShapes, ids: Ints, shard: StateShard, step: Ints) -> LaneShard:
    """Returns lanes as they are right after an evaluation.

    Args:
      shapes: the shapes of their program.
      ids: trial and replicate of all lanes of the wave, int32 (lanes, 2).
      shard: final states of some of them.
      step: the calls of ``step`` that each lane of the wave took, int32 (lanes,).
    """
    row = {tuple(id): number for number, id in enumerate(ids.tolist())}
    if wrong := [id for id in shard.lanes.tolist() if tuple(id) not in row]:
        raise RunError(f"the final states have a lane {wrong[0]}, which their wave has not. Restore them from a copy.")
    lanes = np.array([row[tuple(id)] for id in shard.lanes.tolist()], np.int32)
    split = next((each for each in shard.splits if each is not None), None)
    part = (0, 1, 1) if split is None else (split.begin, split.end, split.of)
    there, like = dict(shard.leaves), lane_shapes(shapes)
    arrays = zip(shapes.names, like.state, strict=True)
    state = [np.asarray(there.get(name, np.empty((0, *array.shape), array.dtype))) for name, array in arrays]
    own = step[lanes] if part[0] == 0 else step[:0]
    totals: Any = {name: np.zeros(len(own), total.dtype) for name, total in like.totals.items()}
    lane: Any = Lane(tuple(state), totals, np.zeros_like(own), own, np.full_like(own, HEALTHY))  # type: ignore[arg-type]
    return LaneShard(lanes, np.array(part, np.int32), tuple(map(np.asarray, jax.tree.leaves(lane))))
