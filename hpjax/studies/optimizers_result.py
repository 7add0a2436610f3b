"""The answer of a comparison of optimizers: the best trial of each, steps to the target, and what to doubt."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array, Floats
from hpjax.core.errors import InputError, RunError, did_you_mean
from hpjax.results.analysis import Comparison, Estimate, median_of_studies, steps_to_target
from hpjax.results.result import Result, load
from hpjax.results.store.rows import SECONDS, Status
from hpjax.results.style import Width
from hpjax.studies import plot
from hpjax.studies.chosen import choosing_of, compared, goes_on, medians_of
from hpjax.studies.optimizers_report import doubts_of, report_of
from hpjax.studies.study import StudyResult
from hpjax.studies.to_target import edges_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What the manifest calls such a study, and the hyperparameter that is the optimizer.
KIND, NAME = "optimizers", "optimizer"
NOTHING = Estimate(np.nan, np.nan, np.nan)
# Tuning studies, as AlgoPerf has them: their number, of as many trials each as there are for that, and at most so many.
STUDIES, MOST_TRIALS = 5, 5


class OptimizerPoint(NamedTuple):
    """What an optimizer reached.

    Attributes:
      optimizer: its name.
      trial: the id of its best trial, by the median over the seeds that choose; None where no trial is complete on
        them.
      hparams: the hyperparameters of that trial, without the optimizer.
      edges: which of them lie at an edge of their domains, each with ``"lowest"`` or ``"highest"``.
      value: the median of the objective's metric over the seeds that judge.
      gain: the median, over the seeds that judge, of how much better the best optimizer is on the same seed, with the
        95 % interval of a bootstrap over seeds; 0 of the best one itself.
      beaten: how probable it is that the best optimizer is better on one seed.
      steps: optimizer steps to the target of the fastest trial of a tuning study, the median over five studies, with
        the interval in which it is in 95 % of draws of these; infinite where it is not reached. A trial reaches it if
        more than half of its seeds do. NaN without a target.
      reached: how many trials reach the target; 0 without one.
      step_seconds: seconds of a lane's step, evaluations included, while others train beside it: of this run, on its
        machine. NaN where trials were evaluated once.
      diverged: how many trials diverged on some seed.
    """

    optimizer: str
    trial: int | None
    hparams: Mapping[str, Any]
    edges: Mapping[str, str]
    value: float
    gain: Estimate
    beaten: Comparison
    steps: Estimate
    reached: int
    step_seconds: float
    diverged: int

    @property
    def seconds(self) -> float:
        """Seconds to the target: its steps, each at what a step of a lane takes."""
        return self.steps.value * self.step_seconds


# Compared by identity, since arrays are not equal as a whole.
@dataclass(frozen=True, eq=False)
class OptimizersResult(StudyResult):
    """The answer of a comparison of optimizers; ``print`` it. See ``Optimizers``, the question.

    ``Optimizers.run`` gives it, ``read`` makes it from the result of such a sweep, and ``load`` from its directory.

    Attributes:
      result: the result of the sweep.
      target: the value of the objective's metric to which steps are counted; None for none.
      points: of the optimizers, from the best to the worst by the median over the seeds that choose.
      choosing: how many seeds choose.
      studies: how many tuning studies steps are the median of, and how many trials each has.

    Example:
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), data=hpx.data.digits(), batch_size=64, steps=40, eval_every=10,
      ...     optimizer=lambda h: h.optimizer(h), loss=optax.softmax_cross_entropy_with_integer_labels)
      >>> rates = hpx.Space(rate=hpx.LogUniform(1e-3, 1))
      >>> study = hpx.studies.Optimizers(
      ...     program, {"sgd": (lambda h: optax.sgd(h.rate), rates), "lion": (lambda h: optax.lion(h.rate), rates)},
      ...     trials=5, replicates=4, target=1.0)
      >>> answer = study.run(progress=False)
      >>> answer.choosing, answer.studies
      (2, (5, 1))
    """

    result: Result
    target: float | None
    points: tuple[OptimizerPoint, ...]
    choosing: int
    studies: tuple[int, int]

    @classmethod
    def read(cls, result: Result, target: float | None = None) -> "OptimizersResult":
        """Returns the answer that a result gives.

        Args:
          result: of a sweep with 4 replicates or more in which ``optimizer`` is a choice.
          target: a value of the objective's metric; None asks for no steps to it.

        Raises:
          InputError: the result has no optimizers, or too few replicates.
        """
        field = "OptimizersResult.read"
        if NAME not in result.names:
            raise InputError(f"{field}.result", NAME, "must be a hyperparameter", did_you_mean(NAME, result.names))
        replicates = result.lane_status.shape[1]
        if replicates < 4:
            allowed = "must have 4 or more, two that choose and two that judge"
            raise InputError(f"{field}.result", f"{replicates} replicates", allowed, "Write replicates=10.")
        scores, choosing = result.objective.scores(result.last(result.objective.metric)), choosing_of(replicates)
        medians, judging = medians_of(result, scores[:, :choosing]), scores[:, choosing:]
        own = _trials_of(result)
        best = {name: int(trials[np.argmin(medians[trials])]) for name, trials in own.items()}
        order = sorted(own, key=lambda name: medians[best[name]])
        fewest = min(map(len, own.values()))
        studies = (min(STUDIES, fewest), max(min(fewest // STUDIES, MOST_TRIALS), 1))
        times = None if target is None else _times_of(result, target)
        points = tuple(
            _point(
                result,
                name,
                best[name] if np.isfinite(medians[best[name]]) else None,
                own[name],
                (judging[best[name]], judging[best[order[0]]]),
                (NOTHING, 0) if times is None else _reached(times[name], studies),
            )
            for name in order
        )
        return cls(result, target, points, choosing, studies)

    @classmethod
    def load(cls, directory: str | Path) -> "OptimizersResult":
        """Returns the answer of the study that a run directory holds, finished or still running, without its program.

        Raises:
          RunError: it is no run directory, or its run belongs to no comparison of optimizers.
        """
        answer = recorded_answer(load(directory))
        if answer is None:
            raise RunError(
                f"{str(directory)!r} was not run as a comparison of optimizers. If it has a hyperparameter optimizer: "
                "hpx.studies.OptimizersResult.read(hpx.load(directory), target=0.1)."
            )
        return answer

    def times(self) -> dict[str, Array]:
        """Returns the steps to the target of all trials of each optimizer, the median over all seeds of a trial.

        Float (trials,), in the order of their ids; infinite unless more than half do reach it, and NaN without a
        target.
        """
        if self.target is None:
            return {name: np.full(len(trials), np.nan) for name, trials in _trials_of(self.result).items()}
        return _times_of(self.result, self.target)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What to doubt of the answer, in sentences."""
        return doubts_of(self)

    def table(self) -> dict[str, Array]:
        """Returns columns with a row for each optimizer; the trial is −1 where there is none."""
        return {
            "optimizer": np.array([point.optimizer for point in self.points]),
            "trial": np.array([-1 if point.trial is None else point.trial for point in self.points]),
            "value": np.array([point.value for point in self.points]),
            "gain": np.array([point.gain.value for point in self.points]),
            "beaten": np.array([point.beaten.value for point in self.points]),
            "steps": np.array([point.steps.value for point in self.points]),
            "reached": np.array([point.reached for point in self.points]),
            "seconds": np.array([point.seconds for point in self.points]),
            "step_seconds": np.array([point.step_seconds for point in self.points]),
            "diverged": np.array([point.diverged for point in self.points]),
        }

    def report(self) -> str:
        """Returns the answer as text, with what to doubt of it."""
        return report_of(self)

    def figure(self, width: Width) -> "Figure":
        """Returns the answer as a figure; see ``hpx.studies.plot.optimizers``."""
        return plot.optimizers(self, width)


def recorded_answer(result: Result) -> OptimizersResult | None:
    """Returns the answer of the study that a result belongs to, None if it belongs to no comparison of optimizers."""
    record = result.manifest.sweep.study
    return OptimizersResult.read(result, record.target) if record is not None and record.kind == KIND else None


def _trials_of(result: Result) -> dict[str, Array]:
    """Returns the ids of the trials of each optimizer."""
    names = np.array([str(hparams[NAME]) for hparams in result.hparams])
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}


def _times_of(result: Result, target: float) -> dict[str, Array]:
    """Returns the steps of the trials of each optimizer to a target, infinite where half of the seeds fail."""
    times = np.median(steps_to_target(result, target), axis=1)
    return {name: times[trials] for name, trials in _trials_of(result).items()}


def _reached(times: Array, studies: tuple[int, int]) -> tuple[Estimate, int]:
    """Returns the steps to the target of tuning studies, and how many of the trials reach it."""
    return median_of_studies(times, *studies), int(np.isfinite(times).sum())


def _point(
    result: Result, name: str, trial: int | None, own: Array, judged: tuple[Floats, Floats], steps: tuple[Estimate, int]
) -> OptimizerPoint:
    """Returns the point of an optimizer.

    Args:
      result: the result of the study.
      name: the optimizer.
      trial: its best trial, None where it has none.
      own: all of its trials.
      judged: on the seeds that judge, the scores of its best trial, and those of the best one of all; lower is better,
        and NaN where a trial diverged.
      steps: of tuning studies to the target, and how many trials reach it.
    """
    diverged = int((result.lane_status[own] == Status.DIVERGED).any(axis=1).sum())
    shared = (*steps, _step_seconds(result, own), diverged)
    if trial is None:
        return OptimizerPoint(name, None, {}, {}, np.nan, NOTHING, Comparison(*[np.nan] * 4), *shared)
    mine, best = judged
    both = np.isfinite(mine) & np.isfinite(best)
    gain, beaten = compared(best[both], mine[both])
    finite = mine[np.isfinite(mine)]
    value = result.objective.value(float(np.median(finite))) if len(finite) else np.nan
    hparams = {each: value for each, value in result.hparams[trial].items() if each != NAME}
    ranges = result.ranges(trial)
    edges = {each: which for each, which in edges_of(result, trial, NAME).items() if goes_on(ranges[each], which)}
    return OptimizerPoint(name, trial, hparams, edges, value, gain, beaten, *shared)


def _step_seconds(result: Result, own: Array) -> float:
    """Returns the seconds of a lane's step: those between evaluations of a wave, over the steps of its lanes."""
    spent = taken = 0.0
    for wave in np.unique(result.waves[own]):
        trials = own[result.waves[own] == wave]
        seconds, steps = result.curves(SECONDS)[trials], result.curves("step")[trials]
        if np.isfinite(seconds).any():
            spent += float(np.nanmax(seconds) - np.nanmin(seconds))
            some = np.isfinite(steps).any(axis=2)
            taken += float((np.nanmax(steps[some], axis=1) - np.nanmin(steps[some], axis=1)).sum())
    return spent / taken if taken else np.nan
