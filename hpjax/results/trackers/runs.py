"""Trackers that have runs, each with hyperparameters and curves: which trials become runs, and what is in them."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable
from hpjax.results.trackers.base import Evaluation, TrackedRun, Tracker
from hpjax.results.trackers.choice import RunChoice
from hpjax.results.trackers.rows import Row, by_trial, rows_of

# The key of the run of the whole sweep, beside those of trials.
SWEEP = "sweep"


class Run(NamedTuple):
    """What a tracker has a run for: a trial, or the whole sweep.

    Attributes:
      key: ``"trial-7"``, or ``SWEEP``.
      trial: the id of the trial, None for the sweep.
      config: what it was run with, name to value: hyperparameters, or what the sweep is.
      axis: what the steps of its rows count, ``"step"`` or, for a sweep of which trials have their own runs,
        ``"lane_steps"``.
    """

    key: str
    trial: int | None
    config: Mapping[str, Any]
    axis: str


class RunTracker(Tracker):
    """A tracker with one run for the sweep and, as ``runs`` says, one for each of its trials.

    Args:
      runs: ``"best:20"``, ``"all"`` or ``"sweep"``.

    Raises:
      InputError: it is none of these.
    """

    def __init__(self, runs: str) -> None:
        self._choice = RunChoice.read(f"{type(self).__name__}.runs", runs)
        self._logged: dict[str, dict[str, int]] = {}

    @abstractmethod
    def connect(self, run: TrackedRun) -> None:
        """Connects to where the runs of a sweep are."""

    @abstractmethod
    def open(self, run: Run) -> Mapping[str, int]:
        """Opens a run, which is new or goes on; returns the last step of each metric that it has."""

    @abstractmethod
    def write(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Adds rows to open runs, by their keys."""

    @abstractmethod
    def close(self, key: str, status: str, summary: Mapping[str, Any]) -> None:
        """Closes an open run.

        Args:
          key: of the run.
          status: of its trial; of the sweep ``"complete"``, or ``"running"`` where it was interrupted.
          summary: name to number or text.
        """

    def note(self, run: TrackedRun) -> str | None:
        """Returns a sentence on the trials that have no run of their own."""
        trials, best = run.manifest.sweep.trials, self._choice.best
        if not best or self._choice.live(trials):
            return None
        return (
            f"{type(self).__name__}: the best {best:,} of {trials:,} trials become runs once the sweep is finished, "
            'beside one of the sweep itself. runs="all" makes each one from its beginning; most services are slow with '
            "hundreds."
        )

    def begin(self, run: TrackedRun, table: TrialTable) -> None:
        """Opens the run of the sweep, and adds what the runs of trials lack."""
        self._run, self._logged = run, {}
        self._live = self._choice.live(run.manifest.sweep.trials)
        self.connect(run)
        self._open(Run(SWEEP, None, _config(run), "step" if self._choice.best == 0 else "lane_steps"))
        self.add_trials(dict(enumerate(table.first_hparams)))
        if self._live or self._choice.best == 0:
            for trial in range(len(table)):
                self._add({trial: rows_of(table, trial)})

    def add_trials(self, hparams: Mapping[int, Mapping[str, Any]]) -> None:
        """Opens the runs of trials, if each has one from its beginning."""
        for trial, values in hparams.items() if self._live else ():
            self._open(Run(key_of(trial), trial, {**values, "trial": trial}, "step"))

    def log(self, evaluation: Evaluation) -> None:
        """Writes the curves of trials, or those of the sweep: the best so far, the lanes that live, and medians."""
        metrics, replicates = evaluation.metrics, self._run.manifest.sweep.replicates
        if self._live or self._choice.best == 0:
            rows = by_trial(evaluation.trial, evaluation.replicate, evaluation.step, metrics, replicates)
            self._add({trial: [row] for trial, row in rows.items()})
        if self._choice.best != 0:
            values = {f"{name}/median": float(np.median(x)) for name, x in metrics.items() if len(x)}
            best = {} if evaluation.best is None else {"best": evaluation.best[1]}
            self._write({SWEEP: [(evaluation.lane_steps, {**best, "live": float(evaluation.live), **values})]})

    def end(self, table: TrialTable, finished: bool) -> None:
        """Closes all runs; of a sweep that is finished the best become some."""
        chosen = range(len(table)) if self._live else table.ranking[: self._choice.best] if finished else []
        ends = _Ends(table)
        for trial in chosen:
            if key_of(trial) not in self._logged:
                self._open(Run(key_of(trial), trial, {**table.first_hparams[trial], "trial": trial}, "step"))
                self._write({key_of(trial): rows_of(table, trial)})
            self.close(key_of(trial), ends.statuses[trial], ends.of(trial))
        self.close(SWEEP, str(Status.COMPLETE if finished else Status.RUNNING), ends.sweep())

    def _open(self, run: Run) -> None:
        self._logged[run.key] = dict(self.open(run))

    def _add(self, rows: Mapping[int, Sequence[Row]]) -> None:
        """Adds rows of trials, to their own runs or as lines of the sweep's."""
        if self._live:
            self._write({key_of(trial): own for trial, own in rows.items()})
            return
        lines: dict[int, dict[str, float]] = {}
        for trial, own in rows.items():
            for step, values in own:
                lines.setdefault(step, {}).update({f"{name}/trial {trial}": x for name, x in values.items()})
        self._write({SWEEP: sorted(lines.items())})

    def _write(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Writes what the runs do not have yet."""
        found = {key: new for key, own in rows.items() if (new := self._new(key, own))}
        if found:
            self.write(found)

    def _new(self, key: str, rows: Sequence[Row]) -> list[Row]:
        logged, found = self._logged[key], []
        for step, values in rows:
            new = {name: value for name, value in values.items() if step > logged.get(name, -1)}
            logged.update(dict.fromkeys(new, step))
            if new:
                found.append((step, new))
        return found


def key_of(trial: int) -> str:
    """Returns the key of the run of a trial."""
    return f"trial-{trial}"


def _config(run: TrackedRun) -> dict[str, Any]:
    """Returns what a sweep is, name to text, number or None."""
    sweep = run.manifest.sweep
    space = {name: domain for alternative in sweep.space.values() for name, domain in alternative.items()}
    names = ("trials", "replicates", "folds", "seed", "sampler", "scheduler", "steps", "randomness")
    return {
        **{name: getattr(sweep, name) for name in names},
        "objective": f"{sweep.objective[1]} {sweep.objective[0]}",
        "command": " ".join(run.manifest.command),
        **{f"space.{name}": domain for name, domain in space.items()},
        **{f"versions.{name}": version for name, version in run.manifest.versions.items()},
    }


class _Ends:
    """How the trials of a table ended."""

    def __init__(self, table: TrialTable) -> None:
        self._table, self.statuses = table, table.statuses.tolist()
        self._last = {name: table.last(name).mean(axis=1).tolist() for name in table.metrics}
        self._rank = {trial: rank for rank, trial in enumerate(table.ranking)}

    def of(self, trial: int) -> dict[str, Any]:
        """Returns status, step, rank and last metrics of a trial, and from which others it took over states."""
        table = self._table
        found: dict[str, Any] = {"status": self.statuses[trial], "step": int(table.lane_step[trial].min())}
        if trial in self._rank:
            found["rank"] = self._rank[trial]
        sources = [f"{clone.source} at step {clone.step}" for clone in table.lineage if clone.trial == trial]
        if sources:
            found["lineage"] = f"from trial {', '.join(sources)}"
            found |= {f"last.{name}": value for name, value in table.hparams[trial].items()}
        return found | {f"last/{name}": x[trial] for name, x in self._last.items() if np.isfinite(x[trial])}

    def sweep(self) -> dict[str, Any]:
        """Returns how many trials have each status, and the best with its hyperparameters and last metrics."""
        counts = {f"trials/{status}": many for status, many in sorted(Counter(self.statuses).items())}
        if not self._rank:
            return counts
        best = self._table.ranking[0]
        hparams = {f"best.{name}": value for name, value in self._table.hparams[best].items()}
        return counts | {"best.trial": best} | hparams | self.of(best)
