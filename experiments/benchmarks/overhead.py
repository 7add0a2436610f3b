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
    """The device calls of the same run and nothing between them."""
    from hpjax.engine.lanes import Lanes

    sweep = _sweep(workload, arrays)
    advance, spent = Lanes.advance, []

    def timed(*arguments):
        begun = time.perf_counter()
        report = advance(*arguments)
        spent.append(time.perf_counter() - begun)
        return report

    Lanes.advance = timed

    def run():
        spent.clear()
        result = sweep.run(progress=False)
        return result.last("valid/loss")[:, 0], sum(spent)

    return Prepared(run, warm=False)
