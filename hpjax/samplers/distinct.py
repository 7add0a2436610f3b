"""Distinct points: a sequence of points without its repetitions, as long as the space has others."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from hpjax.core.space import Point, Space, point_key

# How many points of a sequence are drawn for each that is wanted, or that the space has, before its rest is taken in
# the order of a grid: the last points of a finite space would take long to come by chance.
PATIENCE = 4


def distinct(space: Space, draw: Callable[[int], list[Point]], start: int, n: int) -> list[Point]:
    """Returns the points ``start`` to ``start + n`` of a sequence without those that came before, and the baseline.

    After the last point of a finite space the points come again, in the same order.

    Args:
      space: the space of the points.
      draw: gives the first points of the sequence, as many as it is told; more begin with fewer.
      start: number of points to skip.
      n: number of points.

    Example:
      >>> distinct(hpx.Space(a=hpx.Choice(1, 2, 3)), lambda m: [{"a": 1}, {"a": 1}, {"a": 3}] * m, 0, 4)
      [{'a': 1}, {'a': 3}, {'a': 2}, {'a': 1}]
    """
    baseline, wanted = space.baseline(), start + n
    known = set() if baseline is None else {point_key(baseline)}
    most = PATIENCE * (wanted if space.size is None else space.size)
    drawn, found = wanted, list[Point]()
    while len(found) < wanted:
        drawn = min(drawn, max(most, wanted))
        found = list(islice(untried(draw(drawn), known), wanted))
        if drawn >= most:
            break
        drawn *= 2
    if len(found) < wanted and space.size is not None:
        found = list(islice(untried([*found, *space.points()], known), wanted))
    found = found or [space.from_unit([0.5] * len(space.dimensions))]
    return [found[i % len(found)] for i in range(start, wanted)]


def untried(points: Iterable[Point], known: Iterable[object]) -> Iterator[Point]:
    """Yields those points that differ from all before them, and from those with the keys ``known``."""
    seen = set(known)
    for point in points:
        key = point_key(point)
        if key not in seen:
            seen.add(key)
            yield point
