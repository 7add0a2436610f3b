"""Trials as points: a metric against one hyperparameter, over two, and along the axes of all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.format import show
from hpjax.results.plot_data.ends import ended_earlier, reached
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable


class Axis(NamedTuple):
    """A metric against one hyperparameter, at the end of training as tables have it.

    Attributes:
      trials: int (points,), the trials shown.
      x: (points,), values of the hyperparameter; of a choice the index into ``categories``.
      y: (points,), the metric.
      diverged: (diverged trials,), their values of the hyperparameter, on the scale of ``x``.
      categories: the options of a choice, as text; else empty.
      scale: the scale of the domain, as ``Space.scale`` has it.
    """

    trials: Array
    x: Array
    y: Array
    diverged: Array
    categories: tuple[str, ...]
    scale: str


def axis(table: TrialTable, name: str, metric: str) -> Axis:
    """Returns a metric against one hyperparameter, over the trials that have it.

    Args:
      table: the trials.
      name: the name of the hyperparameter.
      metric: the name of the metric.
    """
    how = coding(table, name, table.hparams)
    x = how.column(name, table.hparams)
    has = np.isfinite(x)
    diverged = table.statuses == Status.DIVERGED
    y = reached(table, metric)
    kept = np.flatnonzero(has & ~diverged & np.isfinite(y))
    return Axis(kept, x[kept], y[kept], x[has & diverged], how.categories, table.scales[name])


def coding(table: TrialTable, name: str, rows: Sequence[Mapping[str, Any]]) -> "Coding":
    """Returns how values of a hyperparameter are numbers on an axis; ``rows`` hold all values, name to value."""
    if table.scales[name] != "category":
        return Coding((), lambda value: float(value))
    present = [row[name] for row in rows if name in row]
    numeric = all(isinstance(value, int | float) for value in present)
    distinct = sorted(set(present)) if numeric else list(dict.fromkeys(present))
    return Coding(tuple(map(show, distinct)), lambda value: float(distinct.index(value)))


class Coding(NamedTuple):
    """How values of a hyperparameter are numbers on an axis.

    Attributes:
      categories: the options of a choice, as text; else empty.
      number: maps a value to itself, or to the index of the option.
    """

    categories: tuple[str, ...]
    number: Callable[[Any], float]

    def column(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Array:
        """Returns a hyperparameter of each row, (rows,); NaN where a row lacks it."""
        return np.array([self.number(row[name]) if name in row else np.nan for row in rows], float)


class Map(NamedTuple):
    """A metric over two hyperparameters, at the end of training as tables have it.

    Attributes:
      trials: int (points,), the trials shown.
      x, y: (points,), values of the hyperparameters.
      z: (points,), the metric.
      diverged: (diverged trials, 2), their values of both hyperparameters.
      scales: the scales of both domains, as ``Space.scale`` has them.
    """

    trials: Array
    x: Array
    y: Array
    z: Array
    diverged: Array
    scales: tuple[str, str]


def map_of(table: TrialTable, across: str, up: str, metric: str) -> Map:
    """Returns a metric over two numeric hyperparameters, over the trials that have both.

    Args:
      table: the trials.
      across, up: the hyperparameters on the horizontal and the vertical axis.
      metric: the name of the metric.
    """
    places = np.array([[_number(hparams.get(name)) for name in (across, up)] for hparams in table.hparams])
    there, diverged = np.isfinite(places).all(axis=1), table.statuses == Status.DIVERGED
    z = reached(table, metric)
    kept = np.flatnonzero(there & ~diverged & np.isfinite(z))
    scales = table.scales[across], table.scales[up]
    return Map(kept, places[kept, 0], places[kept, 1], z[kept], places[there & diverged], scales)


class Contour(NamedTuple):
    """A metric between trials, linear on triangles whose corners are trials.

    Attributes:
      x, y: (corners,), places on the scales of both hyperparameters: log₁₀ of the value on a logarithmic one, log₁₀ of
        1 − value on a reversed one.
      z: (corners,), the metric, or its logarithm.
      triangles: int (triangles, 3), the indices of their corners. Together they are the convex hull of the trials.
    """

    x: Array
    y: Array
    z: Array
    triangles: Array


def contour(table: TrialTable, found: Map, logarithmic: bool = False) -> Contour | None:
    """Returns Delaunay's triangulation of the trials of a map, or None where they span no area.

    Trials that ended before those that rank first are left out, and trials at the same place count by their mean. The
    triangles are those of the unit square to which both scales map the range of the trials.

    Args:
      table: the trials.
      found: their map, of ``map_of``.
      logarithmic: take the logarithm of the metric, which must be positive.
    """
    from scipy.spatial import Delaunay, QhullError

    kept = ~ended_earlier(table)[found.trials]
    sides = zip((found.x, found.y), found.scales, strict=True)
    places = np.stack([_scaled(values[kept], scale) for values, scale in sides], axis=1)
    there = np.isfinite(places).all(axis=1)
    z = np.log(found.z[kept][there]) if logarithmic else found.z[kept][there]
    places, which = np.unique(places[there], axis=0, return_inverse=True)
    if len(places) < 3 or (np.ptp(places, axis=0) == 0).any():
        return None
    try:
        triangles = Delaunay((places - places.min(axis=0)) / np.ptp(places, axis=0)).simplices
    except QhullError:  # all lie on one line
        return None
    z = np.bincount(which.ravel(), z) / np.bincount(which.ravel())
    return Contour(places[:, 0], places[:, 1], z, triangles)


def _scaled(values: Any, scale: str) -> Any:
    """Returns values of a hyperparameter as they lie on an axis of its scale; on a reversed one they fall."""
    # A value beyond its domain, as only a damaged run has it, has no place.
    with np.errstate(invalid="ignore", divide="ignore"):
        if scale == "log":
            return np.log10(values)
        return np.log10(1 - values) if scale == "reverse log" else values


class Parallel(NamedTuple):
    """Trials as lines across one axis for each hyperparameter.

    Attributes:
      names: the hyperparameters, in the order of the axes.
      places: float (trials, axes), where each trial crosses each axis, 0 at the bottom and 1 at the top; NaN where it
        lacks the hyperparameter.
      ticks: for each axis place and label of some values: the options of a choice, else the ends.
    """

    names: tuple[str, ...]
    places: Array
    ticks: tuple[tuple[tuple[float, str], ...], ...]


def parallel(table: TrialTable, names: Sequence[str]) -> Parallel:
    """Returns where trials cross the axes of hyperparameters, each from its lowest value to its highest."""
    places, ticks = np.full((len(table), len(names)), np.nan), []
    for at, name in enumerate(names):
        how = coding(table, name, table.hparams)
        column, scale = how.column(name, table.hparams), table.scales[name]
        side = _scaled(column, scale) * (-1 if scale == "reverse log" else 1)
        there = np.isfinite(side)
        low, high = (side[there].min(), side[there].max()) if there.any() else (0.0, 0.0)
        if how.categories:
            low, high = 0.0, float(len(how.categories) - 1)
        places[:, at] = (side - low) / (high - low) if high > low else np.where(there, 0.5, np.nan)
        if how.categories:
            last = max(1, len(how.categories) - 1)
            ticks.append(tuple((index / last, text) for index, text in enumerate(how.categories)))
        elif there.any():
            ends = ((0.0, column[there].min()), (1.0, column[there].max()))
            ticks.append(tuple((place, f"{value:.3g}") for place, value in ends))
        else:
            ticks.append(())
    return Parallel(tuple(names), places, tuple(ticks))


def numbers(table: TrialTable) -> list[str]:
    """Returns the hyperparameters that vary and are numbers on a scale, in the order of the space."""
    return [name for name in table.varied if table.scales[name] != "category"]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
