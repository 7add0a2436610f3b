"""Scores: the objective of every trial at its evaluations, and which trials were stopped. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array, Bools, Floats
from hpjax.core.objective import Objective
from hpjax.core.space import Point
from hpjax.results.store.rows import Change, Status
from hpjax.samplers import Observation
from hpjax.schedulers import Race


class Scores(NamedTuple):
    """The scores of all trials of a sweep.

    Attributes:
      values: float64 (trials, replicates), the objective's metric at each lane's last evaluation; NaN where the lane
        diverged or was not evaluated.
      steps: int64 (trials,), optimizer steps that the trial had taken at its last evaluation.
      stopped: bool (trials,), whether a scheduler stopped the trial.
      curves: float64 (trials, evaluations), the score of each trial at each of its evaluations, lower is better;
        infinite once a replicate diverged, NaN after the trial's last evaluation. None without a scheduler.
    """

    values: Floats
    steps: Array
    stopped: Bools
    curves: Floats | None

    @classmethod
    def none(cls, trials: int, replicates: int, racing: bool) -> "Scores":
        """Returns the scores of trials that are not evaluated yet.

        Args:
          trials: how many there are.
          replicates: lanes of each.
          racing: whether a scheduler will compare them.
        """
        curves = np.full((trials, 0), np.nan) if racing else None
        return cls(np.full((trials, replicates), np.nan), np.zeros(trials, np.int64), np.zeros(trials, bool), curves)

    def with_changes(self, changes: Iterable[Change]) -> "Scores":
        """Returns the scores after some lanes diverged, were stopped, or run again as clones."""
        values, stopped = self.values.copy(), self.stopped.copy()
        for change in changes:
            if change.status == Status.DIVERGED:
                values[change.trial, change.replicate] = np.nan
            elif change.status in (Status.STOPPED, Status.RUNNING):
                stopped[change.trial] = change.status == Status.STOPPED
        return self._replace(values=values, stopped=stopped)

    def with_evaluation(
        self,
        objective: Objective,
        lanes: tuple[Any, Any],
        steps: Any,
        metrics: Mapping[str, Any],
        evaluated: Collection[int],
    ) -> "Scores":
        """Returns the scores after an evaluation; the changes of its segment must be in them already.

        Args:
          objective: what trials are scored by.
          lanes: trial ids and replicates of the healthy lanes, each int (lanes,).
          steps: optimizer steps that these lanes took, int (lanes,).
          metrics: name to what was measured of these lanes, float (lanes,).
          evaluated: the trials of which a lane was evaluated, healthy or not.
        """
        values, taken = self.values.copy(), self.steps.copy()
        values[lanes] = metrics[objective.metric]
        taken[lanes[0]] = steps
        curves = self.curves
        if curves is not None:
            mine = list(evaluated)
            at = (~np.isnan(curves[mine])).sum(axis=1)
            longer = max(int(at.max(initial=-1)) + 1 - curves.shape[1], 0)
            curves = np.pad(curves, ((0, 0), (0, longer)), constant_values=np.nan)
            scores = objective.aggregate(values[mine])
            # NaN means "no evaluation here". A trial of which a replicate diverged was evaluated, and cannot win.
            curves[mine, at] = np.where(np.isfinite(scores), scores, np.inf)
        return self._replace(values=values, steps=taken, curves=curves)

    def with_failed(self, trials: Collection[int]) -> "Scores":
        """Returns the scores after trials failed, which count as those of which a replicate diverged."""
        values, curves, mine = self.values.copy(), self.curves, list(trials)
        values[mine] = np.nan
        if curves is not None:
            curves = np.pad(curves, ((0, 0), (0, 1)), constant_values=np.nan)
            curves[mine, (~np.isnan(curves[mine])).sum(axis=1)] = np.inf
            curves = curves[:, ~np.isnan(curves).all(axis=0)]
        return self._replace(values=values, curves=curves)

    def without(self, trials: Collection[int]) -> "Scores":
        """Returns the scores as if some trials had never been evaluated or stopped."""
        forgotten = np.isin(np.arange(len(self.steps)), list(trials))
        return Scores(
            np.where(forgotten[:, None], np.nan, self.values),
            np.where(forgotten, 0, self.steps),
            self.stopped & ~forgotten,
            None if self.curves is None else np.where(forgotten[:, None], np.nan, self.curves),
        )

    def race(self, step: int, budget: int, live: Iterable[int], trials: Iterable[int]) -> Race:
        """Returns what a scheduler sees of trials that started together.

        Args:
          step: calls of ``step`` that the live trials took.
          budget: calls that the longest trial takes.
          live: the trials that still run.
          trials: all trials that started together.
        """
        assert self.curves is not None
        curves = {trial: tuple(row[~np.isnan(row)].tolist()) for trial in trials for row in [self.curves[trial]]}
        return Race(step, budget, tuple(sorted(live)), curves)

    def best(self, objective: Objective) -> tuple[int, float] | None:
        """Returns id and objective of the best trial so far that was not stopped, or None where there is none."""
        scores = np.where(self.stopped, np.nan, objective.aggregate(self.values))
        if not np.isfinite(scores).any():
            return None
        trial = int(np.nanargmin(scores))
        return trial, float(objective.value(scores[trial]))


def observed(
    objective: Objective, rounds: Sequence[int], points: Sequence[Point], values: Any, steps: Any
) -> list[Observation]:
    """Returns what a sampler sees of the trials so far.

    Args:
      objective: what trials are scored by.
      rounds: how many trials each round has.
      points: per trial so far, its hyperparameters.
      values: float (trials, replicates), the objective's metric at each lane's last evaluation, NaN where it diverged;
        rows of trials to come are passed over.
      steps: int (trials,), optimizer steps taken.
    """
    values = np.asarray(values, np.float64)
    # Replicates tell a sampler how noisy their mean is. A quantile has no such spread: it is one number.
    scores = objective.scores(values) if objective.quantile is None else objective.aggregate(values)[:, None]
    scores = np.nan_to_num(scores, nan=np.inf)
    number = np.repeat(np.arange(len(rounds)), rounds)
    return [
        Observation(point, tuple(scores[trial].tolist()), int(steps[trial]), int(number[trial]))
        for trial, point in enumerate(points)
    ]
