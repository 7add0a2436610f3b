"""Curves through points of a batch-scaling study: steps against batch size, and the best learning rate against it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError

# Slopes of the fit beyond which scaling counts as perfect, or a larger batch as of no use.
PERFECT, FLAT = -0.9, -0.1


class StepsFit(NamedTuple):
    """Steps to a target against the batch size B: S = S_min (1 + B_crit/B).

    The same as (S/S_min − 1)(E/E_min − 1) = 1 for E = S·B examples (McCandlish et al. 2018, arXiv 1812.06162), and as
    log S = log(a + b/B) with a = S_min and b = S_min · B_crit (Zhang et al. 2024, arXiv 2410.21676).

    Attributes:
      minimum_steps: S_min, to which steps fall for large batches.
      critical_batch_size: B_crit, in examples, at which steps are twice that, and examples twice their minimum.
      error: root mean square of log S less the fit.
    """

    minimum_steps: float
    critical_batch_size: float
    error: float

    @property
    def minimum_examples(self) -> float:
        """E_min, to which examples fall for small batches."""
        return self.minimum_steps * self.critical_batch_size

    def steps(self, batch_size: ArrayLike) -> Floats:
        """S at batch sizes."""
        steps: Floats = self.minimum_steps * (1 + self.critical_batch_size / np.asarray(batch_size, float))
        return steps

    def slope(self, batch_size: ArrayLike) -> Floats:
        """d log S / d log B, which goes from −1 where scaling is perfect to 0."""
        return -1 / (1 + np.asarray(batch_size, float) / self.critical_batch_size)

    @property
    def diminishing(self) -> tuple[float, float]:
        """The batch sizes between which returns diminish: where the slope is −0.9, and where it is −0.1."""
        low, high = (self.critical_batch_size * (-1 / slope - 1) for slope in (PERFECT, FLAT))
        return low, high

    def overhead_batch_size(self, reference: float, overhead: float = 0.2) -> float:
        """The batch size at which ``overhead`` more examples are needed than at a reference, as Zhang et al. have it.

        With their 20 %: b/(5a) + 1.2 · reference.

        Args:
          reference: a batch size, in examples, at which scaling is perfect as yet.
          overhead: 0.2 for 20 %.
        """
        return overhead * self.critical_batch_size + (1 + overhead) * reference


def fit_steps(batch_sizes: ArrayLike, steps: ArrayLike) -> StepsFit:
    """The fit S = S_min (1 + B_crit/B) with the least squares of log S.

    Args:
      batch_sizes: (points,).
      steps: (points,), positive; a point that is not finite is left out.

    Raises:
      InputError: there are fewer than three points.

    Example:
      >>> round(fit_steps([8, 64, 512], [1100.0, 200.0, 87.5]).critical_batch_size, 1)
      115.2
    """
    from scipy.optimize import least_squares  # no import should wait for it

    size, logs = _points("fit_steps", batch_sizes, steps)

    def residuals(logarithms: Floats) -> Floats:
        shortest, critical = np.exp(logarithms)
        off: Floats = np.log(shortest * (1 + critical / size)) - logs
        return off

    start = [logs.min(), np.log(np.sqrt(size.min() * size.max()))]
    # Of a straight line one of the two is not determined: a bound keeps it finite.
    far = np.log([np.finfo(float).tiny, np.finfo(float).max]) / 4
    found = least_squares(residuals, start, bounds=([far[0]] * 2, [far[1]] * 2), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    shortest, critical = np.exp(found.x)
    return StepsFit(float(shortest), float(critical), _rms(found.fun))


class RateFit(NamedTuple):
    """The best learning rate against the batch size, by one law.

    Attributes:
      law: ``"linear"``, ``"square root"`` or ``"surge"``.
      scale: of linear and square root the learning rate at B = 1; of surge the highest.
      noise_batch_size: of surge the batch size of the highest; else None.
      error: root mean square of the logarithm of the learning rate less the fit.
    """

    law: str
    scale: float
    noise_batch_size: float | None
    error: float

    def rate(self, batch_size: ArrayLike) -> Floats:
        """The learning rate at batch sizes."""
        size = np.asarray(batch_size, float)
        rate: Floats = np.exp(np.log(self.scale) + LAWS[self.law](size / (self.noise_batch_size or 1)))
        return rate


# log(rate / scale) of B, or of B / B_noise.
LAWS: dict[str, Callable[[Floats], Floats]] = {
    "linear": np.log,
    "square root": lambda size: np.log(size) / 2,
    "surge": lambda share: np.log(2 / (np.sqrt(1 / share) + np.sqrt(share))),
}


def fit_rates(batch_sizes: ArrayLike, rates: ArrayLike) -> tuple[RateFit, ...]:
    """Three laws of the best learning rate, from the least to the greatest error in log.

    Linear: c·B (Goyal et al. 2017, arXiv 1706.02677). Square root: c·√B (Krizhevsky 2014, arXiv 1404.5997). Surge:
    c / ½(√(B_noise/B) + √(B/B_noise)), which falls again beyond B_noise, as for Adam (Li et al. 2024, arXiv
    2405.14578).

    Args:
      batch_sizes: (points,).
      rates: (points,), positive; a point that is not finite is left out.

    Raises:
      InputError: there are fewer than three points.
    """
    from scipy.optimize import minimize_scalar

    size, logs = _points("fit_rates", batch_sizes, rates)

    def fitted(law: str, noise: float | None = None) -> RateFit:
        shape = LAWS[law](size / (noise or 1))
        height = float(np.mean(logs - shape))
        return RateFit(law, float(np.exp(height)), noise, _rms(logs - shape - height))

    # Beyond these the surge is a square root.
    low, high = np.log(size.min()) - 7, np.log(size.max()) + 7
    grid = np.linspace(low, high, 200)
    errors = [fitted("surge", float(np.exp(at))).error for at in grid]
    near = grid[int(np.argmin(errors))]
    best = minimize_scalar(
        lambda at: fitted("surge", float(np.exp(at))).error, bounds=(near - 0.2, near + 0.2), method="bounded"
    )
    fits = (fitted("linear"), fitted("square root"), fitted("surge", float(np.exp(best.x))))
    return tuple(sorted(fits, key=lambda fit: fit.error))


def slopes(batch_sizes: ArrayLike, steps: ArrayLike) -> Floats:
    """The local slopes d log S / d log B between neighbouring points, (points − 1,); −1 is perfect scaling."""
    size, step = np.asarray(batch_sizes, float), np.asarray(steps, float)
    found: Floats = np.diff(np.log(step)) / np.diff(np.log(size))
    return found


def _points(name: str, batch_sizes: ArrayLike, values: ArrayLike) -> tuple[Floats, Floats]:
    """Batch sizes and the logarithms of what is there at them."""
    size, value = np.asarray(batch_sizes, float), np.asarray(values, float)
    if size.shape != value.shape or size.ndim != 1 or not (size > 0).all() or (value <= 0).any():
        shapes = f"{list(size.shape)} batch sizes, {list(value.shape)} values"
        raise InputError(name, shapes, "must be two lists of positive numbers, as long as each other", "Give a list.")
    there = np.isfinite(value)
    if len(np.unique(size[there])) < 3:
        raise InputError(
            name,
            f"{len(np.unique(size[there]))} points",
            "needs 3 or more batch sizes that reached the target",
            "Use more batch sizes, longer budgets or an easier target.",
        )
    return size[there], np.log(value[there])


def _rms(residuals: Sequence[float] | Any) -> float:
    return float(np.sqrt(np.mean(np.square(residuals))))
