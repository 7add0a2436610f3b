"""A sweep as the objective of another search, such as a study of Optuna that asks for many points at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hpjax.core.space import Point
from hpjax.samplers import Manual
from hpjax.sweep.sweep import Sweep


def as_objective(sweep: Sweep) -> Callable[[Sequence[Point]], list[float]]:
    """Returns a function that trains a list of points as one program, for search loops that ask for many at a time.

    A call with as many points, and the same static hyperparameters, as an earlier one compiles nothing.

    Args:
      sweep: the sweep to train with; its sampler, trials, rounds and shard are not used.

    Returns:
      ``objective(points) -> values``, one float a point: the objective's metric, aggregated over replicates; infinite,
      with the sign of a bad value, where a replicate diverged or failed.

    Raises:
      InputError, ProgramError: when the function is called, where the sweep cannot run at these points.

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
