"""Metrics: functions of (outputs, y) with one value for each example, (batch,), or one for a whole split, ()."""

from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.arrays import at_least_float32, squared
from hpjax.core.errors import InputError
from hpjax.training.host_metric import on_host

__all__ = ["absolute_error", "accuracy", "auc", "f1", "on_host", "squared_error", "top_k"]


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
    """Returns ``|outputs − y|²``, averaged over all axes but the first.

    Args:
      outputs, y: float or complex (batch, ...), of equal shapes.

    Returns:
      Float (batch,), float32 at least.

    Raises:
      InputError: the shapes differ.

    Example:
      >>> squared_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
      Array([0., 4.], dtype=float32)
    """
    return squared(_difference(outputs, y)).reshape(len(y), -1).mean(-1)


def absolute_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Returns ``|outputs − y|``, averaged over all axes but the first.

    Args:
      outputs, y: float or complex (batch, ...), of equal shapes.

    Returns:
      Float (batch,), float32 at least.

    Raises:
      InputError: the shapes differ.

    Example:
      >>> absolute_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
      Array([0., 2.], dtype=float32)
    """
    return jnp.abs(_difference(outputs, y)).reshape(len(y), -1).mean(-1)


def auc(outputs: jax.Array, y: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Returns the area under the ROC curve of two classes, for ``supervised(split_metrics=...)``.

    It is the share of pairs of a positive and a negative example in which the positive one has the larger output, ties
    counting half (H. B. Mann and D. R. Whitney, 1947): exact, in O(n log n).

    Args:
      outputs: float (...), larger for class 1, as logits or probabilities are; or logits of both classes, (..., 2).
      y: labels 0 and 1, (...).
      weights: what each example counts, float with a leading part of the axes of ``y``; None for equal weights.

    Returns:
      Float32 (), in [0, 1]; NaN where one of the classes is missing, which counts as divergence of the lane.

    Raises:
      InputError: outputs and labels have other shapes.

    Example:
      >>> auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1]))
      Array(0.75, dtype=float32)
    """
    outputs = at_least_float32(outputs)
    if _classes(outputs, y, most=2) == 2:
        outputs = outputs[..., 1] - outputs[..., 0]
    scores, labels, each = outputs.reshape(-1), y.reshape(-1), _flat_weights(weights, y)
    positive = jnp.where(labels == 1, each, 0)
    order = jnp.argsort(scores)
    ranked, negative = scores[order], jnp.where(labels == 1, 0, each)[order]
    below = jnp.concatenate([jnp.zeros(1, negative.dtype), jnp.cumsum(negative)])
    # Negatives with a smaller score, and those with at most this score: a tie is half of both.
    less, at_most = (below[jnp.searchsorted(ranked, scores, side=side)] for side in ("left", "right"))
    # Its last bits may bring a quotient of rounded sums above 1.
    return jnp.minimum((positive * (less + at_most) / 2).sum() / (positive.sum() * negative.sum()), 1)


def f1(outputs: jax.Array, y: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Returns the F1 score, 2 TP / (2 TP + FP + FN), for ``supervised(split_metrics=...)``.

    Args:
      outputs: logits: float (...), positive for class 1; or (..., classes). With two classes the score is that of
        class 1, with more the mean over the classes that occur in ``y`` or are predicted (macro F1).
      y: labels, int (...).
      weights: as for ``auc``.

    Returns:
      Float32 (), in [0, 1]; 0 where class 1 is neither there nor predicted.

    Raises:
      InputError: outputs and labels have other shapes.

    Example:
      >>> f1(jnp.array([2.0, -1.0, 3.0, -2.0]), jnp.array([1, 1, 1, 0]))
      Array(0.8, dtype=float32)
    """
    classes = _classes(outputs, y)
    found = (outputs > 0).reshape(-1) if classes == 1 else jnp.argmax(outputs, -1).reshape(-1)
    labels, each = y.reshape(-1), _flat_weights(weights, y)[:, None]
    every = jnp.arange(max(classes, 2))[None]
    true, given = (jnp.where(of[:, None] == every, each, 0) for of in (labels, found))
    hits, of_both = jnp.minimum(true, given).sum(0), true.sum(0) + given.sum(0)
    scores = 2 * hits / jnp.where(of_both > 0, of_both, 1)
    return scores[1] if classes <= 2 else scores.sum() / (of_both > 0).sum(dtype=scores.dtype)


def _classes(outputs: jax.Array, y: jax.Array, most: int | None = None) -> int:
    """Returns the number of logits of each label, 1 where there is one output for each."""
    if outputs.shape[: y.ndim] == y.shape and outputs.ndim == y.ndim + 1 and most in (None, 1, outputs.shape[-1]):
        return outputs.shape[-1]
    if outputs.size == y.size and outputs.shape[0] == y.shape[0]:
        return 1
    allowed = f"must have the shape of y, {jnp.shape(y)}, or one axis more, of {most or 'the'} classes"
    raise InputError("outputs", jnp.shape(outputs), allowed, "Return outputs[:, 0] from the model, or one class more.")


def _flat_weights(weights: jax.Array | None, y: jax.Array) -> jax.Array:
    """Returns the weight of each label, float (labels,)."""
    if weights is None:
        return jnp.ones(y.size, jnp.float32)
    wide = at_least_float32(weights).reshape(*weights.shape, *(1,) * (y.ndim - weights.ndim))
    return jnp.broadcast_to(wide, y.shape).reshape(-1)


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
