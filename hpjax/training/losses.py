"""Losses whose numbers can be traced, with one value for each example; and penalties on parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.arrays import at_least_float32, squared
from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.training.measures import PerExample

__all__ = ["cross_entropy", "l1", "l2"]


def cross_entropy(*, smoothing: Any = 0.0, focal: Any = 0.0, weights: Sequence[Any] | None = None) -> PerExample:
    """Returns a cross-entropy loss for ``supervised``.

    Args:
      smoothing: the share of the target that is spread over all classes, in [0, 1].
        C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
      focal: the exponent γ of the factor (1 − p)^γ, which lowers the loss of examples that are classified well, 0 or
        more. T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
      weights: for each class the factor of its examples' loss, 0 or more; None for no factors.

    Each number may be float32 () where it is traced.

    Returns:
      ``loss(logits, labels)``: logits are float (..., classes); labels int (...), or probabilities (..., classes), as
      mixup makes them; the result is float (...), computed in float32 at least.

    Raises:
      InputError: a number lies outside its range, or ``weights`` has another length than the classes.

    Example:
      >>> loss = cross_entropy(smoothing=0.1)
      >>> loss(jnp.array([[2.0, 0.0]]), jnp.array([0])).shape
      (1,)
    """
    check_bounds("cross_entropy.smoothing", smoothing, 0, 1)
    check_bounds("cross_entropy.focal", focal, 0)

    for weight in weights or ():
        check_bounds("cross_entropy.weights", weight, 0)

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        logits, classes = at_least_float32(logits), logits.shape[-1]
        if weights is not None and len(weights) != classes:
            raise InputError(
                "cross_entropy.weights",
                len(weights),
                f"must be {classes} numbers, one a class",
                f"Write weights=[1.0] * {classes}.",
            )
        log_p = jax.nn.log_softmax(logits)
        hard = labels.ndim < logits.ndim
        exact = jax.nn.one_hot(labels, classes, dtype=logits.dtype) if hard else labels
        target = exact * (1 - smoothing) + smoothing / classes
        # Never 0, so that the derivative of the focal factor stays finite where p is 1.
        wrong = jnp.maximum(1 - jnp.exp(log_p), 1e-30)
        values: jax.Array = -(target * wrong**focal * log_p).sum(-1)
        if weights is None:
            return values
        return values * (exact @ jnp.stack([jnp.asarray(weight, logits.dtype) for weight in weights]))

    return loss


def l1(params: Any) -> jax.Array:
    """Returns the sum of all absolute values, for ``supervised(penalty=...)``; it drives weights to zero.

    Its derivative at 0 is 0. That of ``jnp.abs`` is 1 there, which would move weights that a mask keeps at 0.

    R. Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.

    Args:
      params: a pytree of float or complex arrays.

    Returns:
      Float (), float32 at least.

    Example:
      >>> float(l1({"w": jnp.array([1.0, -2.0])}))
      3.0
    """
    return _total(params, lambda p: jnp.where(p == 0, 0, jnp.abs(p)))


def l2(params: Any) -> jax.Array:
    """Returns the sum of all ``|p|²``, for ``supervised(penalty=...)``. Decoupled decay belongs to the optimizer.

    Args:
      params: a pytree of float or complex arrays.

    Returns:
      Float (), float32 at least.

    Example:
      >>> float(l2({"w": jnp.array([1.0, -2.0])}))
      5.0
    """
    return _total(params, squared)


def _total(params: Any, function: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Returns the sum of ``function`` of all numbers in a pytree, in float32 at least."""
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda p: function(at_least_float32(p)).sum(), params))
