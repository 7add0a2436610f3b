"""Grid: proposes every combination of the values in the domains' grids."""

from collections.abc import Sequence
from dataclasses import dataclass

from hpjax.core.space import Point, Space, point_key
from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.distinct import untried


@dataclass(frozen=True)
class Grid(Sampler):
    """Proposes every point of the grid, the last name varying fastest. Continuous domains need ``num=``.

    If the space has a default, the baseline comes first, and the grid does not repeat it. A point of several
    alternatives comes once.

    Raises:
      InputError: a continuous domain has no ``num``; raised when the sweep is planned.

    Example:
      >>> Grid().ask(hpx.Space(a=hpx.Choice(1, 2), b=hpx.Uniform(0, 1, num=2)), [], n=4, seed=0)
      [{'a': 1, 'b': 0.0}, {'a': 1, 'b': 1.0}, {'a': 2, 'b': 0.0}, {'a': 2, 'b': 1.0}]
    """

    def _points(self, space: Space) -> list[Point]:
        baseline = space.baseline()
        return list(untried(space.grid(), () if baseline is None else [point_key(baseline)]))

    def size(self, space: Space) -> int:
        return len(self._points(space)) + (space.baseline() is not None)

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        return self._points(space)[start : start + n]
