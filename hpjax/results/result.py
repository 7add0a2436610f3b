"""Results: what a sweep found, read from its store. Needs no model code."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, RunError, check_int, missing
from hpjax.core.format import count
from hpjax.core.objective import Objective
from hpjax.results import csv_file, latex, picture_file, plot, reproducibility
from hpjax.results.importance import Importance, importance
from hpjax.results.report.content import content_of
from hpjax.results.report.page import Report
from hpjax.results.store.manifest import Manifest, read_manifest
from hpjax.results.store.rows import Status
from hpjax.results.store.run_store import Store
from hpjax.results.style import Width
from hpjax.results.summary import Summary, no_best, no_state, summary_of
from hpjax.results.table import TrialTable
from hpjax.results.table_reader import read_table
from hpjax.results.trial import Trial

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class Models(Protocol):
    """The trained models of a result, which only its sweep can build: a result knows no program."""

    def test_metrics(self, trial: int) -> dict[str, float]:
        """Returns a trial's metrics on the test split, by name, averaged over replicates."""

    def predictor(self, trial: int) -> Callable[[Any], Any]:
        """Returns a trial's models as one function: inputs (examples, ...) to outputs (replicates, examples, ...)."""


class Result(TrialTable):
    """What a sweep found: its trials as arrays, and what reads their states, tests, predicts, draws and exports.

    Attributes:
      manifest: versions, devices, command and plan of the run, and its sweep: ``result.manifest.sweep.seed``.

    Beside these it has all attributes of a table of trials: ``names``, ``metrics``, ``hparams`` (per trial, name to
    value; where a scheduler changed them, the last ones), ``first_hparams``, ``lineage``; the int arrays (trials,)
    ``rounds``, ``groups``, ``waves``, ``widths``; ``lane_status`` and ``lane_step``, (trials, replicates).

    A result pickles with its trials, without the program and its data: the copy tests and predicts no more, for which
    ``sweep.models(result)`` is. Final states are pickled where they are in memory; where they are in a directory the
    copy reads them there.

    ``len(result)`` is the number of trials, ``result[7]`` one of them, and iterating gives them all.

    Example:
      >>> result = hpx.Sweep(program, space, trials=4).run(progress=False)
      >>> len(result), result.curves("valid/loss").shape
      (4, (4, 1, 2))
    """

    def __init__(self, store: Store, manifest: Manifest, models: "Callable[[Result], Models] | None" = None) -> None:
        super().__init__(**vars(read_table(store, manifest)))
        self._store, self.manifest, self._models_of = store, manifest, models
        self._predictors: dict[int, Callable[[Any], Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_models_of", "_predictors")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _models_of=None, _predictors={})

    def __iter__(self) -> Iterator[Trial]:
        return (Trial(self, trial) for trial in range(len(self)))

    def __getitem__(self, trial: int) -> Trial:
        if not 0 <= trial < len(self):
            raise InputError("trial", trial, f"must lie in 0 … {len(self) - 1}", "Print result.table()['trial'].")
        return Trial(self, int(trial))

    @property
    def best(self) -> Trial:
        """The best trial by the objective.

        Raises:
          RunError: every trial diverged or failed, or none was evaluated yet.
        """
        if not self.ranking:
            raise no_best(self)
        return Trial(self, self.ranking[0])

    def top(self, k: int = 10, by: Objective | None = None) -> list[Trial]:
        """Returns the best trials, from the best on.

        Args:
          k: how many at most.
          by: the objective to rank by, such as ``hpx.maximize("valid/accuracy")``; by default the sweep's own.

        Raises:
          InputError: ``k`` is no positive integer, ``by`` no objective, or there is no such metric.
        """
        k = check_int("top.k", k)
        if by is not None and not isinstance(by, Objective):
            raise InputError("top.by", by, "must be an objective", 'Write by=hpx.minimize("valid/loss").')
        ranking = self.ranking if by is None else self.ranked(by)
        return [Trial(self, trial) for trial in ranking[:k]]

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns ``table()`` as a ``pandas.DataFrame``; needs pandas."""
        try:
            import pandas
        except ImportError:
            raise missing("to_pandas()", "pandas") from None
        return pandas.DataFrame(self.table())

    def to_csv(self, path: str | Path) -> None:
        """Writes ``table()`` as a CSV file in UTF-8, one row per trial; missing values are empty cells.

        The file is written whole or not at all.

        Raises:
          RunError: it cannot be written.
        """
        csv_file.write(self.table(), path)

    def importance(
        self, metric: str | Objective | None = None, method: str = "ped-anova", resamples: int = 50, seed: int = 0
    ) -> list[Importance]:
        """Returns how much each hyperparameter matters for a metric, from the most important on; needs Optuna.

        Args:
          metric: by default that of the objective. For PED-ANOVA another one says which values are best:
            ``hpx.maximize("valid/accuracy")``.
          method: ``"ped-anova"``, what tells the best tenth of the trials from all (S. Watanabe et al., IJCAI 2023), or
            ``"fanova"``, the share of the variance that random forests explain by each alone (F. Hutter et al., ICML
            2014), which takes longer and needs scikit-learn. In a space of several alternatives shares are taken within
            each; which alternative a trial is of has a share, too: the variance between their means.
          resamples: of trials and of their replicates, for the intervals; 0 for none.
          seed: of the resamples.

        Raises:
          InputError: there is no such metric or method, or there are too few complete trials.
        """
        return importance(self, metric, method, resamples, seed)

    def latex(self, columns: Sequence[str] | None = None, top: int = 10, best: str | None = "bold") -> str:
        """Returns the best trials as a table of LaTeX, which needs the package booktabs.

        Metrics are means over replicates ± their standard deviation, where there are several.

        Args:
          columns: hyperparameters, metrics, ``"trial"``, ``"status"`` and ``"step"``; by default the hyperparameters
            that vary and the objective's metric.
          top: how many trials.
          best: ``"bold"`` sets the objective's best value in bold type, None does not.

        Raises:
          InputError: there is no such column, or another argument cannot be used.
        """
        return latex.latex(self, columns, top, best)

    def reproducibility(self) -> str:
        """Returns what a paper's appendix says of the sweep, as Markdown.

        That is the search space and its scales, trials and how they ended, seeds, steps, devices, device-hours,
        versions, the command, and digests of code and data.
        """
        return reproducibility.reproducibility(self, self.manifest, self._store.seconds())

    def to_optuna(self, path: str | Path, name: str = "hpjax") -> None:
        """Writes the trials as a study of Optuna into a journal file, which ``optuna-dashboard`` opens.

        Complete trials are complete in Optuna, stopped ones pruned with their last value, diverged and failed ones
        failed. The study has the domains of the space, the objective's metric as the name of its value, and the
        sampler, scheduler and seed as attributes. Needs Optuna.

        Args:
          path: the journal, ``optuna.storages.JournalStorage``; where it exists, the study is added to it. It is
            written whole or not at all.
          name: the name of the study.

        Raises:
          InputError: the journal has a study of this name.
          RunError: the file is no journal, or cannot be written.
        """
        # Imports the sampler for Optuna and with it JAX, which nothing else here needs.
        from hpjax.results import optuna_export

        sweep = self.manifest.sweep
        about = {"sampler": sweep.sampler, "scheduler": sweep.scheduler, "seed": sweep.seed}
        optuna_export.write(self, path, name, about)

    def plot(self, *names: str, path: str | Path | None = None, width: Width = "double") -> "Figure":
        """Draws the objective's curves, and the value by which trials rank against each hyperparameter, by matplotlib.

        Args:
          *names: hyperparameters; by default all that vary.
          path: where to save the picture; by default nowhere.
          width: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

        Raises:
          InputError: there is no such hyperparameter or width, or no such format of pictures.
          RunError: the picture cannot be written.
        """
        figure = plot.overview(self, names or None, width)
        if path is not None:
            picture_file.save(figure, path)
        return figure

    def report(self, path: str | Path | None = None) -> Report:
        """Returns the report of the run: a page of HTML that opens in any browser, without a network.

        Args:
          path: where to save it, such as ``"report.html"``; by default nowhere.

        Raises:
          RunError: it cannot be written.
          ImportError: plotly is not installed, where it is saved.
        """
        directory, seconds = self._store.directory, self._store.seconds() if self.finished else None
        title = "sweep" if directory is None else directory.name
        made = Report(content_of(self, self.manifest, title, seconds))
        if path is not None:
            made.save(path)
        return made

    def leaves(self, trial: int, replicate: int = 0) -> list[tuple[tuple[str | int, ...], Array]]:
        """Returns path and array of every leaf of one lane's final state.

        Raises:
          RunError: the trial is still running or failed, another shard has it, or its files are missing or damaged.
        """
        if self.lane_status[trial, replicate] in (Status.OTHER_SHARD, Status.RUNNING, Status.FAILED):
            raise no_state(self, trial, replicate, self.manifest.sweep.shard)
        return self._store.state_of(int(self.waves[trial]), trial, replicate)

    def shared_leaves(self) -> list[tuple[tuple[str | int, ...], Array]]:
        """Returns path and array of what belongs to every final state and never changed: frozen parameters."""
        return self._store.states.shared()

    def artifacts(self, trial: int) -> list[tuple[int, dict[str, Array]]]:
        """Returns the artifacts of a trial: optimizer step, and name to array, of each evaluation that has any.

        Raises:
          RunError: they cannot be read.
        """
        return [(evaluated.step, arrays) for evaluated, arrays in self._store.artifacts.of(trial)]

    def test(self) -> dict[str, float]:
        """Evaluates the best trial on the test split, averaged over replicates, and records that it was used.

        Select by validation metrics, and look at the test split once: its value is then an honest estimate. A second
        call returns what the first one recorded.

        Returns:
          Metric to value, ``{"test/loss": 0.3, ...}``.

        Raises:
          RunError: the result was loaded without its sweep; there is no best trial, or no test split; or there are
            trials in other shards, and one of them may be better.
        """
        if others := int((self.statuses == Status.OTHER_SHARD).sum()):
            raise RunError(
                f"{count(others, 'trial')} are in other shards, and one of them may be better than the best here. "
                "Join the shards, hpjax merge DIR... --out WHOLE, and test the whole: sweep.run('WHOLE').test()."
            )
        best = self.best
        if best.id not in self.tested:
            metrics = self._models("test").test_metrics(best.id)
            self._store.add_test(best.id, metrics)
            self.tested[best.id] = metrics
        return self.tested[best.id]

    def predictor(self, trial: int) -> Callable[[Any], Any]:
        """Returns the function that ``trial.predict`` calls; it is kept, so that it compiles once."""
        if trial not in self._predictors:
            self._predictors[trial] = self._models("predict").predictor(trial)
        return self._predictors[trial]

    def _models(self, method: str) -> Models:
        """Returns the trained models, for a method of this name."""
        if self._models_of is None:
            raise RunError(
                f"{method}() needs the program, which a result has neither from hpx.load nor from a pickle: call it on "
                "the result that sweep.run(directory) returns. Or write sweep.models(result), which predicts and tests."
            )
        return self._models_of(self)

    @property
    def finished(self) -> bool:
        """Whether the run was finished, or its directory merged, when it was loaded."""
        return self._store.ends() > self.manifest.extended

    @property
    def compile_seconds(self) -> float:
        """Seconds that the run waited for compilations; some more overlapped with training."""
        return sum(self._store.compilations().values())

    def summary(self, k: int = 10, by: Objective | None = None) -> str:
        """Returns the best trials as a table of text, and below it how many trials ended how.

        Args:
          k: how many trials.
          by: as for ``top``.

        Raises:
          InputError: as for ``top``.
        """
        return str(self.rows(k, by))

    def rows(self, k: int = 10, by: Objective | None = None) -> Summary:
        """Returns what ``summary`` does as the cells of a table."""
        return summary_of(self, [trial.id for trial in self.top(k, by)], by or self.objective)

    def __repr__(self) -> str:
        return self.summary(5)

    def _repr_html_(self) -> str:
        return self.rows()._repr_html_()


def load(directory: str | Path) -> Result:
    """Returns the result of a run directory, finished or still running. Needs no model code.

    Args:
      directory: that ``sweep.run(directory)`` or ``hpx.merge(..., out)`` wrote.

    Raises:
      RunError: it is no run directory, or cannot be read.

    Example:
      >>> import tempfile
      >>> directory = tempfile.mkdtemp()
      >>> result = hpx.Sweep(program, space, trials=4).run(directory, progress=False)
      >>> hpx.load(directory).best.id == result.best.id
      True
    """
    manifest = read_manifest(Path(directory))  # an error names the directory as the user does
    return Result(Store.open(Path(directory).absolute()), manifest)
