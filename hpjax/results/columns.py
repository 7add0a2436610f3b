"""Hyperparameters of many trials side by side: as a column, as a grid, and which of them vary."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, did_you_mean
from hpjax.core.format import show

Rows = Sequence[Mapping[str, Any]]


def column(name: str, hparams: Rows) -> Array:
    """Returns one hyperparameter of all trials, (trials,).

    Args:
      name: the name of the hyperparameter.
      hparams: per trial, name to value.

    Returns:
      int64 where every trial has an integer, bool where every trial has a bool; float64 where all that have it have a
      number, with NaN for the others; else objects, with None for the others.
    """
    present = [each[name] for each in hparams if name in each]
    if present and len(present) == len(hparams) and all(isinstance(v, bool) for v in present):
        return np.array(present, np.bool_)
    if present and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        if len(present) == len(hparams) and all(isinstance(v, int) for v in present):
            return np.array(present, np.int64)
        return np.array([each.get(name, np.nan) for each in hparams], np.float64)
    column = np.empty(len(hparams), object)
    column[:] = [each.get(name) for each in hparams]
    return column


def labels_of(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Returns a label for each name, the name itself unless it is taken: then with ``_0`` behind it."""
    labels: dict[str, str] = {}
    for name in names:
        label = name
        while label in {*taken, *labels.values()}:
            label += "_0"
        labels[name] = label
    return labels


def varied(names: Sequence[str], hparams: Rows) -> list[str]:
    """Returns those of the names that take more than one value, in their order."""
    values = {name: {_key(each[name]) for each in hparams if name in each} for name in names}
    return [name for name in names if len(values[name]) > 1]


def _key(value: Any) -> Any:
    """Returns what tells a value from all others: not its text, since 1 and "1" print alike; nor is True 1."""
    return isinstance(value, bool), value


def grid(names: Sequence[str], known: Sequence[str], hparams: Rows) -> tuple[tuple[list[Any], ...], Array]:
    """Returns the values along each axis of a grid, and the trial at each of its points; see ``TrialTable.grid``.

    Args:
      names: the hyperparameters that are the axes.
      known: all hyperparameters.
      hparams: per trial, name to value.

    Raises:
      InputError: the names do not tell all trials apart, or a point of the grid has no trial.
    """
    for name in names:
        if name not in known:
            raise InputError("grid", name, "must be a hyperparameter", did_you_mean(name, known))
    if len({*names}) < len(names):
        raise InputError("grid", names, "must differ", "Name each hyperparameter once.")
    axes: list[list[Any]] = []
    place = np.zeros(len(hparams), int)  # the position of each trial in the flattened grid
    for name in names:
        if any(name not in each for each in hparams):
            remedy = f"Leave {name!r} out of grid(...): some trials are of an alternative without it."
            raise InputError("grid", name, "must be a hyperparameter of every trial", remedy)
        keys = [_key(each[name]) for each in hparams]
        values = dict(zip(keys, (each[name] for each in hparams), strict=True))
        numbers = all(isinstance(value, int | float) for value in values.values())
        order = {key: i for i, key in enumerate(sorted(values, key=values.__getitem__) if numbers else values)}
        axes.append([values[key] for key in order])
        place = place * len(order) + [order[key] for key in keys]
    trials = _trial_at(place, [len(values) for values in axes], names, varied(known, hparams))
    if (trials < 0).any():
        missing = np.unravel_index(int(trials.argmin()), trials.shape)
        point = ", ".join(f"{n}={show(values[i])}" for n, values, i in zip(names, axes, missing, strict=True))
        remedy = "Train the whole grid: hpx.Sweep(program, space, sampler=hpx.Grid())."
        raise InputError("grid", names, f"are no grid: there is no trial with {point}", remedy)
    return tuple(axes), trials


def _trial_at(place: Array, shape: Sequence[int], names: Sequence[str], varying: Sequence[str]) -> Array:
    """Returns the trial at each point of a grid, −1 where there is none: int, of that shape.

    Args:
      place: int (trials,), the position of each trial in the flattened grid.
      shape: the shape of the grid.
      names: the hyperparameters along the axes.
      varying: all hyperparameters that vary.
    """
    trials = np.full(math.prod(shape), -1)
    trials[place] = np.arange(len(place))
    hidden = np.flatnonzero(trials[place] != np.arange(len(place)))
    if hidden.size:
        allowed = f"do not tell trials {hidden[0]} and {trials[place[hidden[0]]]} apart"
        more = [name for name in varying if name not in names]
        remedy = f"Name more of {', '.join(more)}." if more else "Their hyperparameters are the same: drop one of them."
        raise InputError("grid", names, allowed, remedy)
    return trials.reshape(shape)
