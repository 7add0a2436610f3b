"""Metrics of a batch: functions of (outputs, y) that give one value an example, shape (batch,)."""

import jax
import jax.numpy as jnp

from hpjax.core.errors import InputError
from hpjax.training.host_metric import on_host

__all__ = ["absolute_error", "accuracy", "on_host", "squared_error", "top_k"]


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's: logits (..., classes), labels int (...) to float (...).

    Example:
      >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1]))
      Array([1., 0.], dtype=float32)
    """
    return (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)


def top_k(k: int):  # type: ignore[no-untyped-def]
    """A metric that is 1 where the label is among the ``k`` largest logits."""

    def metric(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.any(jax.lax.top_k(logits, k)[1] == labels[..., None], axis=-1).astype(logits.dtype)

    return metric


def squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The squared difference, averaged over all axes but the first: (batch, ...) to (batch,)."""
    return jnp.square(_difference(outputs, y)).reshape(len(y), -1).mean(-1)


def absolute_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The absolute difference, averaged over all axes but the first: (batch, ...) to (batch,)."""
    return jnp.abs(_difference(outputs, y)).reshape(len(y), -1).mean(-1)


def _difference(outputs: jax.Array, y: jax.Array) -> jax.Array:
    if jnp.shape(outputs) != jnp.shape(y):
        raise InputError(
            "outputs",
            jnp.shape(outputs),
            f"must have the shape of y, {jnp.shape(y)}",
            "Let the model give outputs[:, 0], or give y a last axis: y[:, None].",
        )
    return outputs - y
