"""What Sweep.run takes above its segments: the store, the progress lines and the checkpoints.

Each run has a process of its own, and a fixed width: how long widths take to be measured is another row.
"""

import contextlib
import io
import tempfile
from pathlib import Path

from ours import engine_of, sweep_of
from worker import Prepared, now

EVERY = 100
WIDTH = 8


def _sweep(workload, arrays):
    """Returns a sweep that is compiled, and has run one segment."""
    sweep = sweep_of(workload, arrays, eval_every=EVERY, width=WIDTH)
    events = sweep.events()
    next(event for event in events if event.kind == "segment")
    events.close()
    return sweep


def whole(workload, arrays):
    """Runs a sweep with a directory, the progress lines, and a checkpoint a minute."""
    sweep = _sweep(workload, arrays)

    def run():
        lines = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(lines):
            begun = now()
            result = sweep.run(Path(folder) / "run", checkpoint_seconds=60.0)
            spent = now().since(begun)
        return result.last("valid/loss")[:, 0], spent

    return Prepared(run, warm=False, note=f"{workload.steps // EVERY} segments")


def first(workload, arrays, **settings):
    """Prepares a first run, with all that it compiles: widths are measured while it trains, unless one is given."""
    import scipy.stats  # noqa: F401, as samplers do: what a process imports counts on neither side

    sweep = sweep_of(workload, arrays, eval_every=EVERY, **settings)

    def run():
        begun = now()
        result = sweep.run(progress=False)
        spent = now().since(begun)
        measured = sweep.plan().arrangements[0].measured.rates
        if "width" not in settings and len(measured) < 2:
            raise RuntimeError(f"the run compared no widths, so it does not tell what that costs: {measured}")
        return result.last("valid/loss")[:, 0], spent

    return Prepared(run, warm=False)


def bare(workload, arrays):
    """Makes the device calls of the same run and nothing else, each dispatched before the last is collected."""
    plan, programs, members, compiled = engine_of(_sweep(workload, arrays))

    def run():
        begun = now()
        lanes = programs.lanes(plan, 0, compiled, members)
        lanes.dispatch(EVERY, evaluate=True)
        for stop in range(2 * EVERY, workload.steps + 1, EVERY):
            lanes.dispatch(stop, evaluate=True)
            lanes.collect()
        result = lanes.collect()
        spent = now().since(begun)
        losses = dict(zip(members.trial[result.lanes].tolist(), result.metrics["valid/loss"].tolist(), strict=True))
        return [losses.get(trial, float("nan")) for trial in range(len(plan.points))], spent

    return Prepared(run, warm=False)
