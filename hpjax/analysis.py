"""What pictures of a result show, as numbers; drawing them is ``plot``'s affair."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpjax.space import show

if TYPE_CHECKING:
    from hpjax.result import Result

Array = NDArray[Any]

# So few distinct values stand side by side as categories; so wide a range is shown on a logarithmic scale.
FEW, WIDE = 6, 30


class Curves(NamedTuple):
    """A metric over the steps, a row a trial, from the worst to the best.

    Attributes:
      steps: (trials, evaluations), padded with NaN.
      values: (trials, evaluations), averaged over replicates, padded with NaN.
      best: the last row's trial id, or None where no trial ranks.
    """

    steps: Array
    values: Array
    best: int | None


class Axis(NamedTuple):
    """The last value of a metric against one hyperparameter.

    Attributes:
      x: (trials,), values of the hyperparameter; the index into ``categories`` where there are any.
      y: (trials,), the metric.
      diverged: where trials diverged, on the scale of ``x``.
      categories: the values by name, where there are few of them or they are no numbers; else empty.
      logarithmic: whether ``x`` spans so much that a logarithmic scale shows it better.
    """

    x: Array
    y: Array
    diverged: Array
    categories: tuple[str, ...]
    logarithmic: bool


def curves(result: "Result", metric: str) -> Curves:
    """The curves of all trials that rank, the best one last."""
    order = result.ranking[::-1]
    steps, values = (result.curves(name)[order].mean(axis=1) for name in ("step", metric))
    return Curves(steps, values, order[-1] if order else None)


def axis(result: "Result", name: str, metric: str) -> Axis:
    """The last value of ``metric`` against hyperparameter ``name``, over the trials that have it."""
    column = result.table()[name].tolist()
    has = np.array([value is not None and value == value for value in column])
    present = [value for value, there in zip(column, has, strict=True) if there]
    numbers = all(isinstance(value, int | float) for value in present)
    distinct = sorted(set(present)) if numbers else list(dict.fromkeys(present))
    categories: tuple[str, ...] = ()
    if not numbers or len(distinct) <= FEW:
        categories = tuple(map(show, distinct))
        column = [distinct.index(value) if there else np.nan for value, there in zip(column, has, strict=True)]
    x = np.array(column, float)
    diverged = result.statuses == "diverged"
    y = result.last(metric).mean(axis=1)
    kept = has & ~diverged & np.isfinite(y)
    wide = not categories and min(distinct) > 0 and max(distinct) / min(distinct) >= WIDE
    return Axis(x[kept], y[kept], x[has & diverged], categories, wide)


def varied(result: "Result") -> list[str]:
    """The hyperparameters that take more than one value, in the order of the space."""
    table = result.table()
    return [name for name in result.names if len({show(v) for v in table[name] if v is not None and v == v}) > 1]


def limits(values: Array) -> tuple[float, float]:
    """The range that shows what matters: from the best to the 90th percentile of the rest, with a margin."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(np.quantile(finite, 0.9))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin
