"""Metrics that NumPy computes on the host, called from a compiled program."""

import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from hpjax.core.arrays import Array, at_least_float32
from hpjax.core.format import show


def on_host(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], jax.Array]:
    """Returns a metric for ``supervised(metrics=...)`` that calls a function of NumPy arrays, such as scikit-learn's.

    It is slow: the function is called for each lane separately, at every step and for every part of an evaluation, and
    the device waits. If the function raises an error or returns another shape, its values are NaN: that lane diverges,
    its neighbours keep every bit, and a ``RuntimeWarning`` names the first error. The function must not call JAX.

    Args:
      function: ``function(outputs, y)`` of one lane's batch: NumPy arrays (batch, ...) or pytrees of them, of which
        bfloat16 and other narrow floats are float32. It returns
        one value for each example, (batch,), or one value for the batch, (), which then counts for each of its
        examples. Where a split is evaluated in several parts (``eval_batch_size``), such values are averaged over the
        parts; the last part is filled up with copies of its last example.

    Returns:
      ``metric(outputs, y)`` whose values are floats of JAX's default dtype, (batch,); its gradient is 0.

    Example:
      >>> metric = on_host(lambda outputs, y: np.median(np.abs(outputs - y)))
      >>> metric(jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 1.0, 1.0]))
      Array([1., 1., 1.], dtype=float32)
    """
    warned = threading.Lock()

    def safely(outputs: Any, y: Any, count: int, dtype: Any) -> Array:
        try:
            values = np.asarray(function(outputs, y), dtype)
            if values.shape not in ((), (count,)):
                raise ValueError(f"it returned shape {list(values.shape)}, and must return [] or [{count}]")
            return np.broadcast_to(values, (count,))
        except Exception as error:
            if warned.acquire(blocking=False):  # never released, so that only the first error is reported
                _warn(function, error)
            return np.full((count,), np.nan, dtype)

    def metric(outputs: Any, y: Any) -> jax.Array:
        leaves, tree = jax.tree.flatten(jax.tree.map(at_least_float32, jax.lax.stop_gradient((outputs, y))))
        values = jax.ShapeDtypeStruct(jax.tree.leaves(y)[0].shape[:1], jnp.result_type(float))

        def compute(*leaves: Any) -> Array:
            outputs, y = jax.tree.unflatten(tree, [np.asarray(leaf).copy() for leaf in leaves])
            return safely(outputs, y, values.shape[0], values.dtype)

        def fill(_: Any, out: Any, *leaves: Any) -> None:
            np.asarray(out)[...] = compute(*leaves)

        # On CPUs pure_callback copies large arguments in XLA's own threads, and hangs if all of these wait for a copy.
        found: jax.Array = jax.lax.platform_dependent(
            *leaves,
            cpu=lambda *leaves: buffer_callback(fill, values, vmap_method="sequential")(*leaves),
            default=lambda *leaves: jax.pure_callback(compute, values, *leaves, vmap_method="sequential"),
        )
        return found

    metric.__name__ = show(function)
    return metric


def _warn(function: Callable[..., Any], error: Exception) -> None:
    """Warns of an error, at the line of the user's function that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    # The first frame is ours; the second is the user's function, unless that is written in C and has no frame.
    where = frames[min(1, len(frames) - 1)]
    message = (
        f"metric {show(function)} fails: {type(error).__name__}: {error}. Lanes in which it fails count as diverged."
    )
    warnings.warn_explicit(message, RuntimeWarning, where.filename, where.lineno or 0)


__all__ = ["on_host"]
