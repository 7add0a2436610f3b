"""A number of layers that may be traced."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.nn.masks import traced


def layers(block: Callable[[int, Any], Any], x: Any, count: Any, most: int) -> Any:
    """``x`` after the first ``count`` of ``most`` blocks: the depth as a traced hyperparameter.

    Args:
      block: ``block(i, x)``, which keeps the shape and dtype of ``x``; it makes its layers, or has them.
      x: array.
      count: how many blocks count, 0 to ``most``. Where it is a number, the others are not built at all.
      most: how many there are; static.

    Raises:
      InputError: ``count`` is greater than ``most``, or negative.

    Example:
      >>> layers(lambda i, x: x * 2, jnp.ones(()), count=3, most=8)
      Array(8., dtype=float32)
    """
    check_bounds("layers.count", count, 0, most, masks=True)
    for i in range(most if traced(count) else int(count)):
        x = jnp.where(i < count, block(i, x), x) if traced(count) else block(i, x)
    return x
