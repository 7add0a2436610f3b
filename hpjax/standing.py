"""Standing: what every trial's objective was at each evaluation, and which are out of the race."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hpjax.objective import Objective
from hpjax.schedulers import Race
from hpjax.store import Change


class Standing:
    """The scores of trials that run together.

    Args:
      objective: what decides.
      trials: how many there are.
      replicates: lanes a trial.
    """

    def __init__(self, objective: Objective, trials: int, replicates: int) -> None:
        self._objective = objective
        self._values = np.full((trials, replicates), np.nan)
        self._stopped = np.zeros(trials, bool)
        self._curves: dict[int, tuple[float, ...]] = dict.fromkeys(range(trials), ())

    def update(self, trials: Any, replicates: Any, values: Mapping[str, Any], changes: Iterable[Change]) -> None:
        """Takes in what an evaluation measured, and which lanes diverged or were stopped.

        Args:
          trials, replicates: of the healthy lanes that were measured.
          values: name to what was measured of them; empty where nothing was.
          changes: lanes whose status changed.
        """
        lost = set()
        for change in changes:
            if change.status == "diverged":
                self._values[change.trial, change.replicate] = np.nan
                lost.add(change.trial)
            elif change.status == "stopped":
                self._stopped[change.trial] = True
        if values:
            self._values[trials, replicates] = values[self._objective.metric]
            scores = self.scores()
            for trial in sorted(lost.union(np.unique(trials).tolist())):
                # A trial of which a replicate diverged can win no more: bad news, not missing news.
                score = float(scores[trial]) if np.isfinite(scores[trial]) else np.inf
                self._curves[trial] = (*self._curves[trial], score)

    def scores(self) -> Any:
        """(trials,), lower is better; NaN where a replicate diverged or was not evaluated."""
        return self._objective.scores(self._values).mean(axis=1)

    def race(self, step: int, budget: int, live: Iterable[int]) -> Race:
        """What a scheduler sees."""
        return Race(step, budget, tuple(sorted(live)), dict(self._curves))

    def best(self) -> tuple[int, float] | None:
        """Trial id and objective of the best trial so far that was not stopped, or None."""
        scores = np.where(self._stopped, np.nan, self.scores())
        if not np.isfinite(scores).any():
            return None
        trial = int(np.nanargmin(scores))
        return trial, float(self._values[trial].mean())
