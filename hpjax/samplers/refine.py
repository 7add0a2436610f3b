"""Refine: proposes points in a box around the best point so far, which shrinks from round to round."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpjax.core.choice import Choice
from hpjax.core.errors import InputError, check_float
from hpjax.core.space import Point, Space, point_key
from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.distinct import PATIENCE, untried
from hpjax.samplers.sobol import Sobol, unit


@dataclass(frozen=True)
class Refine(Sampler):
    """Search from coarse to fine, as one does by hand.

    The first round is that of ``Sobol``. Each later round lies in a box around the best point so far that is ``shrink``
    times as wide as the one before in every dimension, on the scale of its domain. For choices and alternatives, a
    share of the points that shrinks likewise is spread over all options; the others take that of the best point.

    It needs ``Sweep(rounds=...)``.

    Args:
      shrink: the width of a round's box as a share of the one before, between 0 and 1, both exclusive.

    Raises:
      InputError: ``shrink`` does not lie between 0 and 1.

    Example:
      >>> history = [Observation({"x": i / 8}, ((i / 8 - 0.25) ** 2,), 1) for i in range(9)]
      >>> points = Refine(shrink=0.5).ask(hpx.Space(x=hpx.Uniform(0, 1)), history, 4, seed=0)
      >>> all(0 <= point["x"] <= 0.5 for point in points)
      True
    """

    shrink: float = 0.5

    def __post_init__(self) -> None:
        shrink = check_float("Refine.shrink", self.shrink, 0, 1, "Write shrink=0.5.")
        if shrink in (0, 1):
            raise InputError("Refine.shrink", self.shrink, "must lie between 0 and 1", "Write shrink=0.5.")
        object.__setattr__(self, "shrink", shrink)

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        seen = [each for each in history if np.isfinite(each.score)]
        if not seen or n == 0:
            return Sobol().propose(space, history, start, n, seed)
        best = min(seen, key=lambda each: each.score)
        center, branch = space.to_unit(best.point), space.branches[space.branch_of(best.point)]
        width = self.shrink ** (1 + max(each.round for each in history))
        low = np.clip(center - width / 2, 0, 1 - width)
        tried = {point_key(each.point) for each in history}

        def box(m: int) -> list[Point]:
            cube = unit(len(center), start, m, seed)
            boxed = low + width * cube
            for column, name in enumerate(space.dimensions):
                if name is None or isinstance(branch.get(name), Choice):
                    # A share ``width`` of the points, stretched over all options.
                    u = cube[:, column]
                    boxed[:, column] = np.where(u < width, u / width, center[column])
            return list(map(space.from_unit, boxed))

        # Where the box has no other points left, those of the whole space that are.
        own = list(untried(box(PATIENCE * n), tried))[:n]
        more = Sobol().propose(space, history, 0, start + n, seed)
        return [*own, *untried(more, tried | set(map(point_key, own))), *more][:n]
