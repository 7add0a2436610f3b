"""Standing: what every trial's objective was at each evaluation, and which are out of the race."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hpjax.core.objective import Objective
from hpjax.core.space import Point
from hpjax.results.store.checkpoints import Cut
from hpjax.results.store.rows import Change, Status
from hpjax.samplers import Observation
from hpjax.schedulers import Race


class Scores:
    """The scores of all trials of a sweep.

    Args:
      objective: what decides.
      rounds: how many trials each round has.
      replicates: lanes a trial.
    """

    def __init__(self, objective: Objective, rounds: Sequence[int], replicates: int) -> None:
        self._objective, self._rounds, trials = objective, rounds, sum(rounds)
        self._values = np.full((trials, replicates), np.nan)
        self._steps = np.zeros(trials, np.int64)
        self._stopped = np.zeros(trials, bool)
        self._curves: list[list[float]] = [[] for _ in range(trials)]

    def changed(self, changes: Iterable[Change]) -> None:
        """Takes in which lanes diverged or were stopped."""
        for change in changes:
            if change.status == Status.DIVERGED:
                self._values[change.trial, change.replicate] = np.nan
            elif change.status == Status.STOPPED:
                self._stopped[change.trial] = True

    def measured(
        self, lanes: tuple[Any, Any], steps: Any, values: Mapping[str, Any], evaluated: Collection[int]
    ) -> None:
        """Takes in what an evaluation measured, after the changes that came with it.

        Args:
          lanes: trial ids and replicates of the healthy lanes, each (lanes,).
          steps: optimizer steps that these took, (lanes,).
          values: name to what was measured of them, (lanes,).
          evaluated: the trials of which a lane was evaluated, healthy or not.
        """
        self._values[lanes] = values[self._objective.metric]
        self._steps[lanes[0]] = steps
        scores = self.scores()
        for trial in evaluated:
            # A trial of which a replicate diverged can win no more: bad news, not missing news.
            self._curves[trial].append(float(scores[trial]) if np.isfinite(scores[trial]) else np.inf)

    def recall(self, values: Any, steps: Any, stopped: Any) -> None:
        """Takes in what the first trials ended with: (trials, replicates), (trials,) and (trials,)."""
        known = len(values)
        self._values[:known], self._steps[:known], self._stopped[:known] = values, steps, stopped

    def forget(self, trials: Collection[int]) -> None:
        """Takes back all that was measured of some trials."""
        mine = list(trials)
        self._values[mine], self._steps[mine], self._stopped[mine] = np.nan, 0, False
        for trial in mine:
            self._curves[trial] = []

    def cut(self) -> Cut:
        """What it holds."""
        longest = max(map(len, self._curves), default=0)
        curves = np.full((len(self._curves), longest), np.nan)
        for trial, curve in enumerate(self._curves):
            curves[trial, : len(curve)] = curve
        lengths = np.array([len(curve) for curve in self._curves], np.int32)
        arrays = {"values": self._values, "steps": self._steps, "stopped": self._stopped}
        return Cut({}, {name: a.copy() for name, a in arrays.items()} | {"curves": curves, "lengths": lengths})

    def resume(self, cut: Cut) -> None:
        """Takes in again what it held at a cut."""
        arrays = cut.arrays
        self._values, self._steps, self._stopped = (arrays[name] for name in ("values", "steps", "stopped"))
        self._curves = [
            row[:length].tolist() for row, length in zip(arrays["curves"], arrays["lengths"].tolist(), strict=True)
        ]

    def scores(self) -> Any:
        """(trials,), lower is better; NaN where a replicate diverged or was not evaluated."""
        return self._objective.aggregate(self._values)

    def race(self, step: int, budget: int, live: Iterable[int], trials: Iterable[int]) -> Race:
        """What a scheduler sees of the trials that started together."""
        return Race(step, budget, tuple(sorted(live)), {trial: tuple(self._curves[trial]) for trial in trials})

    def history(self, points: Sequence[Point]) -> list[Observation]:
        """What a sampler sees of the first trials, which had these points."""
        return observed(self._objective, self._rounds, points, self._values, self._steps)

    def best(self) -> tuple[int, float] | None:
        """Trial id and objective of the best trial so far that was not stopped, or None."""
        scores = np.where(self._stopped, np.nan, self.scores())
        if not np.isfinite(scores).any():
            return None
        trial = int(np.nanargmin(scores))
        return trial, float(self._objective.value(scores[trial]))


def observed(
    objective: Objective, rounds: Sequence[int], points: Sequence[Point], values: Any, steps: Any
) -> list[Observation]:
    """Observations of trials.

    Args:
      objective: what decides.
      rounds: how many trials each round has.
      points: of the first trials.
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
