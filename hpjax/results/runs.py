"""The run directories in a folder, as a table."""

import os
from pathlib import Path

from hpjax.core.errors import RunError
from hpjax.core.format import count, show
from hpjax.core.format import metric as number
from hpjax.results.result import load
from hpjax.results.store.files import is_locked
from hpjax.results.store.manifest import MANIFEST
from hpjax.results.store.rows import Status
from hpjax.results.summary import Summary

HEADER = ["run", "status", "trials", "complete", "best", "of trial", "objective", "begun"]


def runs_below(folder: Path) -> Summary:
    """Returns the runs in a folder and all below it, by their paths; of damaged ones the note says what is wrong."""
    rows, notes = [], []
    for path in _directories(folder):
        name = show(os.fspath(path.relative_to(folder))) if path != folder else "."
        try:
            rows.append([name, *_cells(path)])
        except RunError as error:
            rows.append([name, "damaged", *["-"] * (len(HEADER) - 2)])
            notes.append(str(error))
    return Summary(HEADER, rows, "\n".join([f"{count(len(rows), 'run')} in {show(os.fspath(folder))}", *notes]))


def _directories(folder: Path) -> list[Path]:
    """Returns the run directories in a folder, without those that a run directory has inside."""
    found = []
    for path, below, files in os.walk(folder):
        if MANIFEST in files:
            found.append(Path(path))
            below.clear()
        below.sort()
    return found


def _cells(path: Path) -> list[str]:
    """Returns what the table has of a run; raises ``RunError`` where it is damaged."""
    result = load(path)
    status = "finished" if result.finished else "running" if is_locked(path) else "interrupted"
    complete = int((result.statuses == Status.COMPLETE).sum())
    best = result.ranking[0] if result.ranking else None
    value = "-" if best is None else number(result.best.metrics[result.objective.metric])
    trial = "-" if best is None else str(best)
    trials = str(result.manifest.sweep.trials)
    return [status, trials, str(complete), value, trial, str(result.objective), result.manifest.created]
