"""Metrics of a batch: functions of (outputs, y) that return one value for each example, shape (batch,)."""

from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.arrays import at_least_float32
from hpjax.core.errors import InputError
from hpjax.training.host_metric import on_host

__all__ = ["absolute_error", "accuracy", "on_host", "squared_error", "top_k"]


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns 1 where the largest logit is that of the label, else 0.

    Args:
      logits: float (..., classes).
      labels: int (...), each below ``classes``.

    Returns:
      1.0 or 0.0, float32 at least, (...).

    Example:
      >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1]))
      Array([1., 0.], dtype=float32)
    """
    return (jnp.argmax(logits, axis=-1) == labels).astype(_float_of(logits))


def top_k(k: int):  # type: ignore[no-untyped-def]
    """Returns a metric that is 1 where the logit of the label is among the ``k`` largest, else 0.

    Args:
      k: number of logits, at most the number of classes.

    Returns:
      ``metric(logits, labels)`` as ``accuracy``.

    Example:
      >>> top_k(2)(jnp.array([[0.1, 0.9, 0.5], [0.8, 0.2, 0.4]]), jnp.array([2, 1]))
      Array([1., 0.], dtype=float32)
    """

    def metric(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.any(jax.lax.top_k(logits, k)[1] == labels[..., None], axis=-1).astype(_float_of(logits))

    return metric


def squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Returns (outputs − y)², averaged over all axes but the first.

    Args:
      outputs, y: float (batch, ...), of equal shapes.

    Returns:
      Float (batch,), float32 at least.

    Raises:
      InputError: the shapes differ.

    Example:
      >>> squared_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
      Array([0., 4.], dtype=float32)
    """
    return jnp.square(_difference(outputs, y)).reshape(len(y), -1).mean(-1)


def absolute_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Returns ``|outputs − y|``, averaged over all axes but the first.

    Args:
      outputs, y: float (batch, ...), of equal shapes.

    Returns:
      Float (batch,), float32 at least.

    Raises:
      InputError: the shapes differ.

    Example:
      >>> absolute_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
      Array([0., 2.], dtype=float32)
    """
    return jnp.abs(_difference(outputs, y)).reshape(len(y), -1).mean(-1)


def _float_of(array: jax.Array) -> Any:
    """Returns the dtype of an array of floats, float32 at least."""
    return jnp.promote_types(array.dtype, jnp.float32)


def _difference(outputs: jax.Array, y: jax.Array) -> jax.Array:
    if jnp.shape(outputs) != jnp.shape(y):
        raise InputError(
            "outputs",
            jnp.shape(outputs),
            f"must have the shape of y, {jnp.shape(y)}",
            "Return outputs[:, 0] from the model, or write y[:, None] in the data.",
        )
    return at_least_float32(outputs) - at_least_float32(y)
