"""Bayes: proposes points of high expected improvement under a Gaussian process, in large batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from hpjax.core.arrays import Floats
from hpjax.core.choice import Choice
from hpjax.core.domains import Domain
from hpjax.core.errors import check_int
from hpjax.core.space import Point, Space, point_key
from hpjax.samplers import gaussian_process as gp
from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.distinct import untried
from hpjax.samplers.sobol import Sobol

# Number of observations that the hyperparameters of the process are fitted to: the cost grows with its cube.
FITTED = 256
RESTARTS = 4
# Numbers of candidates: spread evenly over the space, and near the best points so far, at several distances.
EVEN, NEAR, BEST = 1024, 1024, 16
DISTANCES = (0.2, 0.05, 0.0125)


@dataclass(frozen=True)
class Bayes(Sampler):
    """Bayesian optimization with a Gaussian process.

    The process has a Matérn 5/2 kernel with one length for each hyperparameter, and noise. Each point of a batch has
    the highest expected improvement, given that the points before it in the batch give their predicted means.

    It needs ``Sweep(rounds=...)``: the first round is that of ``Sobol``. Any two options of a choice among things that
    are no numbers are as far apart as the ends of an interval. A hyperparameter that an alternative lacks has the same
    value in all its points. Replicates lower the noise of a trial; a trial that diverged counts as the worst.

    J. Snoek, H. Larochelle and R. P. Adams, "Practical Bayesian Optimization of Machine Learning Algorithms", NeurIPS
    2012.

    Args:
      initial: number of finite scores that must be known before the process is used, 1 or more; by default two more
        than twice the dimensions of the space.

    Raises:
      InputError: ``initial`` is no whole number, 1 or more.

    Example:
      >>> space = hpx.Space(x=hpx.Uniform(0, 1))
      >>> history = [Observation({"x": i / 8}, ((i / 8 - 0.3) ** 2,), 1) for i in range(9)]
      >>> abs(Bayes().ask(space, history, 1, seed=0)[0]["x"] - 0.3) < 0.05
      True
    """

    initial: int | None = None

    def __post_init__(self) -> None:
        if self.initial is not None:
            object.__setattr__(self, "initial", check_int("Bayes.initial", self.initial))

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        initial = 2 * len(space.dimensions) + 2 if self.initial is None else self.initial
        fresh = Sobol().propose(space, history, start, n, seed)
        if sum(np.isfinite(seen.score) for seen in history) < initial or not space.dimensions or n == 0:
            return fresh
        rng = np.random.default_rng([seed, start])
        tried = {point_key(seen.point) for seen in history}
        even, near = _even(space, rng), _near(space, history, rng)
        # Of a space with few points all are candidates: the last ones would not be among those drawn.
        every = space.points() if space.size is not None and space.size <= len(even) + len(near) else [*even, *near]
        candidates = list(untried([*every, *fresh], tried))
        if len(candidates) <= n:
            more = Sobol().propose(space, history, 0, start + n, seed)
            return [*untried([*candidates, *more], tried), *fresh][:n]
        chosen = _chosen(space, history, candidates, n, rng)
        return [candidates[i] for i in chosen]


def _even(space: Space, rng: np.random.Generator) -> list[Point]:
    """Returns candidates that are spread evenly over the space."""
    return Sobol().propose(space, [], 0, EVEN, int(rng.integers(2**31)))


def _near(space: Space, history: Sequence[Observation], rng: np.random.Generator) -> list[Point]:
    """Returns candidates near the best points so far: some of their coordinates are moved."""
    best = sorted(history, key=lambda seen: seen.score)[:BEST]
    centers = np.array([space.to_unit(seen.point) for seen in best])[rng.integers(len(best), size=NEAR)]
    scale = np.array(DISTANCES)[rng.integers(len(DISTANCES), size=NEAR)][:, None]
    moved = rng.random(centers.shape) < max(0.5, 1 / centers.shape[1])
    unit = np.clip(centers + np.where(moved, scale * rng.standard_normal(centers.shape), 0), 0, 1)
    return [space.from_unit(u) for u in unit]


def _chosen(
    space: Space, history: Sequence[Observation], candidates: list[Point], n: int, rng: np.random.Generator
) -> list[int]:
    """Returns the indices of the ``n`` candidates to try, best first."""
    columns = Columns(space)
    x, y = columns.of([seen.point for seen in history]), standardized(np.array([seen.score for seen in history]))
    share = np.array([1 / len(seen.scores) for seen in history])
    # Fitted to the best observations, near which the process must be accurate, and to a random part of the others.
    fitted = np.argsort(y, kind="stable")[: FITTED // 2]
    rest = np.setdiff1d(np.arange(len(y)), fitted)
    fitted = np.concatenate([fitted, rng.permutation(rest)[: FITTED - len(fitted)]])
    groups = columns.groups
    lengths = np.log(0.3 * np.sqrt(groups.max() + 1)) + rng.normal(0, 0.7, (RESTARTS, groups.max() + 1))
    starts = gp.Hyper(lengths, np.linspace(-8, -2, RESTARTS))
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.default_device(cpu):
        hyper = gp.fit(starts, gp.padded(x[fitted], y[fitted], share[fitted]), groups)
        # Padded to a fixed number, so that a program is not compiled for each number of candidates.
        most = EVEN + NEAR
        places = columns.of(candidates)[:most]
        filled = np.concatenate([places, np.repeat(places[-1:], most - len(places), axis=0)])
        found = np.asarray(gp.propose(hyper, gp.padded(x, y, share), groups, filled, 1 << (n - 1).bit_length()))
    kept = list(dict.fromkeys(int(i) for i in found if i < len(places)))[:n]
    return kept + [i for i in range(len(candidates)) if i not in set(kept)][: n - len(kept)]


def standardized(scores: Floats) -> Floats:
    """Returns scores with mean 0 and variance 1, after bad ones were clipped.

    Scores are clipped at the third quartile plus one and a half times its distance from the best (after J. Tukey,
    "Exploratory Data Analysis", 1977): how bad a bad trial was says nothing about the good ones.

    Args:
      scores: (trials,), lower being better; infinite for trials that diverged.
    """
    low, high = np.quantile(scores[np.isfinite(scores)], (0.0, 0.75))
    clipped = np.minimum(scores, high + 1.5 * max(high - low, 1e-12))
    spread = clipped.std()
    result: Floats = (clipped - clipped.mean()) / (spread if spread > 0 else 1.0)
    return result


class Columns:
    """Maps points to rows of numbers whose Euclidean distances are meaningful.

    A number has one column, its place in the unit interval. A choice among things that are no numbers has one column
    for each option.

    Args:
      space: the space of the points.

    Attributes:
      groups: int (columns,), the dimension of the space that each column belongs to.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._options: list[list[Any] | None] = []
        for name in space.dimensions:
            alternatives = list(range(len(space.branches)))
            self._options.append(alternatives if name is None else _unordered(space.domains(name)))
        sizes = [1 if options is None else len(options) for options in self._options]
        self.groups = np.repeat(np.arange(len(sizes)), sizes)

    def of(self, points: Sequence[Point]) -> Floats:
        """Returns the rows of some points, float64 (points, columns)."""
        return np.array([self._row(point) for point in points])

    def _row(self, point: Point) -> list[float]:
        unit, row = self._space.to_unit(point), []
        for name, u, options in zip(self._space.dimensions, unit, self._options, strict=True):
            if options is None:
                row.append(float(u))
                continue
            chosen = [self._space.branch_of(point)] if name is None else [point[name]] if name in point else []
            # √½, so that two options have distance 1, like the ends of an interval.
            row.extend(np.sqrt(0.5) if option in chosen else 0.0 for option in options)
        return row


def _unordered(domains: Sequence[Domain]) -> list[Any] | None:
    """Returns all options of a choice if some are no numbers, else None."""
    if all(domain.numeric() in (int, float, bool) for domain in domains):
        return None
    return [option for domain in domains if isinstance(domain, Choice) for option in domain.grid()]
