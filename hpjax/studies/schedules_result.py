"""The answer of a study of schedules: the best of each family, and how much it gains over the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array, Floats
from hpjax.core.errors import InputError, RunError, did_you_mean
from hpjax.results.analysis import Comparison, Estimate
from hpjax.results.columns import column, labels_of, varied
from hpjax.results.result import Result, load
from hpjax.results.store.rows import Status
from hpjax.results.style import Width
from hpjax.studies import plot
from hpjax.studies.chosen import choosing_of, compared, goes_on, medians_of
from hpjax.studies.schedules_report import doubts_of, report_of
from hpjax.studies.study import StudyResult
from hpjax.studies.to_target import edges_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What the manifest calls such a study.
KIND = "schedules"


class FamilyPoint(NamedTuple):
    """The best trial of a family of schedules, and what it gains.

    Attributes:
      family: the name of the family.
      trial: the id of the best trial, by the median over the seeds that choose.
      hparams: its hyperparameters, those that the family has.
      edges: which of them lie at an edge of their domains, each with ``"lowest"`` or ``"highest"``; but for edges at 0,
        and at 1 of a domain from 0 to 1, beyond which a share has no values.
      value: the median of the objective's metric over the seeds that judge.
      gain: the median, over the seeds that judge, of how much better it is than the baseline's best on the same seed,
        in units of the metric; with the 95 % interval of a bootstrap over seeds.
      better: how probable it is that it is better than the baseline's best on one seed.
      judges: how many seeds judged it, on which neither it nor the baseline's best diverged.
      lead: how much better its median over the seeds that choose is than that of the second-best trial of the family,
        infinite where there is none: what a search of other points might have missed.
    """

    family: str
    trial: int
    hparams: Mapping[str, Any]
    edges: Mapping[str, str]
    value: float
    gain: Estimate
    better: Comparison
    judges: int
    lead: float


# Compared by identity, since arrays are not equal as a whole.
@dataclass(frozen=True, eq=False)
class SchedulesResult(StudyResult):
    """The answer of a study of schedules; ``print`` it. See ``Schedules``, the question.

    ``Schedules.run`` gives it, ``read`` makes it from the result of a study, and ``load`` from its directory. A family
    of which no trial is complete on the seeds that choose has no point.

    Attributes:
      result: the result of the sweep.
      name: the hyperparameter that is the schedule.
      baseline: the family that the others are compared with.
      families: the names of all families, in the order of the question.
      diverged: how many trials of each family diverged on some seed.
      points: the families that have a best trial.
      choosing: how many seeds choose.

    Example:
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), data=hpx.data.digits(), batch_size=64, steps=50,
      ...     optimizer=lambda h: optax.sgd(lambda t: h.learning_rate * h.schedule(t, h)),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels)
      >>> space = hpx.Space(learning_rate=hpx.LogUniform(1e-2, 10))
      >>> families = hpx.studies.schedule_families(50, "cosine", "two_point_linear")
      >>> study = hpx.studies.Schedules(program, space, families, trials=4, replicates=6)
      >>> answer = study.run(progress=False)
      >>> answer.baseline, answer.choosing, list(answer.points[1].hparams)
      ('cosine', 3, ['learning_rate', 'warmup', 'x1', 'y1', 'x2', 'y2'])
    """

    result: Result
    name: str
    baseline: str
    families: tuple[str, ...]
    diverged: tuple[int, ...]
    points: tuple[FamilyPoint, ...]
    choosing: int

    @classmethod
    def read(cls, result: Result, baseline: str = "cosine", *, name: str = "schedule") -> "SchedulesResult":
        """Returns the answer that a result gives.

        Args:
          result: the result of a sweep with 4 replicates or more in which ``name`` is a choice of families.
          baseline: the family that the others are compared with.
          name: the hyperparameter that is the schedule.

        Raises:
          InputError: the result has no such hyperparameter or family, or too few replicates.
        """
        field = "SchedulesResult.read"
        if name not in result.names:
            raise InputError(f"{field}.name", name, "must be a hyperparameter", did_you_mean(name, result.names))
        replicates = result.lane_status.shape[1]
        if replicates < 4:
            allowed = "must have 4 or more, two that choose and two that judge"
            raise InputError(f"{field}.result", f"{replicates} replicates", allowed, "Write replicates=20.")
        own = np.array([str(hparams[name]) for hparams in result.hparams])
        families = tuple(dict.fromkeys(own.tolist()))
        if baseline not in families:
            allowed = "must be one of the families"
            raise InputError(f"{field}.baseline", baseline, allowed, did_you_mean(baseline, families))
        scores, choosing = result.objective.scores(result.last(result.objective.metric)), choosing_of(replicates)
        medians, judging = medians_of(result, scores[:, :choosing]), scores[:, choosing:]
        # Of each family the trials from best to worst, of equals the first one first.
        ranked = {family: np.flatnonzero(own == family) for family in families}
        ranked = {family: trials[np.argsort(medians[trials], kind="stable")] for family, trials in ranked.items()}
        base = np.full(judging.shape[1], np.nan)
        if np.isfinite(medians[ranked[baseline][0]]):
            base = judging[ranked[baseline][0]]
        points = tuple(
            _point(result, name, trials, medians, judging[trials[0]], base)
            for trials in ranked.values()
            if np.isfinite(medians[trials[0]])
        )
        lost = (result.lane_status == Status.DIVERGED).any(axis=1)
        diverged = tuple(int((lost & (own == family)).sum()) for family in families)
        return cls(result, name, baseline, families, diverged, points, choosing)

    @classmethod
    def load(cls, directory: str | Path) -> "SchedulesResult":
        """Returns the answer of the study that a run directory holds, finished or still running, without its program.

        Raises:
          RunError: it is no run directory, or its run belongs to no study of schedules.
        """
        answer = recorded_answer(load(directory))
        if answer is None:
            raise RunError(
                f"{str(directory)!r} was not run as a study of schedules. Name its baseline: "
                'hpx.studies.SchedulesResult.read(hpx.load(directory), baseline="cosine").'
            )
        return answer

    @property
    def missing(self) -> tuple[str, ...]:
        """The families of which no trial is complete on the seeds that choose."""
        there = {point.family for point in self.points}
        return tuple(family for family in self.families if family not in there)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What to doubt of the answer, in sentences."""
        return doubts_of(self)

    def table(self) -> dict[str, Array]:
        """Returns columns with a row for each family that has a point; NaN for a hyperparameter that it lacks.

        A hyperparameter that has the name of another column is found under that name with ``_0``.
        """
        hparams = [point.hparams for point in self.points]
        names = list(dict.fromkeys(name for each in hparams for name in each))
        columns: dict[str, Array] = {
            "trial": np.array([point.trial for point in self.points]),
            "value": np.array([point.value for point in self.points]),
            "judges": np.array([point.judges for point in self.points]),
        }
        for name in ("gain", "better"):
            for part in ("value", "low", "high"):
                label = name if part == "value" else f"{name}_{part}"
                columns[label] = np.array([getattr(getattr(point, name), part) for point in self.points])
        labels = labels_of([self.name, *names], columns)
        found = {labels[self.name]: np.array([point.family for point in self.points])} | columns
        return found | {labels[name]: column(name, hparams) for name in names}

    def report(self) -> str:
        """Returns the answer as text, with what to doubt of it."""
        return report_of(self)

    def figure(self, width: Width) -> "Figure":
        """Returns the answer as a figure; see ``hpx.studies.plot.gains``."""
        return plot.gains(self, width)


def recorded_answer(result: Result) -> SchedulesResult | None:
    """Returns the answer of the study that a result belongs to, None if it belongs to no study of schedules."""
    record = result.manifest.sweep.study
    if record is None or record.kind != KIND or record.baseline is None:
        return None
    return SchedulesResult.read(result, record.baseline, name=record.over)


def _point(result: Result, name: str, ranked: Array, medians: Floats, scores: Floats, base: Floats) -> FamilyPoint:
    """Returns the point of a family.

    Args:
      result: the result of the study.
      name: the hyperparameter that is the schedule.
      ranked: the ids of the family's trials, the best one first.
      medians: of all trials, over the seeds that choose.
      scores: of the best one, on the seeds that judge; lower is better, and NaN where it diverged.
      base: the same of the baseline's best.
    """
    trial = int(ranked[0])
    hparams = _own_hparams(result, ranked, trial, name)
    found = edges_of(result, trial, name).items()
    edges = {each: which for each, which in found if each in hparams and goes_on(result.ranges(trial)[each], which)}
    finite = scores[np.isfinite(scores)]
    value = result.objective.value(float(np.median(finite))) if len(finite) else np.nan
    both = np.isfinite(scores) & np.isfinite(base)
    gain, better = compared(scores[both], base[both])
    lead = float(medians[ranked[1]] - medians[trial]) if len(ranked) > 1 else np.inf
    family = str(result.hparams[trial][name])
    return FamilyPoint(family, trial, hparams, edges, value, gain, better, int(both.sum()), lead)


def _own_hparams(result: Result, own: Array, trial: int, name: str) -> dict[str, Any]:
    """Returns the hyperparameters of a trial that its family varies: those of other families are constants in it."""
    rows: Sequence[Mapping[str, Any]] = [result.hparams[i] for i in own]
    ranges = result.ranges(trial)
    shown = [each for each in result.names if each != name and each in result.hparams[trial]]
    different = varied(shown, rows)
    return {each: result.hparams[trial][each] for each in shown if each in different or each in ranges}
