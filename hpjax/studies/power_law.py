"""Power laws, such as that of the critical batch size over the size of the data, with bootstrap intervals."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError, check_float, check_int
from hpjax.results.analysis import Estimate


class PowerLaw(NamedTuple):
    """The law y = coefficient · x ** exponent.

    Attributes:
      coefficient, exponent: each with its interval.
      error: the root mean square error of the fit to log y.

    Example:
      >>> estimate = hpx.analysis.Estimate
      >>> law = PowerLaw(estimate(2.0, 1.8, 2.2), estimate(0.5, 0.45, 0.55), error=0.0)
      >>> law(np.array([1.0, 4.0, 100.0])).tolist()
      [2.0, 4.0, 20.0]
    """

    coefficient: Estimate
    exponent: Estimate
    error: float

    def __call__(self, x: ArrayLike) -> Floats:
        """Returns y at some x, of the shape of these."""
        y: Floats = self.coefficient.value * np.asarray(x, float) ** self.exponent.value
        return y

    def __str__(self) -> str:
        return f"{self.coefficient} · x ** {self.exponent}"


def fit_power_law(
    x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> PowerLaw:
    """Returns the power law through points: the line of least squares through their logarithms.

    Intervals are those of a bootstrap. Where each point has several values, as of seeds, it draws among the values of
    each point; where it has one alone, it draws points.

    This is how H. Zhang et al., "How Does Critical Batch Size Scale in Pre-training?", 2024, arXiv 2410.21676, find
    that the critical batch size grows as the number of training tokens to the 0.47.

    Args:
      x: (points,), positive, three different ones at least, such as tokens or parameters.
      y: (points,), or (points, values), positive, such as critical batch sizes. The law is that of the mean of the
        logarithms of several values.
      confidence: of the intervals.
      resamples: how many.
      seed: of the resamples.

    Raises:
      InputError: there are fewer than three different x, or a number is not positive and finite.

    Example:
      >>> tokens = np.array([1e6, 4e6, 16e6, 64e6])
      >>> law = fit_power_law(tokens, 3 * tokens**0.5)
      >>> round(law.coefficient.value, 6), round(law.exponent.value, 6)
      (3.0, 0.5)
    """
    confidence = check_float("fit_power_law.confidence", confidence, 0.0, 1.0)
    resamples = check_int("fit_power_law.resamples", resamples, least=100)
    x, y = _positive("x", x), _positive("y", y)
    if x.ndim != 1 or y.ndim not in (1, 2) or len(y) != len(x):
        allowed = "must be (points,) or (points, values), and x (points,)"
        raise InputError("fit_power_law.y", f"{x.shape} and {y.shape}", allowed, "Write fit_power_law(x, y).")
    if len(np.unique(x)) < 3:
        allowed = "must have three different ones at least: through two any law goes"
        raise InputError("fit_power_law.x", x.tolist(), allowed, "Give a third size.")
    logs, values = np.log(x), np.log(y).reshape(len(x), -1)
    line = np.stack(_line(logs, values.mean(axis=1)))
    drawn = _resampled(logs, values, resamples, np.random.default_rng(seed))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    intercept, slope = (Estimate(float(v), float(a), float(b)) for v, a, b in zip(line, low, high, strict=True))
    error = float(np.sqrt(np.mean((values.mean(axis=1) - line[0] - line[1] * logs) ** 2)))
    return PowerLaw(Estimate(*np.exp(intercept).tolist()), slope, error)


def _positive(name: str, given: ArrayLike) -> Floats:
    try:
        found = np.asarray(given, float)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if not (found.size and np.isfinite(found).all() and (found > 0).all()):
        allowed = "must be positive and finite numbers, which have logarithms"
        raise InputError(f"fit_power_law.{name}", str(given)[:100], allowed, "Leave out the points without a value.")
    return found


def _line(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Returns intercept and slope of the line of least squares through points along the last axis."""
    mean_x, mean_y = x.mean(axis=-1), y.mean(axis=-1)
    centered = x - mean_x[..., None]
    slope = (centered * (y - mean_y[..., None])).sum(axis=-1) / (centered**2).sum(axis=-1)
    return mean_y - slope * mean_x, slope


def _resampled(x: Floats, values: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Returns intercepts and slopes, (2, resamples), of lines through resampled points."""
    points, many = values.shape
    if many > 1:
        drawn = rng.integers(0, many, (resamples, points, many))
        means = np.take_along_axis(values[None], drawn, axis=2).mean(axis=2)
        return np.stack(_line(x[None], means))
    drawn = rng.integers(0, points, (resamples, points))
    some = np.ptp(x[drawn], axis=1) > 0  # a resample of one point alone has no slope
    return np.stack(_line(x[drawn][some], values[:, 0][drawn][some]))
