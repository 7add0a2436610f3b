"""Refine: from coarse to fine, each round in a smaller box around the best so far."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpjax.core.choice import Choice
from hpjax.core.errors import InputError
from hpjax.core.space import Point, Space
from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.sobol import Sobol, unit


@dataclass(frozen=True)
class Refine(Sampler):
    """Coarse to fine: the first round is ``Sobol``'s; the box of each later one is ``shrink`` times as wide in every
    dimension, on the scale of its domain, around the best so far. Of choices, and of alternatives, a share that
    shrinks as much still tries all; the others take the best's.

    Args:
      shrink: the width of a round's box as a share of the one before, between 0 and 1.

    Raises:
      InputError: another number.

    Example:
      >>> history = [Observation({"x": i / 8}, ((i / 8 - 0.25) ** 2,), 1) for i in range(9)]
      >>> points = Refine(shrink=0.5).ask(hpx.Space(x=hpx.Uniform(0, 1)), history, 4, seed=0)
      >>> all(0 <= point["x"] <= 0.5 for point in points)
      True
    """

    shrink: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.shrink, bool) or not isinstance(self.shrink, int | float) or not 0 < self.shrink < 1:
            raise InputError("Refine.shrink", self.shrink, "must lie between 0 and 1", "Use 0.5.")

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        seen = [each for each in history if np.isfinite(each.score)]
        if not seen or n == 0:
            return Sobol().propose(space, history, start, n, seed)
        best = min(seen, key=lambda each: each.score)
        center, branch = space.to_unit(best.point), space.branches[space.branch_of(best.point)]
        width = self.shrink ** (1 + max(each.round for each in history))
        cube = unit(len(center), start, n, seed)
        low = np.clip(center - width / 2, 0, 1 - width)
        boxed = low + width * cube
        for column, name in enumerate(space.dimensions):
            if name is None or isinstance(branch.get(name), Choice):
                u = cube[:, column]
                boxed[:, column] = np.where(u < width, u / width, center[column])
        return [space.from_unit(u) for u in boxed]
