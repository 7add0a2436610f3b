"""What pictures of a result show, as numbers; drawing them is ``plot``'s affair."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, did_you_mean
from hpjax.core.format import show

if TYPE_CHECKING:
    from hpjax.results.result import Result


class Curves(NamedTuple):
    """A metric over the steps, a row a lane: those of diverged trials, and from those of the worst trial to the best.

    Attributes:
      trials: int (lanes,), of which trial each is.
      steps, values: (lanes, evaluations), padded with NaN.
    """

    trials: Array
    steps: Array
    values: Array


class Axis(NamedTuple):
    """The value of a metric against one hyperparameter: of the objective's the best over training, else the last.

    Attributes:
      trials: int (points,), the trials shown.
      x: (points,), values of the hyperparameter; the index into ``categories`` where there are any.
      y: (points,), the metric.
      diverged: where trials diverged, on the scale of ``x``.
      categories: the values by name, of a choice; else empty.
      scale: of the domain, as ``Space.scale`` has it.
    """

    trials: Array
    x: Array
    y: Array
    diverged: Array
    categories: tuple[str, ...]
    scale: str


def curves(result: "Result", metric: str) -> Curves:
    """The curves of all lanes, those of trials that do not rank first, those of the best one last."""
    order = [*np.setdiff1d(np.arange(len(result)), result.ranking), *result.ranking[::-1]]
    lanes, evaluations = result.lane_status.size, result.curves("step").shape[-1]
    steps, values = (result.curves(name)[order].reshape(lanes, evaluations) for name in ("step", metric))
    return Curves(np.repeat(order, result.lane_status.shape[1]), steps, values)


def grid(result: "Result", names: Sequence[str]) -> tuple[tuple[list[Any], ...], Array]:
    """The values of these hyperparameters, and the trial of each combination; see ``Result.grid``."""
    for name in names:
        if name not in result.names:
            raise InputError("grid", name, "must be a hyperparameter", did_you_mean(name, result.names))
    if len({*names}) < len(names):
        raise InputError("grid", names, "must differ", "Name each hyperparameter once.")
    axes: list[list[Any]] = []
    place = np.zeros(len(result), int)  # of each trial, in the grid laid out flat
    for name in names:
        if any(name not in hparams for hparams in result.hparams):
            raise InputError("grid", name, "must be a hyperparameter of every trial", "Leave it out.")
        # By how they print: a tuple that was read from a directory is a list, which cannot be looked up.
        texts = [show(hparams[name]) for hparams in result.hparams]
        values = dict(zip(texts, (hparams[name] for hparams in result.hparams), strict=True))
        numbers = all(isinstance(value, int | float) for value in values.values())
        order = {text: i for i, text in enumerate(sorted(values, key=values.__getitem__) if numbers else values)}
        axes.append([values[text] for text in order])
        place = place * len(order) + [order[text] for text in texts]
    shape = [len(values) for values in axes]
    trials = np.full(math.prod(shape), -1)
    trials[place] = np.arange(len(result))
    hidden = np.flatnonzero(trials[place] != np.arange(len(result)))
    if hidden.size:
        allowed = f"do not tell trials {hidden[0]} and {trials[place[hidden[0]]]} apart"
        more = [name for name in varied(result) if name not in names]
        remedy = f"Name more of {', '.join(more)}." if more else "They are of the same hyperparameters."
        raise InputError("grid", names, allowed, remedy)
    if (trials < 0).any():
        missing = np.unravel_index(int(trials.argmin()), shape)
        told = ", ".join(f"{n}={show(values[i])}" for n, values, i in zip(names, axes, missing, strict=True))
        raise InputError("grid", names, f"are no grid: there is no trial with {told}", "Use hpx.Grid().")
    return tuple(axes), trials.reshape(shape)


def axis(result: "Result", name: str, metric: str) -> Axis:
    """The value of ``metric`` against hyperparameter ``name``, over the trials that have it."""
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
    y = reached(result, metric)
    kept = np.flatnonzero(has & ~diverged & np.isfinite(y))
    return Axis(kept, x[kept], y[kept], x[has & diverged], categories, result.scales[name])


class Map(NamedTuple):
    """A metric over two hyperparameters.

    Attributes:
      trials: int (points,), the trials shown.
      x, y: (points,), values of the hyperparameters.
      z: (points,), the metric: of the objective's the best over training, else the last.
      diverged: (trials, 2), where trials diverged.
      scales: of the domains of the two, as ``Space.scale`` has them.
    """

    trials: Array
    x: Array
    y: Array
    z: Array
    diverged: Array
    scales: tuple[str, str]


def map_of(result: "Result", across: str, up: str, metric: str) -> Map:
    """``metric`` over the hyperparameters ``across`` and ``up``, both numbers, over the trials that have them."""
    places = np.array([[_number(hparams.get(name)) for name in (across, up)] for hparams in result.hparams])
    there, diverged, z = np.isfinite(places).all(axis=1), result.statuses == "diverged", reached(result, metric)
    kept = np.flatnonzero(there & ~diverged & np.isfinite(z))
    scales = result.scales[across], result.scales[up]
    return Map(kept, places[kept, 0], places[kept, 1], z[kept], places[there & diverged], scales)


class Rungs(NamedTuple):
    """How a scheduler thinned out the trials.

    Attributes:
      steps: int (rungs,), the steps at which trials were stopped, ascending.
      live: int (rungs + 1,), how many trials trained up to the first of them, between each two, and after the last.
      ended: int (trials,), the step at which each trial ended.
      stopped: bool (trials,), whether it was stopped there.
    """

    steps: Array
    live: Array
    ended: Array
    stopped: Array


def rungs(result: "Result") -> Rungs:
    """At which steps trials were stopped, and how many went on."""
    ended, stopped = result.lane_step.max(axis=1), result.statuses == "stopped"
    steps = np.unique(ended[stopped])
    lost = result.statuses == "diverged"
    begin = np.concatenate([[0], steps])
    # One that diverged was live as long as it trained; one that ends at a rung is not live after it.
    live = np.array([np.sum((ended > step) | (~stopped & ~lost)) for step in begin])
    return Rungs(steps, live, ended, stopped)


def ancestry(result: "Result", trial: int) -> list[tuple[int, int, int]]:
    """Which trials trained the weights of one: (id, from step, to step), oldest first."""
    descent = result[trial].descent
    ends = [step for _, step, _ in descent[1:]] + [int(result.lane_step[trial].max())]
    return [(each, step, end) for (each, step, _), end in zip(descent, ends, strict=True)]


def reached(result: "Result", metric: str) -> Array:
    """What each trial reached, the mean over its replicates, (trials,): of the objective's metric the best over
    training, of others the last.
    """
    if metric != result.objective.metric or result.curves(metric).shape[-1] == 0:
        last: Array = result.last(metric).mean(axis=1)
        return last
    scores = result.objective.scores(result.curves(metric)).mean(axis=1)
    best: Array = np.where(np.isnan(scores), np.inf, scores).min(axis=-1)
    values: Array = np.where(np.isfinite(best), result.objective.value(best), np.nan)
    return values


def numbers(result: "Result") -> list[str]:
    """The hyperparameters of ``varied`` that are numbers on a scale."""
    return [name for name in varied(result) if result.scales[name] != "category"]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


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
