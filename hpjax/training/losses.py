"""Losses whose numbers can be traced, one value an example; and penalties on parameters."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.training.measures import PerExample


def cross_entropy(*, smoothing: Any = 0.0, focal: Any = 0.0, weights: Sequence[Any] | None = None) -> PerExample:
    """The cross-entropy of logits (..., classes) against labels, as a loss for ``supervised``.

    Labels are integers (...), or probabilities (..., classes) as mixup makes them.

    Args:
      smoothing: share of the target that is spread over all classes, in [0, 1].
        C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
      focal: the exponent γ of (1 − p) that plays down what is right already, 0 or more.
        T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
      weights: one number a class, by which the loss of its examples is multiplied.

    Raises:
      InputError: a number outside its range.

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
        classes = logits.shape[-1]
        if weights is not None and len(weights) != classes:
            raise InputError(
                "cross_entropy.weights", len(weights), f"must be {classes} numbers, one a class", "Name them all."
            )
        log_p = jax.nn.log_softmax(logits)
        hard = labels.ndim < logits.ndim
        exact = jax.nn.one_hot(labels, classes, dtype=logits.dtype) if hard else labels
        target = exact * (1 - smoothing) + smoothing / classes
        # Where p is 1, the derivative of the factor must stay finite.
        wrong = jnp.maximum(1 - jnp.exp(log_p), 1e-30)
        values: jax.Array = -(target * wrong**focal * log_p).sum(-1)
        if weights is None:
            return values
        return values * (exact @ jnp.stack([jnp.asarray(weight, logits.dtype) for weight in weights]))

    return loss


def l1(params: Any) -> jax.Array:
    """The sum of all absolute values: it drives weights to zero. For ``supervised(penalty=...)``.

    Its derivative at 0 is 0, where that of ``jnp.abs`` is 1, which would move what a mask keeps at 0.

    R. Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.

    Example:
      >>> float(l1({"w": jnp.array([1.0, -2.0])}))
      3.0
    """
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda p: jnp.where(p == 0, 0, jnp.abs(p)).sum(), params))


def l2(params: Any) -> jax.Array:
    """The sum of all squares. For ``supervised(penalty=...)``; weight decay is the optimizer's.

    Example:
      >>> float(l2({"w": jnp.array([1.0, -2.0])}))
      5.0
    """
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda p: jnp.square(p).sum(), params))
