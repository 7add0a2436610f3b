"""Sobol: a scrambled Sobol sequence, which covers the space more evenly than chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpjax.core.space import Point, Space
from hpjax.samplers.base import Observation, Sampler


@dataclass(frozen=True)
class Sobol(Sampler):
    """Quasi-random points by an Owen-scrambled Sobol sequence (Owen 1998, "Scrambling Sobol' and
    Niederreiter-Xing points"), through ``scipy.stats.qmc``. The default sampler.

    Example:
      >>> len(Sobol().ask(hpx.Space(x=hpx.Uniform(0, 1)), [], n=4, seed=0))
      4
    """

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        if n == 0:
            return []
        if not space.dimensions:
            return [space.from_unit([]) for _ in range(n)]
        return [space.from_unit(u) for u in unit(len(space.dimensions), start, n, seed)]


def unit(dimensions: int, start: int, n: int, seed: int) -> NDArray[np.float64]:
    """Points ``start`` to ``start + n`` of the sequence that the seed scrambles, (n, dimensions)."""
    from scipy.stats import qmc  # a second and a half, for which no import should wait

    # A power of two at a time, as the sequence is made for; scipy warns of anything else.
    cube = qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2((start + n - 1).bit_length())
    found: NDArray[np.float64] = cube[start : start + n]
    return found
