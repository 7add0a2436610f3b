"""The gradient noise scale: the batch size at which the noise of a gradient is as large as the gradient."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError, check_float, check_int
from hpjax.results.table import TrialTable

SIGNAL, TRACE, WHOLE = (f"train/gradient_noise/{name}" for name in ("signal", "trace", "batches"))


class NoiseScale(NamedTuple):
    """The noise of gradients beside their size; arrays, or numbers.

    S. McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, arXiv 1812.06162.

    Attributes:
      signal: |G|², the squared norm of the expected gradient.
      trace: tr Σ, the summed variance of the gradient of one example.
    """

    signal: Floats
    trace: Floats

    @property
    def simple(self) -> Floats:
        """B_simple = tr Σ / |G|², in examples; infinite where the estimate of |G|² is not positive."""
        signal, trace = np.asarray(self.signal, float), np.asarray(self.trace, float)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = np.where(signal > 0, trace / signal, np.where(np.isnan(signal), np.nan, np.inf))
        return found


def noise_scale(result: TrialTable, window: int = 1) -> NoiseScale:
    """The gradient noise scale of every lane over time, from microbatches that a sweep accumulated anyway.

    Args:
      result: of a program of ``hpx.supervised(microbatch=m, monitor=["gradient_noise"], ...)``.
      window: evaluations, this one and those before it, over which |G|² and tr Σ are averaged, each for itself: their
        ratio at single steps is far too noisy, and its mean is biased.

    Returns:
      Arrays (trials, replicates, evaluations), padded with NaN; each averages the steps since the evaluation before,
      NaN where no batch became whole since then.

    Raises:
      InputError: the result has none.

    Example:
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), optimizer=lambda h: optax.sgd(h.learning_rate), data=hpx.data.digits(),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, batch_size=64, microbatch=8, steps=20,
      ...     eval_every=80, monitor=["gradient_noise"])
      >>> result = hpx.Sweep(program, hpx.Space(learning_rate=0.1), trials=1).run(progress=False)
      >>> hpx.studies.noise_scale(result).simple.shape
      (1, 1, 2)
    """
    window = check_int("noise_scale.window", window)
    if SIGNAL not in result.metrics:
        allowed = "has no gradient noise"
        remedy = 'Give hpx.supervised microbatch=... and monitor=["gradient_noise"].'
        raise InputError("noise_scale.result", ", ".join(result.metrics), allowed, remedy)
    signal, trace, batches = (_sums(result.curves(name), window) for name in (SIGNAL, TRACE, WHOLE))
    with np.errstate(invalid="ignore"):
        return NoiseScale(*(np.where(batches > 0, sums / batches, np.nan) for sums in (signal, trace)))


def noise_scale_of(small: float, big: float, small_squares: ArrayLike, big_squares: ArrayLike) -> NoiseScale:
    """The gradient noise scale from squared norms of gradients at two batch sizes.

    Args:
      small, big: the batch sizes, in examples.
      small_squares, big_squares: squared norms of mean gradients over batches of these sizes, of any shape; averaged.

    Raises:
      InputError: the batch sizes are equal, or not positive.

    Example:
      >>> round(float(noise_scale_of(10, 100, [1.5, 1.3], [1.04]).simple), 3)
      4.0
    """
    for name, size in (("small", small), ("big", big)):
        check_float(f"noise_scale_of.{name}", size, 0)
    if small == big or min(small, big) == 0:
        raise InputError("noise_scale_of.big", big, f"must differ from {small}", "Use two batch sizes.")
    at_small, at_big = (float(np.mean(np.asarray(squares, float))) for squares in (small_squares, big_squares))
    signal = (big * at_big - small * at_small) / (big - small)
    trace = (at_small - at_big) / (1 / small - 1 / big)
    return NoiseScale(np.array(signal), np.array(trace))


def _sums(values: Floats, window: int) -> Floats:
    """Sums over the last ``window`` values of the last axis, fewer at its beginning."""
    sums = np.cumsum(values, axis=-1, dtype=float)
    sums[..., window:] = sums[..., window:] - sums[..., :-window]
    return sums
