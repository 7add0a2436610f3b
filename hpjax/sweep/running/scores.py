"""Scores: what every trial's objective was at each evaluation, and which trials are out of the race. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array, Bools, Floats
from hpjax.core.objective import Objective
from hpjax.core.space import Point
from hpjax.results.store.rows import Change
from hpjax.samplers import Observation
from hpjax.schedulers import Race


class Scores(NamedTuple):
    """The scores of all trials of a sweep.

    Attributes:
      values: float64 (trials, replicates), the objective's metric at each lane's last evaluation; NaN where the lane
        diverged or was not evaluated.
      steps: int64 (trials,), optimizer steps taken by then.
      stopped: bool (trials,), whether a scheduler stopped the trial.
      curves: float64 (trials, evaluations), the score of each trial at each of its evaluations, lower is better;
        infinite once a replicate diverged, NaN after its last one. None where no scheduler compares them.
    """

    values: Floats
    steps: Array
    stopped: Bools
    curves: Floats | None

    @classmethod
    def none(cls, trials: int, replicates: int, racing: bool) -> "Scores":
        """Returns those of trials that are not evaluated yet; ``racing``: whether a scheduler will compare them."""
        curves = np.full((trials, 0), np.nan) if racing else None
        return cls(np.full((trials, replicates), np.nan), np.zeros(trials, np.int64), np.zeros(trials, bool), curves)

    def with_changes(self, changes: Iterable[Change]) -> "Scores":
        """Returns those after some lanes diverged or were stopped."""
        values, stopped = self.values.copy(), self.stopped.copy()
        for change in changes:
            if change.status == "diverged":
                values[change.trial, change.replicate] = np.nan
            elif change.status == "stopped":
                stopped[change.trial] = True
        return self._replace(values=values, stopped=stopped)

    def with_evaluation(
        self,
        objective: Objective,
        lanes: tuple[Any, Any],
        steps: Any,
        metrics: Mapping[str, Any],
        evaluated: Collection[int],
    ) -> "Scores":
        """Returns those after an evaluation, and after the changes that came with it.

        Args:
          objective: what trials are scored by.
          lanes: trial ids and replicates of the healthy lanes, each int (lanes,).
          steps: optimizer steps that these took, int (lanes,).
          metrics: name to what was measured of them, float (lanes,).
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
            # A trial of which a replicate diverged can win no more: bad news, not missing news.
            curves[mine, at] = np.where(np.isfinite(scores), scores, np.inf)
        return self._replace(values=values, steps=taken, curves=curves)

    def without(self, trials: Collection[int]) -> "Scores":
        """Returns those with all forgotten that was measured of some trials."""
        forgotten = np.isin(np.arange(len(self.steps)), list(trials))
        return Scores(
            np.where(forgotten[:, None], np.nan, self.values),
            np.where(forgotten, 0, self.steps),
            self.stopped & ~forgotten,
            None if self.curves is None else np.where(forgotten[:, None], np.nan, self.curves),
        )

    def race(self, step: int, budget: int, live: Iterable[int], trials: Iterable[int]) -> Race:
        """Returns what a scheduler sees of the trials that started together, ``live`` of which still run."""
        assert self.curves is not None
        curves = {trial: tuple(row[~np.isnan(row)].tolist()) for trial in trials for row in [self.curves[trial]]}
        return Race(step, budget, tuple(sorted(live)), curves)

    def best(self, objective: Objective) -> tuple[int, float] | None:
        """Returns trial id and objective of the best trial so far that was not stopped, or None."""
        scores = np.where(self.stopped, np.nan, objective.aggregate(self.values))
        if not np.isfinite(scores).any():
            return None
        trial = int(np.nanargmin(scores))
        return trial, float(objective.value(scores[trial]))


def observed(
    objective: Objective, rounds: Sequence[int], points: Sequence[Point], values: Any, steps: Any
) -> list[Observation]:
    """Returns what a sampler sees of the first trials.

    Args:
      objective: what trials are scored by.
      rounds: how many trials each round has.
      points: per trial, its hyperparameters.
      values: (trials, replicates), the objective's metric at each lane's last evaluation, NaN where it diverged.
      steps: (trials,), optimizer steps taken.
    """
    values = np.asarray(values, np.float64)
    # A quantile is one number of which the noise is not known.
    scores = objective.scores(values) if objective.quantile is None else objective.aggregate(values)[:, None]
    scores = np.nan_to_num(scores, nan=np.inf)
    number = np.repeat(np.arange(len(rounds)), rounds)
    return [
        Observation(point, tuple(scores[trial].tolist()), int(steps[trial]), int(number[trial]))
        for trial, point in enumerate(points)
    ]
