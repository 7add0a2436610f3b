"""Curves through points of a batch-scaling study: steps against batch size, and the best learning rate against it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError

# Below the first slope of the fit scaling counts as perfect, above the second a larger batch as useless.
PERFECT, FLAT = -0.9, -0.1
REGIMES = ("perfect scaling", "diminishing returns", "maximal data parallelism")


class StepsFit(NamedTuple):
    """Steps to a target against the batch size B: S = S_min (1 + B_crit/B).

    This is (S/S_min − 1)(E/E_min − 1) = 1 for E = S·B examples (McCandlish et al. 2018, arXiv 1812.06162), and
    log S = log(a + b/B) with a = S_min and b = S_min · B_crit (Zhang et al. 2024, arXiv 2410.21676).

    Attributes:
      minimum_steps: S_min, the limit of S for large batches.
      critical_batch_size: B_crit, in examples; there steps are twice S_min, and examples twice E_min.
      error: the root mean square error of the fit to log S.

    Example:
      >>> fit = StepsFit(minimum_steps=100.0, critical_batch_size=64.0, error=0.0)
      >>> fit.steps([64, 6400]).tolist()
      [200.0, 101.0]
      >>> fit.regime(64)
      'diminishing returns'
    """

    minimum_steps: float
    critical_batch_size: float
    error: float

    @property
    def minimum_examples(self) -> float:
        """E_min, the limit of the examples S·B for small batches."""
        return self.minimum_steps * self.critical_batch_size

    def steps(self, batch_size: ArrayLike) -> Floats:
        """Returns S at batch sizes, of the shape of these."""
        steps: Floats = self.minimum_steps * (1 + self.critical_batch_size / np.asarray(batch_size, float))
        return steps

    def slope(self, batch_size: ArrayLike) -> Floats:
        """Returns d log S / d log B at batch sizes: −1 for perfect scaling, 0 if a larger batch saves no steps."""
        return -1 / (1 + np.asarray(batch_size, float) / self.critical_batch_size)

    @property
    def diminishing(self) -> tuple[float, float]:
        """The batch sizes between which returns diminish: those with slopes of −0.9 and of −0.1."""
        low, high = (self.critical_batch_size * (-1 / slope - 1) for slope in (PERFECT, FLAT))
        return low, high

    def regime(self, batch_size: float) -> str:
        """Returns ``"perfect scaling"``, ``"diminishing returns"`` or ``"maximal data parallelism"``, by the slope.

        The limits are slopes of −0.9 and −0.1; see ``diminishing``.
        """
        low, high = self.diminishing
        return REGIMES[int(batch_size >= low) + int(batch_size > high)]

    def overhead_batch_size(self, reference: float, overhead: float = 0.2) -> float:
        """Returns the batch size that needs ``overhead`` more examples than a reference (Zhang et al. 2024).

        For their 20 % it is b/(5a) + 1.2 · reference.

        Args:
          reference: a batch size, in examples, small enough for perfect scaling.
          overhead: 0.2 for 20 %.

        Returns:
          A batch size in examples.
        """
        return overhead * self.critical_batch_size + (1 + overhead) * reference


def fit_steps(batch_sizes: ArrayLike, steps: ArrayLike) -> StepsFit:
    """Returns the fit S = S_min (1 + B_crit/B) with the least squared error of log S.

    Args:
      batch_sizes: (points,), in examples.
      steps: (points,), positive; an infinite or missing value leaves its point out.

    Raises:
      InputError: there are fewer than three batch sizes, or a number is not positive.

    Example:
      >>> round(fit_steps([8, 64, 512], [1100.0, 200.0, 87.5]).critical_batch_size, 1)
      115.2
    """
    from scipy.optimize import least_squares  # slow to import

    size, logs = _points("fit_steps", batch_sizes, steps)

    def residuals(logarithms: Floats) -> Floats:
        shortest, critical = np.exp(logarithms)
        off: Floats = np.log(shortest * (1 + critical / size)) - logs
        return off

    start = [logs.min(), np.log(np.sqrt(size.min() * size.max()))]
    # If scaling is perfect throughout, B_crit is not determined; if steps are constant, it tends to 0. Bounds keep both
    # parameters finite.
    far = np.log([np.finfo(float).tiny, np.finfo(float).max]) / 4
    found = least_squares(residuals, start, bounds=([far[0]] * 2, [far[1]] * 2), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    shortest, critical = np.exp(found.x)
    return StepsFit(float(shortest), float(critical), _rms(found.fun))


class RateFit(NamedTuple):
    """The best learning rate against the batch size, by one law; see ``fit_rates``.

    Attributes:
      law: ``"linear"``, ``"square root"`` or ``"surge"``.
      scale: the learning rate at B = 1 for the linear and the square-root law; the highest one for the surge law.
      noise_batch_size: B_noise of the surge law, at which the learning rate is highest; None for the other laws.
      error: the root mean square error of the fit to the logarithm of the learning rate.
    """

    law: str
    scale: float
    noise_batch_size: float | None
    error: float

    def rate(self, batch_size: ArrayLike) -> Floats:
        """Returns the learning rate at batch sizes, of the shape of these."""
        size = np.asarray(batch_size, float)
        rate: Floats = np.exp(np.log(self.scale) + LAWS[self.law](size / (self.noise_batch_size or 1)))
        return rate


# log(rate / scale) as a function of B, for the surge law of B / B_noise.
LAWS: dict[str, Callable[[Floats], Floats]] = {
    "linear": np.log,
    "square root": lambda size: np.log(size) / 2,
    "surge": lambda share: np.log(2 / (np.sqrt(1 / share) + np.sqrt(share))),
}


def fit_rates(batch_sizes: ArrayLike, rates: ArrayLike) -> tuple[RateFit, ...]:
    """Returns fits of the best learning rate by three laws, the least error of its logarithm first.

    Linear: c·B (Goyal et al. 2017, arXiv 1706.02677). Square root: c·√B (Krizhevsky 2014, arXiv 1404.5997). Surge:
    c / ½(√(B_noise/B) + √(B/B_noise)), which falls again beyond B_noise, as for Adam (Li et al. 2024, arXiv
    2405.14578).

    Args:
      batch_sizes: (points,), in examples.
      rates: (points,), positive; an infinite or missing value leaves its point out.

    Raises:
      InputError: there are fewer than three batch sizes, or a number is not positive.

    Example:
      >>> best, *others = fit_rates([16, 64, 256], [0.1, 0.4, 1.6])
      >>> best.law, round(float(best.rate(1024)), 3)
      ('linear', 6.4)
    """
    from scipy.optimize import minimize_scalar

    size, logs = _points("fit_rates", batch_sizes, rates)

    def fitted(law: str, noise: float | None = None) -> RateFit:
        shape = LAWS[law](size / (noise or 1))
        height = float(np.mean(logs - shape))
        return RateFit(law, float(np.exp(height)), noise, _rms(logs - shape - height))

    # For a B_noise beyond these limits the surge law is a square root, or its inverse. A grid first, since the error
    # may have several minima.
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
    """Returns the slopes d log S / d log B between neighbouring points, (points − 1,); −1 is perfect scaling."""
    size, step = np.asarray(batch_sizes, float), np.asarray(steps, float)
    found: Floats = np.diff(np.log(step)) / np.diff(np.log(size))
    return found


def _points(name: str, batch_sizes: ArrayLike, values: ArrayLike) -> tuple[Floats, Floats]:
    """Returns the batch sizes at which a value is finite, and the logarithms of these values."""
    size, value = np.asarray(batch_sizes, float), np.asarray(values, float)
    if size.shape != value.shape or size.ndim != 1 or not (size > 0).all() or (value <= 0).any():
        remedy = f"Write {name}([16, 64, 256], [0.9, 0.3, 0.2])."
        shapes = f"{list(size.shape)} batch sizes, {list(value.shape)} values"
        raise InputError(name, shapes, "must be two lists of positive numbers of one length", remedy)
    there = np.isfinite(value)
    if len(np.unique(size[there])) < 3:
        raise InputError(
            name,
            f"{len(np.unique(size[there]))} points",
            "needs 3 or more batch sizes that reached the target",
            "Write batch_sizes=[16, 32, 64, 128, 256], and train longer or to an easier target.",
        )
    return size[there], np.log(value[there])


def _rms(residuals: Sequence[float] | Any) -> float:
    return float(np.sqrt(np.mean(np.square(residuals))))
