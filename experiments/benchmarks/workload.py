"""What is trained: one model on one set of data, with hyperparameters of every trial's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """What all competitors train.

    Attributes:
      model: gives the Flax module.
      optimizer: of ``h``, name to value, an Optax optimizer.
      data: gives ``x``, ``y``, ``valid_x`` and ``valid_y``.
      batch, steps: examples a step, and steps a trial.
      ranges: hyperparameter to its least and greatest value.
      logarithmic: those that are drawn on a logarithmic scale.
    """

    model: Callable[[], Any]
    optimizer: Callable[[Mapping[str, Any]], Any]
    data: Callable[[], Arrays]
    batch: int
    steps: int
    ranges: Mapping[str, tuple[float, float]]
    logarithmic: tuple[str, ...]

    def arrays(self, trials: int) -> Arrays:
        """Returns the data, and as ``h_NAME`` a float32 (trials,) for every hyperparameter."""
        rng, drawn = np.random.default_rng(1), {}
        for name, (low, high) in self.ranges.items():
            u = rng.uniform(size=trials)
            drawn[f"h_{name}"] = low * (high / low) ** u if name in self.logarithmic else low + (high - low) * u
        return self.data() | {name: values.astype(np.float32) for name, values in drawn.items()}


def points(arrays: Arrays) -> Arrays:
    """Returns the hyperparameters among the arrays, by their names."""
    return {name.removeprefix("h_"): values for name, values in arrays.items() if name.startswith("h_")}


def split(x: np.ndarray, y: np.ndarray, valid: int) -> Arrays:
    """Splits examples into those for training and the last ``valid`` ones, for validation."""
    x, y = x.astype(np.int32 if x.dtype.kind == "i" else np.float32), y.astype(np.int32)
    return {"x": x[:-valid], "y": y[:-valid], "valid_x": x[-valid:], "valid_y": y[-valid:]}
