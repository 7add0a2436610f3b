"""The cross-validation of ``SweepCV``: splits of scikit-learn as the folds of a sweep, and what they give."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.core.arrays import Array, Floats, Ints, ceil_div
from hpjax.core.errors import InputError, RunError, check_int
from hpjax.core.program import Data
from hpjax.data.batches import pool
from hpjax.data.examples import AnyExamples, examples_in
from hpjax.results.result import Result
from hpjax.sweep.sweep import Sweep

Splits = list[tuple[Ints, Ints]]


class CrossValidation(NamedTuple):
    """What a cross-validation gave.

    Attributes:
      results: the result of the sweep; where each fold has one of its own, those of all folds.
      points: the hyperparameters of each trial.
      values: the metric of the objective, float (trials, replicates, folds).
      ranking: the ids of the trials from best to worst, without those that diverged.
    """

    results: tuple[Result, ...]
    points: list[dict[str, Any]]
    values: Floats
    ranking: list[int]


def splits_of(cv: Any, y: Array, groups: Any, classifies: bool) -> Splits:
    """Returns the indices of the training and test examples of each fold, as ``GridSearchCV`` has them.

    Args:
      cv: a number of folds, None for 5, a splitter of scikit-learn, or an iterable of (train, test) indices.
      y: the labels or targets, (examples, ...).
      groups: the group of each example, (examples,), for splitters that read it; else None.
      classifies: whether a number of folds stands for stratified ones.

    Raises:
      InputError: ``cv`` is none of these, or cannot split the examples.
    """
    from sklearn.model_selection import check_cv

    count = len(y)
    if isinstance(cv, int | float | np.number):
        cv = check_int("SweepCV.cv", cv, least=2, most=count)
    remedy = "Write cv=5, cv=KFold(5), or cv=[(train, test), ...] with indices of examples."
    try:
        splitter = check_cv(cv, y, classifier=classifies)
        splits = [(_indices(a, count), _indices(b, count)) for a, b in splitter.split(np.zeros((count, 1)), y, groups)]
    except (ValueError, TypeError) as error:
        raise InputError("SweepCV.cv", cv, f"cannot split these examples: {error}", remedy) from None
    if not splits or any(len(part) == 0 for split in splits for part in split):
        raise InputError("SweepCV.cv", cv, "must give folds with training and test examples", remedy)
    return splits


def _indices(part: Any, count: int) -> Ints:
    """Returns some of ``count`` examples as their indices, int (some,); they may be given by a mask."""
    array = np.asarray(part)
    if array.ndim != 1 or array.dtype.kind not in "iub" or (array.dtype == bool and len(array) != count):
        raise ValueError(f"a fold must be indices of {count} examples")
    try:
        found: Ints = np.arange(count)[array]
    except IndexError as error:
        raise ValueError(str(error)) from None
    return found


def cross_validated(
    every: AnyExamples, splits: Splits, sweep_of: Callable[[Data, int | None], Sweep], adaptive: bool, cv: Any
) -> CrossValidation:
    """Trains all trials on all folds.

    Where each example is in the test part of one fold, and folds differ by one example at most, all are lanes of the
    same programs. Else each fold is a sweep of its own, of which a warning tells.

    Args:
      every: all examples.
      splits: the folds.
      sweep_of: makes a sweep of data and a number of folds, None for the data's own splits.
      adaptive: whether the sweep decides by results, which sweeps apart could not agree on.
      cv: what the user gave, for errors.

    Raises:
      InputError: folds need sweeps of their own, and ``adaptive`` is true.
      RunError: every trial diverged on a fold.
    """
    order = blocks_of(splits, examples_in(every))
    if order is not None:
        sweep = sweep_of(_arranged(every, order, len(splits)), len(splits))
        places = np.argsort(_by_size(splits))
        return _judged([sweep], lambda values: values.reshape(len(values), -1, len(splits))[..., places])
    if adaptive:
        allowed = (
            "gives folds that overlap or differ in size, which train apart, so that none sees the results of others"
        )
        remedy = "Leave rounds and scheduler out, or write cv=StratifiedKFold(5)."
        raise InputError("SweepCV.cv", cv, allowed, remedy)
    which = cv if hasattr(cv, "split") else "the given indices"
    told = f"the folds of {which} overlap or differ in size: each is compiled and trained apart"
    warnings.warn(told, UserWarning, stacklevel=3)
    return _judged([sweep_of(_apart(every, *split), None) for split in splits], lambda values: values[..., None])


def blocks_of(splits: Splits, count: int) -> Ints | None:
    """Returns an order of ``count`` examples in which the folds of a sweep are these, int (count,); None without one.

    In this order the test examples of the folds follow each other, the largest folds first.
    """
    tests = [splits[fold][1] for fold in _by_size(splits)]
    order = np.concatenate(tests)
    sizes = [len(test) for test in tests]
    if len(splits) < 2 or sizes[0] - sizes[-1] > 1 or not np.array_equal(np.sort(order), np.arange(count)):
        return None
    complements = all(np.array_equal(np.sort(train), np.setdiff1d(order, test)) for train, test in splits)
    return order if complements else None


def _by_size(splits: Splits) -> list[int]:
    """Returns the numbers of the folds, the largest ones first, as a sweep has them."""
    return sorted(range(len(splits)), key=lambda fold: -len(splits[fold][1]))


def _arranged(every: AnyExamples, order: Ints, folds: int) -> Data:
    """Returns data whose pool has all examples in an order."""
    count = len(order)
    kept = count - ceil_div(count, folds)
    # The pool is shuffled: of data that count the examples it is the shuffle itself.
    shuffle = pool(Data(np.arange(kept), np.arange(kept, count)))
    before = np.empty(count, int)
    before[shuffle] = order
    return _apart(every, before[:kept], before[kept:])


def _apart(every: AnyExamples, train: Ints, valid: Ints) -> Data:
    """Returns data of some examples and some others, given by their indices."""
    first, second = (jax.tree.map(lambda a, part=part: a[part], every) for part in (train, valid))
    return Data(first, second, name="folds")


def _judged(sweeps: list[Sweep], by_fold: Callable[[Array], Array]) -> CrossValidation:
    """Runs sweeps, and returns what their results give together.

    Args:
      sweeps: sweeps of the same trials.
      by_fold: maps what a result has of each lane, (trials, lanes), to (trials, replicates, folds).
    """
    results = tuple(sweep.run(progress=False) for sweep in sweeps)
    objective = sweeps[0].objective

    def together(of: Callable[[Result], Array]) -> Iterator[Array]:
        return (by_fold(of(result)) for result in results)

    values, status, step = (
        np.concatenate(list(together(of)), axis=-1)
        for of in (lambda r: r.last(objective.metric), lambda r: r.lane_status, lambda r: r.lane_step)
    )
    flat = [array.reshape(len(array), -1) for array in (values, status, step)]
    ranking = objective.rank(*flat)
    if not ranking:
        raise RunError("there is no best trial: each diverged on a fold. Lower learning rates, or clip gradients.")
    return CrossValidation(results, sweeps[0].models(results[0]).points(), values, ranking)
