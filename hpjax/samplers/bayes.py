"""Bayes: points of high expected improvement, by a Gaussian process over all that was tried; made for large batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from hpjax.core.arrays import Floats
from hpjax.core.choice import Choice
from hpjax.core.domains import Domain
from hpjax.core.errors import check_int
from hpjax.core.space import Point, Space
from hpjax.samplers import gaussian_process as gp
from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.sobol import Sobol

# Observations that the hyperparameters of the process are fitted to; more change them little and cost their cube.
FITTED = 256
RESTARTS = 4
# Candidates: even over the space, and around the best so far at several distances.
EVEN, NEAR, BEST = 1024, 1024, 16
DISTANCES = (0.2, 0.05, 0.0125)


@dataclass(frozen=True)
class Bayes(Sampler):
    """Bayesian optimization: a Gaussian process (Matérn 5/2, a length a hyperparameter, noise) of what was found, and
    the points of highest expected improvement, each chosen as if those before it in the batch were known.

    Needs ``Sweep(rounds=...)``: the first round is ``Sobol``'s. Choices that are no numbers stand as far from each
    other as the ends of a domain; hyperparameters that an alternative lacks say nothing. Replicates lower the noise
    of a trial; one that diverged counts as bad as a trial may be.

    J. Snoek, H. Larochelle and R. P. Adams, "Practical Bayesian Optimization of Machine Learning Algorithms", NeurIPS
    2012.

    Args:
      initial: points before the process is asked; by default two more than twice the dimensions.

    Example:
      >>> space = hpx.Space(x=hpx.Uniform(0, 1))
      >>> history = [Observation({"x": i / 8}, ((i / 8 - 0.3) ** 2,), 1) for i in range(9)]
      >>> abs(Bayes().ask(space, history, 1, seed=0)[0]["x"] - 0.3) < 0.05
      True
    """

    initial: int | None = None

    def __post_init__(self) -> None:
        if self.initial is not None:
            check_int("Bayes.initial", self.initial)

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        initial = 2 * len(space.dimensions) + 2 if self.initial is None else self.initial
        fresh = Sobol().propose(space, history, start, n, seed)
        if sum(np.isfinite(seen.score) for seen in history) < initial or not space.dimensions or n == 0:
            return fresh
        rng = np.random.default_rng([seed, start])
        tried = {_key(seen.point) for seen in history}
        candidates = []
        for point in [*_even(space, rng), *_near(space, history, rng), *fresh]:
            if _key(point) not in tried:
                tried.add(_key(point))
                candidates.append(point)
        if len(candidates) <= n:  # a small finite space
            return (candidates + fresh)[:n]
        chosen = _chosen(space, history, candidates, n, rng)
        return [candidates[i] for i in chosen]


def _key(point: Point) -> Any:
    return tuple(sorted((name, repr(value)) for name, value in point.items()))


def _even(space: Space, rng: np.random.Generator) -> list[Point]:
    return Sobol().propose(space, [], 0, EVEN, int(rng.integers(2**31)))


def _near(space: Space, history: Sequence[Observation], rng: np.random.Generator) -> list[Point]:
    """Points around the best, of which some coordinates moved."""
    best = sorted(history, key=lambda seen: seen.score)[:BEST]
    centers = np.array([space.to_unit(seen.point) for seen in best])[rng.integers(len(best), size=NEAR)]
    scale = np.array(DISTANCES)[rng.integers(len(DISTANCES), size=NEAR)][:, None]
    moved = rng.random(centers.shape) < max(0.5, 1 / centers.shape[1])
    unit = np.clip(centers + np.where(moved, scale * rng.standard_normal(centers.shape), 0), 0, 1)
    return [space.from_unit(u) for u in unit]


def _chosen(
    space: Space, history: Sequence[Observation], candidates: list[Point], n: int, rng: np.random.Generator
) -> list[int]:
    columns = Columns(space)
    x, y = columns.of([seen.point for seen in history]), standardized(np.array([seen.score for seen in history]))
    share = np.array([1 / len(seen.scores) for seen in history])
    fitted = np.argsort(y, kind="stable")[: FITTED // 2]
    rest = np.setdiff1d(np.arange(len(y)), fitted)
    fitted = np.concatenate([fitted, rng.permutation(rest)[: FITTED - len(fitted)]])
    groups = columns.groups
    lengths = np.log(0.3 * np.sqrt(groups.max() + 1)) + rng.normal(0, 0.7, (RESTARTS, groups.max() + 1))
    starts = gp.Hyper(lengths, np.linspace(-8, -2, RESTARTS))
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        hyper = gp.fit(starts, gp.padded(x[fitted], y[fitted], share[fitted]), groups)
        # As many as always, so that no program is compiled for the number of candidates.
        most = EVEN + NEAR
        places = columns.of(candidates)[:most]
        filled = np.concatenate([places, np.repeat(places[-1:], most - len(places), axis=0)])
        found = np.asarray(gp.propose(hyper, gp.padded(x, y, share), groups, filled, 1 << (n - 1).bit_length()))
    kept = list(dict.fromkeys(int(i) for i in found if i < len(places)))[:n]
    return kept + [i for i in range(len(candidates)) if i not in set(kept)][: n - len(kept)]


def standardized(scores: Floats) -> Floats:
    """Scores of mean 0 and variance 1, where the worst are cut off and what diverged is as bad as these may be.

    Beyond the third quartile by one and a half times the range below it (J. Tukey, 1977) all scores are the same: how
    bad a bad trial was says nothing of the good ones.
    """
    low, high = np.quantile(scores[np.isfinite(scores)], (0.0, 0.75))
    cut = np.minimum(scores, high + 1.5 * max(high - low, 1e-12))
    spread = cut.std()
    result: Floats = (cut - cut.mean()) / (spread if spread > 0 else 1.0)
    return result


class Columns:
    """Points as rows of numbers in which distances mean something.

    Args:
      space: where the points lie.

    Attributes:
      groups: int (columns,), the hyperparameter that each column belongs to.
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
        """(points, columns)."""
        return np.array([self._row(point) for point in points])

    def _row(self, point: Point) -> list[float]:
        unit, row = self._space.to_unit(point), []
        for name, u, options in zip(self._space.dimensions, unit, self._options, strict=True):
            if options is None:
                row.append(float(u))
                continue
            chosen = [self._space.branch_of(point)] if name is None else [point[name]] if name in point else []
            # Two options are as far apart as the ends of a domain.
            row.extend(np.sqrt(0.5) if option in chosen else 0.0 for option in options)
        return row


def _unordered(domains: Sequence[Domain]) -> list[Any] | None:
    """All options, where some are no numbers; else None."""
    if all(domain.numeric() in (int, float, bool) for domain in domains):
        return None
    return [option for domain in domains if isinstance(domain, Choice) for option in domain.grid()]
