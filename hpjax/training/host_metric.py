"""Metrics that NumPy computes on the host, in the middle of a compiled program."""

import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from numpy.typing import NDArray

from hpjax.core.format import show


def on_host(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], jax.Array]:
    """A function of NumPy arrays as a metric for ``supervised(metrics=...)``: what scikit-learn has, for example.

    It is slow: every lane calls it on its own, at every step and every part of an evaluation, one after the other, and
    the device waits. Where it raises, or gives another shape, its values are NaN: that lane diverges, its neighbours
    keep every bit, and the first time a ``RuntimeWarning`` names the error. It must not call JAX.

    Args:
      function: ``function(outputs, y)``, of one lane's batch: NumPy arrays or pytrees of them, (batch, ...). It gives
        one value an example, (batch,), or one for the batch, which then counts for each of its examples: over several
        parts of a split (``eval_batch_size``) their mean, the last one filled up with its last example.

    Returns:
      A metric whose values are real numbers of JAX's default type, (batch,); it has no gradient.

    Example:
      >>> metric = on_host(lambda outputs, y: np.median(np.abs(outputs - y)))
      >>> metric(jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 1.0, 1.0]))
      Array([1., 1., 1.], dtype=float32)
    """
    told = threading.Lock()

    def safely(outputs: Any, y: Any, count: int, dtype: Any) -> NDArray[Any]:
        try:
            values = np.asarray(function(outputs, y), dtype)
            if values.shape not in ((), (count,)):
                raise ValueError(f"it gave {list(values.shape)}, and must give [] or [{count}]")
            return np.broadcast_to(values, (count,))
        except Exception as error:
            if told.acquire(blocking=False):  # the lock is never released: one warning is enough
                _warn(function, error)
            return np.full((count,), np.nan, dtype)

    def metric(outputs: Any, y: Any) -> jax.Array:
        leaves, tree = jax.tree.flatten(jax.lax.stop_gradient((outputs, y)))
        values = jax.ShapeDtypeStruct(jax.tree.leaves(y)[0].shape[:1], jnp.result_type(float))

        def compute(*leaves: Any) -> NDArray[Any]:
            outputs, y = jax.tree.unflatten(tree, [np.asarray(leaf).copy() for leaf in leaves])
            return safely(outputs, y, values.shape[0], values.dtype)

        def fill(_: Any, out: Any, *leaves: Any) -> None:
            np.asarray(out)[...] = compute(*leaves)

        # On CPUs pure_callback hangs where all threads of XLA wait for the copies of large arguments that it makes.
        found: jax.Array = jax.lax.platform_dependent(
            *leaves,
            cpu=lambda *leaves: buffer_callback(fill, values, vmap_method="sequential")(*leaves),
            default=lambda *leaves: jax.pure_callback(compute, values, *leaves, vmap_method="sequential"),
        )
        return found

    metric.__name__ = show(function)
    return metric


def _warn(function: Callable[..., Any], error: Exception) -> None:
    """Warns of an error at the user's line: the one that we called, or where there is none our own."""
    frames = traceback.extract_tb(error.__traceback__)
    where = frames[min(1, len(frames) - 1)]
    message = (
        f"metric {show(function)} fails: {type(error).__name__}: {error}. Lanes in which it does count as diverged."
    )
    warnings.warn_explicit(message, RuntimeWarning, where.filename, where.lineno or 0)


__all__ = ["on_host"]
