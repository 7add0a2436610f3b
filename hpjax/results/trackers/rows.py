"""The curves of trials as trackers write them: rows of an optimizer step, and name to value of one evaluation."""

from collections.abc import Mapping

import numpy as np

from hpjax.core.arrays import Array
from hpjax.results.table import TrialTable

# An optimizer step, and the values at it by name.
Row = tuple[int, dict[str, float]]


def rows_of(table: TrialTable, trial: int) -> list[Row]:
    """Returns all evaluations of a trial, each as ``by_trial`` gives it."""
    steps = table.curves("step")[trial]  # (replicates, evaluations)
    found: list[Row] = []
    for at in np.flatnonzero(~np.isnan(steps).all(axis=0)):
        here = np.flatnonzero(~np.isnan(steps[:, at]))
        metrics = {name: table.curves(name)[trial, here, at] for name in table.metrics}
        found += by_trial(np.full(len(here), trial), here, steps[here, at], metrics, len(steps)).values()
    return found


def by_trial(
    trial: Array, replicate: Array, step: Array, metrics: Mapping[str, Array], replicates: int
) -> dict[int, Row]:
    """Returns the row of each trial in an evaluation of some lanes.

    It has the metrics averaged over replicates, left out where one of these is missing, as those that diverged are; and
    if there are several ``valid/loss/replicate 0`` and so on.

    Args:
      trial, replicate, step: of each lane, (lanes,).
      metrics: name to values, each (lanes,).
      replicates: how many each trial has.
    """
    lanes: dict[int, list[int]] = {}
    for lane, owner in enumerate(trial.tolist()):
        lanes.setdefault(owner, []).append(lane)
    seeds, steps, columns = replicate.tolist(), step.tolist(), {name: x.tolist() for name, x in metrics.items()}
    found = {}
    for owner, own in lanes.items():
        row: dict[str, float] = {}
        for name, values in columns.items():
            if len(own) == replicates:
                row[name] = sum(values[lane] for lane in own) / replicates
            if replicates > 1:
                row |= {f"{name}/replicate {seeds[lane]}": values[lane] for lane in own}
        found[owner] = (int(max(steps[lane] for lane in own)), row)
    return found
