"""Random: proposes independent random points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpjax.core.space import Point, Space
from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.distinct import distinct


@dataclass(frozen=True)
class Random(Sampler):
    """Proposes independent points, uniform on the scale of each domain, none of them twice while others are left.

    J. Bergstra and Y. Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012.

    Example:
      >>> len(Random().ask(hpx.Space(x=hpx.Uniform(0, 1)), [], n=4, seed=0))
      4
    """

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        def draw(m: int) -> list[Point]:
            return list(map(space.from_unit, np.random.default_rng(seed).random((m, len(space.dimensions)))))

        return distinct(space, draw, start, n)
