"""Extension: a finished run is made one that goes on, with more trials or with more steps."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from hpjax.core.errors import RunError
from hpjax.core.program import AT_THE_END
from hpjax.data.stream import Position
from hpjax.engine.lane import HEALTHY
from hpjax.engine.shapes import Lane, ProgramShapes, lane_shapes
from hpjax.results.result import Result
from hpjax.results.store.checkpoints import KEPT, Checkpoints, Cut, forget
from hpjax.results.store.manifest import Manifest, SweepRecord, read_manifest, write_manifest
from hpjax.results.store.rows import NO_WAVE, STATUSES
from hpjax.results.store.run_store import Store
from hpjax.sweep.planning.planner import Prepared
from hpjax.sweep.running.scores import Scores
from hpjax.sweep.running.state import check_cut, check_lanes
from hpjax.sweep.spec import Settings

MAY_CHANGE = {"trials", "rounds", "steps"}


def extend(path: Path, settings: Settings, prepared: Prepared, about: Manifest) -> None:
    """Has a finished run of the same sweep, but for fewer trials or steps, go on as this one.

    Writes a checkpoint from which it goes on, and then the manifest: until that is there it is the finished run.
    Where the sweep is the same, or another altogether, nothing happens.

    Args:
      path: the run directory.
      settings, prepared: the sweep, and the plan of its first round.
      about: its manifest.

    Raises:
      RunError: the run is not finished, or cannot be extended so.
    """
    there = read_manifest(path)
    was, now = there.sweep, about.sweep
    changed = {name for name in was.__struct_fields__ if getattr(was, name) != getattr(now, name)}
    if not changed or changed - MAY_CHANGE or now.trials < was.trials:
        return
    store = Store.finished(path, there.extended)
    if store is None:
        raise RunError(
            f"the run in {str(path)!r} is not finished, and only then can be extended. Run it as it was first."
        )
    try:
        result = Result(store, there)
        if "steps" in changed:
            _check_steps(settings, prepared, was, now, changed)
        cut = _cut(settings, prepared, store, result, more_steps="steps" in changed)
        check_cut(cut, now)
        for wave in cut.about["waves"] if "steps" in changed else ():
            leaves = jax.tree.leaves(lane_shapes(prepared.plan.shapes[int(result.groups[result.waves == wave][0])]))
            part = cut.part(f"wave-{wave}")
            check_lanes(part, len(part.arrays["live"]), leaves)
    finally:
        store.close()
    forget(path)
    checkpoints = Checkpoints(path, 0.0)
    for _ in range(KEPT):  # one may be damaged
        checkpoints.save(cut, 0.0)
    checkpoints.close()
    write_manifest(path, replace(about, created=there.created, extended=there.extended + 1))


def _check_steps(settings: Settings, prepared: Prepared, was: SweepRecord, now: SweepRecord, changed: set[str]) -> None:
    """Checks that more steps end with the bits of a run that had them from the beginning."""
    plan, steps = prepared.plan, was.steps

    def refused(why: str) -> RunError:
        return RunError(f"the run cannot be extended from {steps} to {now.steps} steps: {why}.")

    if "trials" in changed or len(plan.rounds) > 1:
        raise refused("only a run of one round can, and trials can be added afterwards")
    if not isinstance(steps, int) or not isinstance(now.steps, int):
        raise refused("its trials take different numbers of steps")
    if now.steps < steps:
        raise refused("that would be fewer")
    if settings.program.finishes:
        raise refused("its program finished what complete trials keep, as early stopping does. Begin a new run")
    if settings.scheduler is not None:
        raise refused("its scheduler has decided by what it knew of the budget. Begin a new run")
    calls = steps * plan.lengths[0].microsteps
    if any(group.eval_every == AT_THE_END for group in plan.groups):
        raise refused("it was evaluated at its end only, which is not where a longer run is. Begin a new one")
    if any(calls % group.eval_every for group in plan.groups):
        raise refused("it ended with an evaluation that a longer run does not make. Give eval_every a divisor of them")


def _cut(settings: Settings, prepared: Prepared, store: Store, result: Result, more_steps: bool) -> Cut:
    """Where a finished run stands, as a cut of it: at the end of its last round, or at its last step."""
    plan, last = prepared.plan, int(result.rounds.max())
    # All alike where steps are added; and for trials that have ended it does not matter any more.
    calls = plan.lengths[0].microsteps
    again = (result.lane_status == "complete") & (result.lane_step == result.lane_step.max()) & more_steps
    status = np.vectorize(STATUSES.index, otypes=[np.int64])(np.where(again, "running", result.lane_status))
    trial, replicate = np.indices(status.shape)
    changes = np.stack([trial, replicate, status, np.where(again, 0, result.lane_step)], axis=-1).reshape(-1, 4)
    standing = Scores(settings.objective, plan.rounds, settings.lanes_a_trial)
    taken = np.nan_to_num(result.curves("step")).max(axis=(1, 2), initial=0).astype(np.int64)
    stopped = (result.lane_status == "stopped").any(axis=1)
    standing.recall(result.last(settings.objective.metric), taken, stopped)
    parts = {"lanes": Cut({}, {"changes": changes}), "standing": standing.cut()}
    waves = sorted(set(result.waves[result.rounds == last].tolist()) - {NO_WAVE})
    for wave in waves:
        ids, leaves = store.states.of(wave)
        own = ids[:, 0], ids[:, 1]
        step, live = result.lane_step[own].astype(np.int32), again[own]
        arrays = {"trial": ids[:, 0].astype(np.int32), "live": live, "taken": step, "lost": np.zeros(0, np.int32)}
        if settings.stream is not None:
            arrays["stream"] = Position().packed()
        if more_steps:
            group = int(result.groups[result.waves == wave][0])
            lanes = _lanes(plan.shapes[group], [leaf for _, leaf in leaves], step * np.int32(calls))
            arrays |= {f"lanes/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(lanes))}
        about = {"step": int(step.max(initial=0)) * calls, "evaluations": store.evaluations(wave)}
        parts[f"wave-{wave}"] = Cut(about | {"finished": not live.any()}, arrays)
    narrow = {g: int(result.widths[result.groups == g].min()) for g in set(result.groups.tolist())}
    whole = {
        "reached": {"round": last, "step": 0, "done": int(result.lane_step.sum()), "spared": 0},
        "narrowed": [[g, w] for g, w in sorted(narrow.items()) if w < plan.widths[g]],
        "waves": waves,
        "seconds": store.seconds() or 0.0,
        "clones": len(result.lineage),
    }
    return Cut.of(whole, parts)


def _lanes(shapes: ProgramShapes, leaves: list[NDArray[Any]], step: NDArray[np.int32]) -> Lane:
    """Lanes right after an evaluation at their step, with these leaves of states."""
    like: Lane = lane_shapes(shapes)
    zeros: Any = {name: np.zeros(len(step), total.dtype) for name, total in like.totals.items()}
    state = jax.tree.unflatten(jax.tree.structure(like.state), leaves)
    counted, at, healthy = (jnp.asarray(each) for each in (np.zeros_like(step), step, np.full_like(step, HEALTHY)))
    return Lane(state, zeros, counted, at, healthy)
