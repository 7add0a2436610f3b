"""The gradient noise scale: the batch size at which the noise of a gradient is as large as the gradient itself."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError, check_float, check_int, did_you_mean
from hpjax.results.table import TrialTable

NOISE = "train/gradient_noise"


class NoiseScale(NamedTuple):
    """The noise of gradients and their size; arrays of one shape.

    S. McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, arXiv 1812.06162.

    Attributes:
      signal: ‖G‖², the squared norm of the expected gradient.
      trace: tr Σ, the variance of the gradient of one example, summed over parameters.

    Example:
      >>> float(NoiseScale(signal=np.array(0.5), trace=np.array(16.0)).simple)
      32.0
    """

    signal: Floats
    trace: Floats

    @property
    def simple(self) -> Floats:
        """B_simple = tr Σ / ‖G‖², in examples; infinite if the estimate of ‖G‖² is not positive."""
        signal, trace = np.asarray(self.signal, float), np.asarray(self.trace, float)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = np.where(signal > 0, trace / signal, np.where(np.isnan(signal), np.nan, np.inf))
        return found


def noise_scale(result: TrialTable, window: int = 1, layer: str | None = None) -> NoiseScale:
    """Returns the gradient noise scale of every replicate over time, from the microbatches that a sweep accumulated.

    Args:
      result: the result of a program of ``hpx.supervised(microbatch=m, monitor=["gradient_noise"], ...)``.
      window: how many evaluations, up to the present one, ‖G‖² and tr Σ are averaged over. Each is averaged for itself,
        since their ratio at single steps is far too noisy, and the mean of that ratio is biased.
      layer: the layer whose gradients are meant, ``"layers_0"``; None for all parameters, whose ‖G‖² and tr Σ are the
        sums over layers.

    Returns:
      Float arrays (trials, replicates, evaluations), padded with NaN. Each evaluation has the average over the steps
      since the one before; NaN if no batch was completed in between.

    Raises:
      InputError: the result has no gradient noise, or not of such a layer.

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
    if f"{NOISE}/signal" not in result.metrics:
        allowed = "must have train/gradient_noise"
        remedy = 'Write hpx.supervised(..., microbatch=8, monitor=["gradient_noise"]).'
        raise InputError("noise_scale.result", ", ".join(result.metrics), allowed, remedy)
    by_layer = [name.removeprefix(f"{NOISE}/") for name in result.metrics if name.startswith(f"{NOISE}/")]
    layers = [name.removesuffix("/signal") for name in by_layer if name.endswith("/signal")]
    if layer is not None and layer not in layers:
        remedy = did_you_mean(str(layer), layers)
        raise InputError("noise_scale.layer", layer, "must be a layer whose noise the program reports", remedy)
    of = NOISE if layer is None else f"{NOISE}/{layer}"
    names = f"{of}/signal", f"{of}/trace", f"{NOISE}/batches"
    signal, trace, batches = (_sums(result.curves(name), window) for name in names)
    with np.errstate(invalid="ignore"):
        return NoiseScale(*(np.where(batches > 0, sums / batches, np.nan) for sums in (signal, trace)))


def noise_scale_of(small: float, big: float, small_squares: ArrayLike, big_squares: ArrayLike) -> NoiseScale:
    """Returns the gradient noise scale from squared norms of gradients at two batch sizes.

    S. McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, arXiv 1812.06162, appendix A.1.

    Args:
      small, big: the batch sizes, in examples.
      small_squares, big_squares: squared norms of the mean gradients of batches of these sizes, of any shape; they are
        averaged.

    Returns:
      Arrays ().

    Raises:
      InputError: the batch sizes are equal, or not positive.

    Example:
      >>> round(float(noise_scale_of(10, 100, [1.5, 1.3], [1.04]).simple), 3)
      4.0
    """
    for name, size in (("small", small), ("big", big)):
        check_float(f"noise_scale_of.{name}", size, 0)
    if small == big or min(small, big) == 0:
        remedy = "Write noise_scale_of(8, 64, squares_of_8, squares_of_64)."
        raise InputError("noise_scale_of.big", big, f"must differ from {small}, and both be above 0", remedy)
    at_small, at_big = (float(np.mean(np.asarray(squares, float))) for squares in (small_squares, big_squares))
    signal = (big * at_big - small * at_small) / (big - small)
    trace = (at_small - at_big) / (1 / small - 1 / big)
    return NoiseScale(np.array(signal), np.array(trace))


def _sums(values: Floats, window: int) -> Floats:
    """Returns sums over the last ``window`` values of the last axis, over fewer at its beginning."""
    sums = np.cumsum(values, axis=-1, dtype=float)
    sums[..., window:] = sums[..., window:] - sums[..., :-window]
    return sums
