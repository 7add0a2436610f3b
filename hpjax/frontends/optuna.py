"""Adapters: a sweep as what other tools call."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hpjax.core.space import Point
from hpjax.samplers import Manual
from hpjax.sweep.sweep import Sweep


def as_objective(sweep: Sweep) -> Callable[[Sequence[Point]], list[float]]:
    """A function that trains a pack of points as one program, for loops that ask for many and tell many.

    Equally many points of the same static hyperparameters compile nothing after the first time.

    Args:
      sweep: what trains; its sampler, trials, rounds and shard do not matter.

    Returns:
      ``objective(points) -> values``: of each point the objective's metric, over all replicates; infinite, on the bad
      side, where one diverged.

    Example:
      >>> objective = as_objective(hpx.Sweep(program, space, trials=1))
      >>> len(objective([space.from_unit([0.5] * len(space.dimensions))]))
      1
    """

    def objective(points: Sequence[Point]) -> list[float]:
        result = replace(sweep, sampler=Manual(points), trials=None, rounds=1, shard=None).run(progress=False)
        scores = sweep.objective.aggregate(result.last(sweep.objective.metric))
        found: list[float] = sweep.objective.value(np.nan_to_num(scores, nan=np.inf)).tolist()
        return found

    return objective
