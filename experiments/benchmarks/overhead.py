"""What Sweep.run takes above its segments: the store, the progress lines and the checkpoints."""

import contextlib
import io
import tempfile
import time
from pathlib import Path

from ours import sweep_of
from worker import Prepared

EVERY = 100


def _sweep(workload, arrays):
    """Compiled, and one segment of it run."""
    sweep = sweep_of(workload, arrays, eval_every=EVERY)
    events = sweep.events()
    next(event for event in events if event.kind == "segment")
    events.close()
    return sweep


def whole(workload, arrays):
    """A run with a directory, the progress lines, and a checkpoint a minute."""
    sweep = _sweep(workload, arrays)

    def run():
        lines = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(lines):
            begun = time.perf_counter()
            result = sweep.run(Path(folder) / "run", checkpoint_seconds=60.0)
            seconds = time.perf_counter() - begun
        return result.last("valid/loss")[:, 0], seconds

    return Prepared(run, warm=False, note=f"{workload.steps // EVERY} segments")


def bare(workload, arrays):
    """The device calls of the same run and nothing between them, each dispatched before the last is collected."""
    from hpjax.sweep.planning.programs import GroupPrograms

    sweep = _sweep(workload, arrays)
    plan, programs = sweep.plan(), GroupPrograms.of(sweep.spec)
    (group,) = plan.own_groups
    members = programs.lane_table(plan, group, range(len(plan.points)), dict(enumerate(plan.points)))
    compiled = programs.compile(plan, group.number, members.h).wait()

    def run():
        begun = time.perf_counter()
        lanes = programs.lanes(plan, group.number, compiled, members)
        lanes.dispatch(EVERY, evaluate=True)
        for stop in range(2 * EVERY, workload.steps + 1, EVERY):
            lanes.dispatch(stop, evaluate=True)
            lanes.collect()
        result = lanes.collect()
        seconds = time.perf_counter() - begun
        losses = dict(zip(members.trial[result.lanes].tolist(), result.metrics["valid/loss"].tolist(), strict=True))
        return [losses.get(trial, float("nan")) for trial in range(len(plan.points))], seconds

    return Prepared(run, warm=False)
