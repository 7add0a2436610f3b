"""What pictures of a result show, as numbers; drawing them is ``plot``'s affair."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpjax.errors import InputError
from hpjax.text import show

if TYPE_CHECKING:
    from hpjax.result import Result

Array = NDArray[Any]


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
      trials: int (points,), the trials shown.
      x: (points,), values of the hyperparameter; the index into ``categories`` where there are any.
      y: (points,), the metric.
      diverged: where trials diverged, on the scale of ``x``.
      categories: the values by name, of a choice; else empty.
      logarithmic: whether the domain is logarithmic.
    """

    trials: Array
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
    has = np.array([name in hparams for hparams in result.hparams])
    column: list[Any] = [hparams.get(name) for hparams in result.hparams]
    categories: tuple[str, ...] = ()
    if result.scales[name] == "category":
        present = [value for value, there in zip(column, has, strict=True) if there]
        numbers = all(isinstance(value, int | float) for value in present)
        distinct = sorted(set(present)) if numbers else list(dict.fromkeys(present))
        categories = tuple(map(show, distinct))
        column = [distinct.index(value) if there else np.nan for value, there in zip(column, has, strict=True)]
    x = np.array(column, float)
    diverged = result.statuses == "diverged"
    y = result.last(metric).mean(axis=1)
    kept = np.flatnonzero(has & ~diverged & np.isfinite(y))
    return Axis(kept, x[kept], y[kept], x[has & diverged], categories, result.scales[name] == "log")


def varied(result: "Result") -> list[str]:
    """The hyperparameters that take more than one value, in the order of the space."""
    values = {name: {show(hparams[name]) for hparams in result.hparams if name in hparams} for name in result.names}
    return [name for name in result.names if len(values[name]) > 1]


def limits(values: Array) -> tuple[float, float]:
    """The range that shows what matters: from the best to the 90th percentile of the rest, with a margin."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(np.quantile(finite, 0.9))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def winners_curse(result: "Result", draws: int = 10_000) -> float:
    """How much better the best trial looks than it is, since it was chosen for looking best: its expected optimism.

    The noise of a trial's mean comes from its replicates, without what a replicate does to all trials alike, which
    favours none. True values are estimated by shrinking the better half of the trials towards their mean, as far as
    noise explains their spread; then the choice is made again and again on such values with fresh noise.

    B. Efron, "Tweedie's Formula and Selection Bias", JASA 2011, of which this is the normal case.

    Args:
      result: of a sweep with two replicates or more (seeds or folds), of which three complete trials or more.
      draws: how often the choice is simulated.

    Returns:
      In units of the objective, 0 or more: what to take off (or add to) the best trial's value.

    Raises:
      InputError: there are too few replicates or trials.

    Example:
      >>> sweep = hpx.Sweep(program, space, trials=8, replicates=3)
      >>> 0 <= winners_curse(sweep.run(progress=False)) < 1
      True
    """
    complete = (result.lane_status == "complete").all(axis=1)
    scores = result.objective.scores(result.last(result.objective.metric))[complete]
    scores = scores[np.isfinite(scores).all(axis=1)]
    trials, replicates = scores.shape
    if replicates < 2:
        raise InputError("replicates", replicates, "must be 2 or more, to know the noise", "Use replicates= or folds=.")
    if trials < 3:
        raise InputError("trials", trials, "must be 3 or more that are complete", "Train more.")
    means = scores.mean(axis=1)
    left = scores - means[:, None] - scores.mean(axis=0) + means.mean()
    noise = float((left**2).sum() / ((trials - 1) * (replicates - 1)) / replicates)
    truth = np.sort(means)
    half = truth[: max(trials // 2, 2)]
    spread = max(float(half.var(ddof=1)) - noise, 0.0)
    share = spread / (spread + noise) if spread + noise > 0 else 1.0
    truth[: len(half)] = half.mean() + share * (half - half.mean())
    seen = truth + math.sqrt(noise) * np.random.default_rng(0).standard_normal((draws, trials))
    chosen = seen.argmin(axis=1)
    return max(float((truth[chosen] - seen[np.arange(draws), chosen]).mean()), 0.0)
