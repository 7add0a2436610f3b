"""Manual: proposes the points that the user lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpjax.core.choice import Constant
from hpjax.core.errors import InputError
from hpjax.core.space import Point, Space
from hpjax.samplers.base import Observation, Sampler


@dataclass(frozen=True)
class Manual(Sampler):
    """Proposes the listed points in their order. Names that a point leaves out take their default or constant.

    Args:
      points: a dict of name to value for each point, at least one.

    Raises:
      InputError: there are no points; or, when the sweep is planned, a name or value is not in the space.

    Example:
      >>> Manual([{"x": 0.1}, {"x": 0.2}]).ask(hpx.Space(x=hpx.Uniform(0, 1)), [], n=2, seed=0)
      [{'x': 0.1}, {'x': 0.2}]
    """

    points: Sequence[Mapping[str, Any]]

    def __post_init__(self) -> None:
        listed = isinstance(self.points, Sequence) and all(isinstance(point, Mapping) for point in self.points)
        if not listed or not self.points:
            raise InputError(
                "Manual.points", self.points, "must be a list of dicts, not empty", 'Write Manual([{"x": 0.1}]).'
            )

    def size(self, space: Space) -> int:
        return len(self.points)

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        return [space.canonical(_fill(space, point)) for point in self.points[start : start + n]]

    def ask(self, space: Space, history: Sequence[Observation], n: int, seed: int) -> list[Point]:
        # Without the baseline, unless it is listed.
        return self.propose(space, history, len(history), n, seed)


def _fill(space: Space, point: Mapping[str, Any]) -> Point:
    """Returns ``point`` with the defaults and constants of the first alternative that it fits, else unchanged."""
    for branch in space.branches:
        own = {
            name: domain.default
            if domain.default is not None
            else domain.value
            if isinstance(domain, Constant)
            else None
            for name, domain in branch.items()
        }
        filled = {name: point.get(name, own[name]) for name in branch}
        if point.keys() <= branch.keys() and all(domain.contains(filled[name]) for name, domain in branch.items()):
            return filled
    return dict(point)
