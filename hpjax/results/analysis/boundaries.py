"""Whether the best trials are at an end of the range of a hyperparameter, beyond which better ones may be."""

from typing import NamedTuple

import numpy as np

from hpjax.core.errors import check_float, check_int
from hpjax.results.table import TrialTable


class Boundary(NamedTuple):
    """Where the best trials are in the range of a hyperparameter.

    Attributes:
      name: of the hyperparameter.
      low, high: the ends of its range.
      median: of the values of the best trials.
      place: where the median is between the ends, on the scale of the range: 0 at the low end, 1 at the high one.
      at: ``"lowest"`` or ``"highest"`` where it is at that end, else None.
    """

    name: str
    low: float
    high: float
    median: float
    place: float
    at: str | None


def boundaries(table: TrialTable, trials: int = 5, near: float = 0.1) -> list[Boundary]:
    """Returns where the best trials are in the range of each hyperparameter, those at an end first.

    A space whose best points are at its boundary may leave out better ones, and should be extended there: J. Godbole
    et al., "Deep Learning Tuning Playbook", 2023, looks at this before anything else of a finished study.

    Args:
      table: the trials; a result is one.
      trials: of how many of the best the middle is looked at. One alone is at an end by chance more often.
      near: the share of the range, on its scale, that counts as its end.

    Returns:
      One for each hyperparameter that varies and is a number of the same range in all of these trials; none where
      fewer trials rank.

    Raises:
      InputError: an argument cannot be used.

    Example:
      >>> space = hpx.Space(rate=hpx.LogUniform(1e-4, 1e-2))  # the best rate is 1
      >>> result = hpx.Sweep(program, space, trials=32).run(progress=False)
      >>> [(each.name, each.at) for each in hpx.analysis.boundaries(result)]
      [('rate', 'highest')]
    """
    trials = check_int("trials", trials, least=1)
    near = check_float("near", near, 0.0, 0.5)
    best, found = table.ranking[:trials], []
    for name in table.varied if len(best) == trials else ():
        ranges = {table.ranges(trial).get(name) for trial in best}
        within = ranges.pop()
        if within is None or ranges:
            continue
        median = float(np.median([float(table.hparams[trial][name]) for trial in best]))
        place = within.place(median)
        at = "lowest" if place <= near else "highest" if place >= 1 - near else None
        found.append(Boundary(name, within.low, within.high, median, place, at))
    return sorted(found, key=lambda each: each.at is None)
