"""The answer of a batch-scaling study: steps to the target against the batch size, fits, intervals, and doubts."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array, Floats, Ints
from hpjax.core.errors import InputError, RunError, check_float, check_int, did_you_mean
from hpjax.core.format import show
from hpjax.results.analysis import steps_to_target
from hpjax.results.columns import column, labels_of
from hpjax.results.result import Result, load
from hpjax.results.style import Width
from hpjax.studies import plot
from hpjax.studies.doubts import doubts_of
from hpjax.studies.fits import RateFit, StepsFit, fit_rates, fit_steps, slopes
from hpjax.studies.report import report_of
from hpjax.studies.study import StudyResult
from hpjax.studies.to_target import bootstrap_of_minimum, edges_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What the manifest calls such a study.
KIND = "batch scaling"


class TrialCounts(NamedTuple):
    """How many trials of a batch size ended in which way.

    Attributes:
      complete: trials that took all their steps or reached the target; of these the first ones, if only so many count.
      diverged: trials that diverged.
      incomplete: trials that were stopped early, or are still running.
      reached: how many of the complete ones reached the target.
    """

    complete: int
    diverged: int
    incomplete: int
    reached: int


class ScalingPoint(NamedTuple):
    """A batch size at which at least one trial reached the target, with the best one.

    Attributes:
      batch_size: the batch size, in examples.
      steps: optimizer steps of the best trial to the target.
      evaluations: evaluations of that trial up to the target, which tell how finely the steps are known.
      interval: low and high end of the steps, 95 % by the bootstrap over trials. It reaches from the best trial
        upwards, to infinity if too few trials reached the target.
      trial: the id of the best trial.
      hparams: its hyperparameters.
      edges: which of them lie at an edge of the space, each with ``"lowest"`` or ``"highest"``.
    """

    batch_size: int
    steps: int
    evaluations: int
    interval: tuple[float, float]
    trial: int
    hparams: Mapping[str, Any]
    edges: Mapping[str, str]


# Compared by identity, since arrays are not equal as a whole.
@dataclass(frozen=True, eq=False)
class BatchScalingResult(StudyResult):
    """The answer of a batch-scaling study; ``print`` it. See ``BatchScaling``, the question.

    ``BatchScaling.run`` gives it, ``read`` makes it from any result of a sweep over batch sizes, and ``load`` from the
    directory of a study. A batch size at which no trial reached the target has no point.

    Attributes:
      result: the result of the sweep.
      target: the value of the objective's metric that is to be reached.
      name: the hyperparameter that is the batch size.
      batch_sizes: all of them, ascending.
      counts: how the trials of each batch size ended.
      points: the batch sizes at which a trial reached the target, ascending.
      trial_steps: for each batch size, float (complete trials,), the steps of these to the target, infinite for a trial
        that did not reach it.
      complete: how many complete trials of each batch size were to count, the first ones; None for all.

    Example:
      >>> from hpjax.studies import NoisyQuadratic
      >>> model = NoisyQuadratic(dimensions=10, distinct=5)
      >>> space = hpx.Space(learning_rate=hpx.LogUniform(0.05, 1, num=3), batch_size=hpx.Choice(1, 4, 16, 64))
      >>> sweep = hpx.Sweep(model.program(steps=200, eval_every=1), space, sampler=hpx.Grid())
      >>> answer = BatchScalingResult.read(sweep.run(progress=False), target=0.05)
      >>> answer.batch_sizes, answer.goal
      ((1, 4, 16, 64), 'valid/loss below 0.05')
    """

    result: Result
    target: float
    name: str
    batch_sizes: tuple[int, ...]
    counts: tuple[TrialCounts, ...]
    points: tuple[ScalingPoint, ...]
    trial_steps: tuple[Floats, ...]
    complete: int | None = None

    @classmethod
    def read(
        cls, result: Result, target: float, *, complete: int | None = None, name: str = "batch_size"
    ) -> "BatchScalingResult":
        """Returns the answer that a result gives, of a study or of any other sweep over batch sizes.

        Args:
          result: a result with one replicate a trial.
          target: a value of the objective's metric; for a study's result the study's own, or an easier one.
          complete: how many complete trials of each batch size count, the first ones; all if None.
          name: the hyperparameter that is the batch size.

        Raises:
          InputError: the result has no such hyperparameter or has several replicates, or its trials ended before the
            target.
        """
        _check_reading(result, target, complete, name)
        steps = steps_to_target(result, target)[:, 0]
        sizes = np.array([hparams[name] for hparams in result.hparams])
        batch_sizes = tuple(sorted({int(size) for size in sizes}))
        counts, points, trial_steps = [], [], []
        for size in batch_sizes:
            own = np.flatnonzero(sizes == size)
            statuses = result.statuses[own]
            # A trial that reached the target and then diverged does not count as complete.
            done = own[statuses == "complete"][:complete]
            reached = int(np.isfinite(steps[done]).sum())
            diverged = int((statuses == "diverged").sum())
            incomplete = int((~np.isin(statuses, ["complete", "diverged"])).sum())
            counts.append(TrialCounts(len(done), diverged, incomplete, reached))
            trial_steps.append(steps[done])
            if reached:
                points.append(_point(result, size, done, steps[done], name))
        return cls(result, float(target), name, batch_sizes, tuple(counts), tuple(points), tuple(trial_steps), complete)

    @classmethod
    def load(cls, directory: str | Path) -> "BatchScalingResult":
        """Returns the answer of the study that a run directory holds, finished or still running, without its program.

        Raises:
          RunError: it is no run directory, or its run belongs to no batch-scaling study.
        """
        answer = recorded_answer(load(directory))
        if answer is None:
            raise RunError(
                f"{str(directory)!r} was not run as a batch-scaling study. Write its target: "
                "hpx.studies.BatchScalingResult.read(hpx.load(directory), target=0.1)."
            )
        return answer

    @property
    def missing(self) -> tuple[int, ...]:
        """The batch sizes at which no trial reached the target."""
        there = {point.batch_size for point in self.points}
        return tuple(size for size in self.batch_sizes if size not in there)

    @cached_property
    def slopes(self) -> Floats:
        """The slope d log steps / d log batch size between neighbours, (points − 1,); −1 is perfect scaling."""
        return slopes(*self._steps)

    @cached_property
    def fit(self) -> StepsFit:
        """The fit steps = S_min (1 + B_crit/B).

        Raises:
          InputError: there are fewer than three points.
        """
        return fit_steps(*self._steps)

    @property
    def regimes(self) -> tuple[str, ...]:
        """The regime of each point, by the slope of the fit; see ``StepsFit.regime``.

        Raises:
          InputError: there are fewer than three points.
        """
        return tuple(self.fit.regime(size) for size in self._steps[0])

    def critical_interval(self, draws: int = 200) -> tuple[float, float]:
        """Returns the interval of B_crit, 95 % by the bootstrap over trials, in examples.

        Args:
          draws: how many times trials are drawn; a draw that leaves fewer than three points is left out.

        Raises:
          InputError: there are fewer than three points.
        """
        check_int("critical_interval.draws", draws)
        fit_steps(*self._steps)
        rng = np.random.default_rng(0)
        sizes, found = np.array(self.batch_sizes), []
        for _ in range(draws):
            steps = np.array([rng.choice(own, len(own)).min() if len(own) else np.inf for own in self.trial_steps])
            if np.isfinite(steps).sum() >= 3:
                found.append(fit_steps(sizes, steps).critical_batch_size)
        if not found:
            return np.nan, np.nan
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)

    @cached_property
    def interval_of_critical(self) -> tuple[float, float]:
        """The interval that ``critical_interval()`` returns, computed once."""
        return self.critical_interval()

    def best_rates(self, learning_rate: str = "learning_rate", momentum: str | None = None) -> Floats:
        """Returns the learning rate of each point's best trial, or with ``momentum`` the effective learning rate.

        Args:
          learning_rate: the name of that hyperparameter.
          momentum: the name of a hyperparameter m; the effective learning rate is rate / (1 − m).

        Returns:
          Float (points,), NaN for a trial that has no such hyperparameter, since spaces may have alternatives.

        Raises:
          InputError: there is no hyperparameter of that name.
        """
        for name in (learning_rate, momentum):
            if name is not None and name not in self.result.names:
                allowed = "must be a hyperparameter"
                raise InputError("best_rates", name, allowed, did_you_mean(name, self.result.names))
        rates, momenta = (
            np.array([float(point.hparams.get(name, np.nan)) for point in self.points])
            for name in (learning_rate, momentum or learning_rate)
        )
        return rates if momentum is None else rates / (1 - momenta)

    def fit_rates(self, learning_rate: str = "learning_rate", momentum: str | None = None) -> tuple[RateFit, ...]:
        """Returns the fits of ``best_rates`` by the linear, square-root and surge laws, the least error first.

        Raises:
          InputError: there are fewer than three points.
        """
        return fit_rates(self._steps[0], self.best_rates(learning_rate, momentum))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What to doubt of the answer, in sentences."""
        return doubts_of(self)

    def table(self) -> dict[str, Array]:
        """Returns columns with a row for each batch size; NaN, or −1 for the trial, if there is no point.

        A hyperparameter that has the name of another column, as ``steps`` has, is found under that name with ``_0``.
        """
        place = {point.batch_size: point for point in self.points}
        here = [place.get(size) for size in self.batch_sizes]
        columns: dict[str, list[Any]] = {
            "steps": [point.steps if point else np.nan for point in here],
            "steps_low": [point.interval[0] if point else np.nan for point in here],
            "steps_high": [point.interval[1] if point else np.nan for point in here],
            "examples": [point.steps * point.batch_size if point else np.nan for point in here],
            "trial": [point.trial if point else -1 for point in here],
        }
        columns |= {name: [getattr(each, name) for each in self.counts] for name in TrialCounts._fields}
        best = [point.hparams if point else {} for point in here]
        labels = labels_of([self.name, *self.other_names], columns.keys())
        found = {labels[self.name]: np.array(self.batch_sizes)}
        found |= {name: np.array(cells) for name, cells in columns.items()}
        return found | {labels[name]: column(name, best) for name in self.other_names}

    def report(self) -> str:
        """Returns the answer as text, with what to doubt of it."""
        return report_of(self)

    def figure(self, width: Width) -> "Figure":
        """Returns the answer as a figure; see ``hpx.studies.plot.scaling``."""
        return plot.scaling(self, width=width)

    @property
    def goal(self) -> str:
        """The metric and the target, as text."""
        objective = self.result.objective
        return f"{objective.metric} {'below' if objective.direction == 'minimize' else 'above'} {show(self.target)}"

    @property
    def other_names(self) -> list[str]:
        """The names of the hyperparameters beside the batch size."""
        return [name for name in self.result.names if name != self.name]

    @property
    def _steps(self) -> tuple[Floats, Floats]:
        """Batch sizes and steps of the points."""
        return np.array([p.batch_size for p in self.points], float), np.array([p.steps for p in self.points], float)


def recorded_answer(result: Result) -> BatchScalingResult | None:
    """Returns the answer of the study that a result belongs to, None if it belongs to no batch-scaling study.

    Raises:
      RunError: the manifest has a record of the study that cannot be read.
    """
    record = result.manifest.sweep.study
    if record is None or record.kind != KIND or record.target is None:
        return None
    return BatchScalingResult.read(result, record.target, complete=record.complete, name=record.over)


def _check_reading(result: Result, target: float, complete: int | None, name: str) -> None:
    """Raises unless the result can be read at this target."""
    field = "BatchScalingResult.read"
    check_float(f"{field}.target", target, -np.inf, remedy="Write target=0.1.")
    if complete is not None:
        check_int(f"{field}.complete", complete)
    record = result.manifest.sweep.study
    score = result.objective.value  # turns a value into a score as well, since one is the other or its negative
    if record is not None and record.target is not None and score(target) < score(record.target):
        allowed = f"is harder than the target at which the trials ended, {show(record.target)}"
        raise InputError(f"{field}.target", target, allowed, f"Run BatchScaling(..., target={show(target)}).")
    if name not in result.names:
        raise InputError(f"{field}.name", name, "must be a hyperparameter", did_you_mean(name, result.names))
    replicates = result.lane_status.shape[1]
    if replicates != 1:
        remedy = "Run a sweep with replicates=1 and more trials."
        raise InputError(f"{field}.result", f"{replicates} replicates", "must have one replicate a trial", remedy)


def _point(result: Result, size: int, trials: Ints, steps: Floats, name: str) -> ScalingPoint:
    """Returns the point of a batch size from its complete trials and their steps to the target."""
    first = int(np.argmin(steps))  # the first of equals
    trial, reached = int(trials[first]), steps[first]
    evaluations = int(np.sum(result.curves("step")[trial, 0] <= reached))
    hparams, edges = result.hparams[trial], edges_of(result, trial, name)
    return ScalingPoint(size, int(reached), evaluations, bootstrap_of_minimum(steps), trial, hparams, edges)
