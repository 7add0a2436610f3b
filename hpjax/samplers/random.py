"""Random: proposes independent random points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpjax.core.space import Point, Space
from hpjax.samplers.base import Observation, Sampler


@dataclass(frozen=True)
class Random(Sampler):
    """Proposes independent points, uniform on the scale of each domain.

    J. Bergstra and Y. Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012.

    Example:
      >>> len(Random().ask(hpx.Space(x=hpx.Uniform(0, 1)), [], n=4, seed=0))
      4
    """

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        cube = np.random.default_rng(seed).random((start + n, len(space.dimensions)))
        return [space.from_unit(u) for u in cube[start:]]
