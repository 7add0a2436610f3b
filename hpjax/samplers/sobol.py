"""Sobol: proposes a scrambled Sobol sequence, which covers the space more evenly than random points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpjax.core.space import Point, Space
from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.distinct import distinct


@dataclass(frozen=True)
class Sobol(Sampler):
    """Proposes the points of a scrambled Sobol sequence, of ``scipy.stats.qmc``. The default sampler.

    No point comes twice while others are left.

    A. B. Owen, "Scrambling Sobol' and Niederreiter-Xing Points", Journal of Complexity 1998.

    Example:
      >>> len(Sobol().ask(hpx.Space(x=hpx.Uniform(0, 1)), [], n=4, seed=0))
      4
    """

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        def draw(m: int) -> list[Point]:
            return list(map(space.from_unit, unit(len(space.dimensions), 0, m, seed)))

        return distinct(space, draw, start, n)


def unit(dimensions: int, start: int, n: int, seed: int) -> NDArray[np.float64]:
    """Returns points ``start`` to ``start + n`` of the sequence that ``seed`` scrambles, float64 (n, dimensions)."""
    if n == 0 or dimensions == 0:
        return np.empty((n, dimensions))
    from scipy.stats import qmc  # imported here, since it takes more than a second

    # The sequence is balanced for powers of two only; SciPy warns of other numbers.
    cube = qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2((start + n - 1).bit_length())
    found: NDArray[np.float64] = cube[start : start + n]
    return found
