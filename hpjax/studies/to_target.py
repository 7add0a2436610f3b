"""How uncertain the fewest steps to a target are, and which hyperparameters are at an edge of their domain."""

from collections.abc import Sequence

import numpy as np

from hpjax.core.arrays import Floats
from hpjax.results.result import Result

# The share of a domain, on its own scale, that counts as an edge.
EDGE = 0.05


def bootstrap_of_minimum(values: Sequence[float] | Floats, level: float = 0.95) -> tuple[float, float]:
    """Returns the bootstrap interval of the minimum of values, computed exactly, without drawing.

    The minimum of ``n`` draws with replacement is above number ``j`` of the sorted values with probability (1 − j/n)ⁿ.

    B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993.

    Args:
      values: (n,), at least one; they may be infinite.
      level: the probability of the interval.

    Returns:
      The low and the high end, each one of the values.
    """
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    at_most = 1 - (1 - np.arange(1, n + 1) / n) ** n
    low, high = ((1 - level) / 2, (1 + level) / 2)
    return float(ordered[np.argmax(at_most >= low)]), float(ordered[np.argmax(at_most >= high)])


def edges_of(result: Result, trial: int, without: str) -> dict[str, str]:
    """Returns the hyperparameters of a trial that lie within a twentieth of their domain from one of its ends.

    Args:
      result: a result.
      trial: an id.
      without: a hyperparameter to leave out, the one that a study varies.

    Returns:
      ``"lowest"`` or ``"highest"`` for each.
    """
    found = {}
    for name, within in result.ranges(trial).items():
        if name == without:
            continue
        margin, place = 0.0 if within.scale == "category" else EDGE, within.place(float(result.hparams[trial][name]))
        if not margin < place < 1 - margin:
            found[name] = "lowest" if place < 0.5 else "highest"
    return found
