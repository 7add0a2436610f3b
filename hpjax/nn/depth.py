"""A number of layers that can be traced."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.nn.masks import traced


def layers(block: Callable[[int, Any], Any], x: Any, count: Any, most: int) -> Any:
    """Returns ``x`` after the first ``count`` of ``most`` blocks: a depth that can be traced.

    Args:
      block: ``block(i, x)`` applies block ``i`` and keeps the shape and dtype of ``x``. It may create its layers, as in
        a compact Linen module, or use layers that exist.
      x: the input of the first block, an array.
      count: number of blocks to apply, 0 to ``most``; int32 () where it is traced: then all blocks are computed, and
        the results of the others are dropped. Where it is a number, the others are not built.
      most: the largest number of blocks; static.

    Returns:
      The output of the last block that is applied, with the shape and dtype of ``x``.

    Raises:
      InputError: ``count`` is negative or greater than ``most``.

    Example:
      >>> layers(lambda i, x: x * 2, jnp.ones(()), count=3, most=8)
      Array(8., dtype=float32)
    """
    check_bounds("layers.count", count, 0, most, masks=True)
    for i in range(most if traced(count) else int(count)):
        x = jnp.where(i < count, block(i, x), x) if traced(count) else block(i, x)
    return x
