"""Results: what a sweep found, read from its store. Needs no model code."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpjax.core.arrays import Array
from hpjax.core.domains import Range
from hpjax.core.errors import InputError, RunError, check_int, did_you_mean
from hpjax.core.format import count, show, size
from hpjax.core.format import metric as number
from hpjax.core.format import table as text_table
from hpjax.core.objective import Objective
from hpjax.results.store.manifest import Manifest, read_manifest
from hpjax.results.store.run_store import Store
from hpjax.results.store.validation import memory
from hpjax.results.trial import Trial


class Takeover(NamedTuple):
    """That a trial went on from the state of another.

    Attributes:
      trial: its id.
      step: after so many optimizer steps.
      source: the id of the other.
      hparams: what it went on with, name to value.
    """

    trial: int
    step: int
    source: int
    hparams: dict[str, Any]


class Result:
    """What a sweep found.

    Attributes:
      names: the hyperparameters of the space.
      hparams: per trial, name to value; callables by their names. Those at its end, where a scheduler changed them.
      first_hparams: those at its beginning.
      lineage: which trials went on from the states of others, in the order in which it happened.
      rounds, groups, waves: int (trials,), the round, the group and the wave of each.
      widths: int (trials,), lanes that a device computed at once; less than the manifest's where memory was short.
      lane_status, lane_step: (trials, replicates), each lane's status and the step at which it last changed.
      metrics: the names of the metrics.
      manifest: versions, devices, command and plan of the run, and its sweep: ``result.manifest.sweep.seed``.

    ``len(result)`` is the number of trials, ``result[7]`` one of them, and iterating gives them all.

    Example:
      >>> result = hpx.Sweep(program, space, trials=4).run(progress=False)
      >>> len(result), result.curves("valid/loss").shape
      (4, (4, 1, 2))
    """

    def __init__(self, store: Store, manifest: Manifest, sweep: Any = None) -> None:
        self._store, self.manifest, self._sweep = store, manifest, sweep
        self._predictors: dict[int, Any] = {}
        sweeping = manifest.sweep
        self.lane_step: Array
        self.objective = Objective(*sweeping.objective)
        self.names: tuple[str, ...] = sweeping.names
        with store.snapshot():
            store.check(sweeping.replicates)
            self._read_trials(store)
            segments = store.curves(sweeping.metrics, self.lane_status.shape)
        self._read_curves(segments)
        # What is still running was last heard of at its last evaluation.
        heard = np.nan_to_num(self._curves["step"]).max(axis=-1, initial=0).astype(np.int64)
        self.lane_step = np.where(self.lane_status == "running", heard, self.lane_step)

    def _read_trials(self, store: Store) -> None:
        rows = store.trials()
        self.hparams = [hparams for *_, hparams in rows]
        self.first_hparams = list(self.hparams)
        self.lineage = [Takeover(*row) for row in store.clones()]
        unknown = {*chain(*self.hparams, *(takeover.hparams for takeover in self.lineage))} - {*self.names}
        if unknown:
            raise RunError(f"the database has hyperparameters {sorted(unknown)}, and the manifest has none such.")
        for takeover in self.lineage:
            self.hparams[takeover.trial] = takeover.hparams
        self.rounds, self.groups, self.waves, self.widths = (
            np.array([row[i] for row in rows], np.int32) for i in range(1, 5)
        )
        shape = (len(rows), self.manifest.sweep.replicates)
        self.lane_status = np.full(shape, "running", "<U9")
        self.lane_step = np.zeros(shape, np.int64)
        for trial, replicate, status, step in store.lanes():
            self.lane_status[trial, replicate], self.lane_step[trial, replicate] = status, step

    def _read_curves(self, segments: Mapping[tuple[int, int], Mapping[str, Array]]) -> None:
        evaluations = max((segment + 1 for _, segment in segments), default=0)
        self.metrics: tuple[str, ...] = self.manifest.sweep.metrics
        names, shape = ("step", *self.metrics), self.lane_status.shape
        needed = 8 * len(names) * shape[0] * shape[1] * evaluations
        if needed > memory():
            raise RunError(f"the curves take {size(needed)}, more than the memory of this host. Read them elsewhere.")
        self._curves: dict[str, Array] = {name: np.full((*shape, evaluations), np.nan) for name in names}
        for (_, segment), arrays in segments.items():
            where = (arrays["trial"], arrays["replicate"], segment)
            for name, values in arrays.items():
                if name in ("trial", "replicate"):
                    continue
                if name != "step" and self._curves[name].dtype != values.dtype:
                    self._curves[name] = self._curves[name].astype(values.dtype)
                self._curves[name][where] = values

    def __len__(self) -> int:
        return len(self.hparams)

    def __iter__(self) -> Iterator[Trial]:
        return (Trial(self, trial) for trial in range(len(self)))

    def __getitem__(self, trial: int) -> Trial:
        if not 0 <= trial < len(self):
            raise InputError("trial", trial, f"must lie in 0 … {len(self) - 1}", "See result.table().")
        return Trial(self, int(trial))

    @property
    def statuses(self) -> NDArray[np.str_]:
        """(trials,), the worst status of each trial's replicates: elsewhere, diverged, running, stopped, complete."""
        worst = np.full(len(self), "complete", "<U9")
        for status in ("stopped", "running", "diverged", "elsewhere"):
            worst[(self.lane_status == status).any(axis=1)] = status
        return worst

    def curves(self, metric: str) -> Array:
        """A metric over all evaluations: (trials, replicates, evaluations), padded with NaN.

        ``curves("step")`` gives the step of each. Evaluations count within a trial, from 0.

        Raises:
          InputError: no such metric.
        """
        if metric not in self._curves:
            raise InputError("metric", metric, "must be a metric of the run", did_you_mean(metric, self._curves))
        return self._curves[metric]

    def last(self, metric: str) -> Array:
        """The value at each lane's last evaluation, (trials, replicates); NaN for diverged lanes."""
        steps = self._curves["step"]
        values = self.curves(metric)
        if values.shape[-1] == 0:
            return np.full(self.lane_status.shape, np.nan)
        index = np.maximum(steps.shape[-1] - 1 - np.argmax(~np.isnan(steps[..., ::-1]), axis=-1), 0)
        last = np.take_along_axis(values, index[..., None], axis=-1)[..., 0]
        return np.where(self.lane_status == "diverged", np.nan, last)

    @cached_property
    def ranking(self) -> list[int]:
        """Trial ids from best to worst by the objective; diverged trials are left out."""
        return self.objective.rank(self.last(self.objective.metric), self.lane_status, self.lane_step)

    @property
    def best(self) -> Trial:
        """The best trial.

        Raises:
          RunError: every trial diverged, or none was evaluated yet.
        """
        if not self.ranking:
            lost, here = self.statuses == "diverged", int((self.statuses != "elsewhere").sum())
            diverged = int(lost.sum())
            if diverged == here > 0:
                first = int(self.lane_step[lost].min())
                raise RunError(
                    f"there is no best trial: all {diverged} diverged, the first at step {first}. "
                    "Lower the learning rates, or clip the gradients."
                )
            raise RunError(f"there is no best trial yet: {diverged} of {here} diverged, none is evaluated.")
        return Trial(self, self.ranking[0])

    def top(self, k: int = 10, by: Objective | None = None) -> list[Trial]:
        """The ``k`` best trials, by the objective of the sweep or another: ``by=hpx.maximize("valid/accuracy")``."""
        k = check_int("top.k", k)
        if by is None or by == self.objective:
            return [Trial(self, trial) for trial in self.ranking[:k]]
        return [Trial(self, t) for t in by.rank(self.last(by.metric), self.lane_status, self.lane_step)[:k]]

    def table(self) -> dict[str, Array]:
        """A column per hyperparameter and metric, and trial, round, group, status and step; each (trials,).

        Metrics are averaged over replicates. A hyperparameter that a trial lacks is NaN in a column of
        numbers, None in others. ``gap`` is the objective's metric on the valid split less that on the train split,
        where both are there. Metrics on the test split have columns once a trial was tested, NaN for the others.
        """
        columns: dict[str, Array] = {"trial": np.arange(len(self))}
        for name in self.names:
            columns[name] = column(name, self.hparams)
        columns |= {name: self.last(name).mean(axis=1) for name in self.metrics}
        at, train = self.objective.metric, self.objective.metric.replace("valid/", "train/")
        if at != train and train in self.metrics:
            columns["gap"] = columns[at] - columns[train]
        for trial, metrics in self.tested.items():
            for name, value in metrics.items():
                columns.setdefault(name, np.full(len(self), np.nan))[trial] = value
        return columns | {
            "round": self.rounds,
            "group": self.groups,
            "status": self.statuses,
            "step": self.lane_step.min(axis=1),
        }

    def grid(self, *names: str) -> tuple[tuple[list[Any], ...], Array]:
        """The trials of a grid by their hyperparameters, to index whatever has an entry a trial.

        Args:
          *names: hyperparameters that tell all trials apart; by default all that vary.

        Returns:
          The values of each, numbers ascending, others in the order of the trials; and trial ids, int, with an axis
          for each.

        Raises:
          InputError: two trials have the same values, or a combination has no trial.

        Example:
          >>> space = hpx.Space(rate=hpx.LogUniform(1e-3, 0.1, num=3), scale=hpx.Choice(1.0, 0.5))
          >>> result = hpx.Sweep(program, space, sampler=hpx.Grid()).run(progress=False)
          >>> (rates, scales), trials = result.grid("rate", "scale")
          >>> rates, scales, result.last("valid/loss")[trials].shape
          ([0.001, 0.01, 0.1], [0.5, 1.0], (3, 2, 1))
        """
        from hpjax.results import analysis

        return analysis.grid(self, names or analysis.varied(self))

    def to_pandas(self) -> Any:
        """``table()`` as a ``pandas.DataFrame``; needs ``pip install 'hpjax[pandas]'``."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas() needs pandas: pip install 'hpjax[pandas]'") from None
        return pandas.DataFrame(self.table())

    def to_csv(self, path: str | Path) -> None:
        """Writes ``table()`` as a CSV file, one row a trial; what is missing is an empty cell."""
        columns = self.table()
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in zip(*columns.values(), strict=True):
                writer.writerow(["" if cell is None or cell != cell else _plain(cell) for cell in row])

    def to_optuna(self, path: str | Path, name: str = "hpjax") -> None:
        """Writes the trials as a study of Optuna, a JournalStorage in a file, which ``optuna-dashboard`` opens.

        Complete trials are complete there too, stopped ones pruned, diverged ones failed. Needs ``pip install
        'hpjax[optuna]'``.

        Args:
          path: of the journal; a study is added where it exists.
          name: of the study.
        """
        from hpjax.results import optuna_export as journal

        journal.write(self, path, name)

    def plot(self, *names: str, path: str | Path | None = None) -> Any:
        """Draws the objective's curves and its best value against hyperparameters, all by default.

        Args:
          *names: hyperparameters.
          path: where to save the picture, if anywhere.

        Returns:
          The ``matplotlib`` figure; needs ``pip install 'hpjax[plot]'``.
        """
        from hpjax.results import plot

        figure = plot.overview(self, names or None)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def leaves(self, trial: int, replicate: int = 0) -> list[tuple[tuple[str | int, ...], Array]]:
        """Path and array of every leaf of one lane's final state."""
        if self.lane_status[trial, replicate] == "elsewhere":
            shards = ", ".join(self.manifest.sweep.shard or "?")
            raise RunError(
                f"trial {trial} is elsewhere: this run is shard {shards} of its sweep. "
                "Load the run directory of its own shard, or join them with hpjax merge."
            )
        if self.lane_status[trial, replicate] == "running":
            raise RunError(f"trial {trial} is still running, or was interrupted: it has no final state.")
        return self._store.states.lane(int(self.waves[trial]), trial, replicate)

    def test(self) -> dict[str, float]:
        """Evaluates the best trial on the test split, averaged over replicates, and records that it was used.

        Select by validation metrics, and look at the test split once: its value is then an honest estimate. Asked
        again, it gives what was recorded.

        Raises:
          RunError: the result was loaded without its sweep, there is no best trial or no test split, or trials are
            elsewhere, of which one may be better.
        """
        if elsewhere := int((self.statuses == "elsewhere").sum()):
            raise RunError(
                f"{count(elsewhere, 'trial')} are elsewhere, of which one may be better than the best here. "
                "Merge the shards, and test what sweep.run(directory) returns of the merged directory."
            )
        best = self.best
        if best.id in self.tested:
            return self.tested[best.id]
        metrics: dict[str, float] = self._with_sweep("test").test_metrics(self, best.id)
        self._store.add_test(best.id, metrics)
        return metrics

    def predictor(self, trial: int) -> Any:
        """What ``trial.predict`` calls; kept, so that it compiles once."""
        if trial not in self._predictors:
            self._predictors[trial] = self._with_sweep("predict").predictor(self, trial)
        return self._predictors[trial]

    def _with_sweep(self, what: str) -> Any:
        if self._sweep is None:
            raise RunError(f"{what}() needs the program: call it on what sweep.run(directory) returns.")
        return self._sweep

    @property
    def compile_seconds(self) -> float:
        """Seconds that the run waited for compilations; others went on while groups trained."""
        return sum(self._store.compilations().values())

    @property
    def scales(self) -> dict[str, str]:
        """Per hyperparameter ``"linear"``, ``"log"``, ``"reverse log"`` or ``"category"``."""
        return dict(self.manifest.sweep.scales)

    def ranges(self, trial: int) -> dict[str, Range]:
        """Between which numbers each hyperparameter of a trial could lie at its beginning, for those that are numbers.

        In a union of spaces those of the alternative that the trial is of.
        """
        mine, sweeping = self.first_hparams[trial], self.manifest.sweep
        for domains, ranges, options in zip(sweeping.space.values(), sweeping.ranges, sweeping.options, strict=True):
            ends = {name: Range(*found) for name, found in ranges.items()}
            if domains.keys() == mine.keys() and all(_lies(mine[n], options.get(n), ends.get(n)) for n in mine):
                return ends
        return {}

    @property
    def tested(self) -> dict[int, dict[str, float]]:
        """Trial to its test metrics, for those evaluated on the test split so far."""
        return self._store.tests()

    def summary(self, k: int = 10, by: Objective | None = None) -> str:
        """The ``k`` best trials as a table, and how many trials ended how."""
        trials = self.top(k, by)
        header = ["trial", *self.names, *self.metrics, "status", "step"]
        rows = [
            [
                str(trial.id),
                *(show(trial.hparams.get(name, "-")) for name in self.names),
                *(number(value) for value in trial.metrics.values()),
                trial.status,
                str(trial.step),
            ]
            for trial in trials
        ]
        names, counts = np.unique(self.statuses, return_counts=True)
        ended = ", ".join(f"{many:,} {name}" for name, many in zip(names, counts, strict=True))
        return f"{text_table(header, rows)}\n{count(len(self), 'trial')}: {ended}; best by {by or self.objective}"

    def __repr__(self) -> str:
        return self.summary(5)


def load(directory: str | Path) -> Result:
    """The result of a run directory, finished or still running. Needs no model code.

    Raises:
      RunError: it is no run directory, or cannot be read.
    """
    directory = Path(directory)
    return Result(Store.open(directory), read_manifest(directory))


def column(name: str, hparams: Sequence[Mapping[str, Any]]) -> Array:
    """A hyperparameter as a column: numbers, NaN where it is missing; or objects, None where it is."""
    present = [each[name] for each in hparams if name in each]
    if present and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        if len(present) == len(hparams) and all(isinstance(v, int) for v in present):
            return np.array(present, np.int64)
        return np.array([each.get(name, np.nan) for each in hparams], np.float64)
    column = np.empty(len(hparams), object)
    column[:] = [each.get(name) for each in hparams]
    return column


def _lies(value: Any, options: Sequence[str] | None, ends: Range | None) -> bool:
    """Whether a value is one of the options, or where there are none lies between the ends."""
    if options is not None:
        return show(value) in options
    return ends is not None and isinstance(value, int | float) and ends.low <= value <= ends.high


def _plain(cell: Any) -> str:
    return show(cell.item() if isinstance(cell, np.generic) else cell)
