"""CoordinateDescent: varies one hyperparameter of the best point at a time, ever less from round to round."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.choice import Choice, Constant
from hpjax.core.domains import Domain
from hpjax.core.errors import InputError, check_float
from hpjax.core.space import Point, Space, point_key
from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.distinct import untried
from hpjax.samplers.sobol import Sobol


@dataclass(frozen=True)
class CoordinateDescent(Sampler):
    """Search along one hyperparameter at a time, around the best point so far.

    The first round is that of ``Sobol``. In each later round all points are the best one so far but for a single
    hyperparameter, of which each has equally many points: evenly spread over a window around its best value that is
    ``shrink`` times as wide as in the round before, on the scale of its domain. Of a choice they are the other options.

    H. Naganuma et al., "What do near-optimal learning rate schedules look like?", 2026, arXiv 2603.10301, refine the
    shapes of schedules so, after random search.

    It needs ``Sweep(rounds=...)``.

    Args:
      shrink: the width of a round's window as a share of the one before, between 0 and 1, both exclusive.

    Raises:
      InputError: ``shrink`` does not lie between 0 and 1.

    Example:
      >>> space = hpx.Space(x=hpx.Uniform(0, 1), y=hpx.Uniform(0, 1))
      >>> history = [Observation({"x": 0.5, "y": 0.25}, (0.0,), 1)]
      >>> for point in CoordinateDescent().ask(space, history, 4, seed=0):
      ...     print(point)
      {'x': 0.375, 'y': 0.25}
      {'x': 0.5, 'y': 0.125}
      {'x': 0.625, 'y': 0.25}
      {'x': 0.5, 'y': 0.375}
    """

    shrink: float = 0.5

    def __post_init__(self) -> None:
        shrink = check_float("CoordinateDescent.shrink", self.shrink, 0, 1, "Write shrink=0.5.")
        if shrink in (0, 1):
            allowed = "must lie between 0 and 1"
            raise InputError("CoordinateDescent.shrink", self.shrink, allowed, "Write shrink=0.5.")
        object.__setattr__(self, "shrink", shrink)

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        seen = [each for each in history if np.isfinite(each.score)]
        if not seen or n == 0:
            return Sobol().propose(space, history, start, n, seed)
        best = min(seen, key=lambda each: each.score).point
        number = 1 + max(each.round for each in history)
        tried = {point_key(each.point) for each in history}
        own = list(untried(self._along(space, best, number, n), tried))[:n]
        # Where a window has no other points left, those of the whole space that are.
        more = Sobol().propose(space, history, 0, start + n, seed)
        return [*own, *untried(more, tried | set(map(point_key, own))), *more][:n]

    def _along(self, space: Space, best: Point, number: int, n: int) -> Iterator[Point]:
        """Yields points of round ``number`` that differ from the best one in a single hyperparameter, ``n`` or more."""
        branch = space.branches[space.branch_of(best)]
        free = [name for name, domain in branch.items() if not isinstance(domain, Constant)]
        # Of an odd number the middle one would be the best point itself.
        each = 2 * ceil_div(n, 2 * max(len(free), 1))
        values = {name: self._values(branch[name], best[name], number, each) for name in free}
        for turn in range(each):
            for name in free:
                yield best | {name: values[name][turn % len(values[name])]}

    def _values(self, domain: Domain, center: Any, number: int, many: int) -> list[Any]:
        """Returns values of a hyperparameter: all options of a choice, else those of a window around its center.

        They ascend in the first such round and descend in the next, since the last ones may be too many.
        """
        if isinstance(domain, Choice):
            return list(domain.options)
        width = self.shrink**number
        low = min(max(domain.to_unit(center) - width / 2, 0), 1 - width)
        order = range(many) if number % 2 else reversed(range(many))
        return [domain.from_unit(low + width * (i + 0.5) / many) for i in order]
