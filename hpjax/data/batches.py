"""Which examples a batch holds: epochs without replacement, and folds of a pool."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.program import Data
from hpjax.data.examples import examples_in
from hpjax.data.shuffle import round_keys, shuffled


def pool(data: Data) -> Any:
    """The examples of the train and valid splits together, in an order of their own: what folds are cut from.

    The order is that of ``numpy.random.default_rng(0).permutation(examples)``; fold ``f`` of ``k`` is the ``f``-th of
    ``k`` consecutive blocks, the first ones an example longer where ``k`` does not divide, as in scikit-learn's KFold.
    """
    both = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)]), data.train, data.valid)
    order = np.random.default_rng(0).permutation(examples_in(both))
    return jax.tree.map(lambda a: a[order], both)


class Fold(NamedTuple):
    """Where a fold lies in the pool; numbers that may be traced.

    Attributes:
      start: its first example.
      size: how many it holds.
    """

    start: Any
    size: Any

    @classmethod
    def of(cls, fold: Any, folds: int, examples: int) -> "Fold":
        """Fold number ``fold`` of ``folds``, in a pool of ``examples``."""
        size, longer = divmod(examples, folds)
        return cls(fold * size + jnp.minimum(fold, longer), size + (fold < longer))


def batch_indices(key: jax.Array, step: int | jax.Array, examples: int, batch_size: int) -> jax.Array:
    """Which examples the batch of one step holds: without replacement, epoch by epoch, none dropped.

    Epochs follow each other without a gap: a batch that an epoch does not fill goes on with the next one,
    so every batch is full and every example comes exactly once an epoch.

    Args:
      key: the key of the purpose ``"batch"``; the order of every epoch derives from it.
      step: int32 (), from 0.
      examples: size of the training split.
      batch_size: at most ``examples``; ``(step + 1) × batch_size`` must stay below 2³².

    Returns:
      uint32 (batch_size,), each below ``examples``.

    Example:
      >>> sorted(batch_indices(jax.random.key(0), 0, examples=4, batch_size=4).tolist())
      [0, 1, 2, 3]
    """
    place = jnp.asarray(step, jnp.uint32) * jnp.uint32(batch_size) + jnp.arange(batch_size, dtype=jnp.uint32)
    return examples_at(key, place, examples)


def examples_at(key: jax.Array, place: jax.Array, examples: Any, most: int | None = None) -> jax.Array:
    """Which examples stand at these places of the endless row of epochs that batches are cut from.

    Args:
      key: as for ``batch_indices``.
      place: int (places,), consecutive, from 0; no more than ``examples``.
      examples: size of the training split, which may be traced.
      most: its upper bound where it is traced.

    Returns:
      uint32 (places,), each below ``examples``.
    """
    place, examples = jnp.asarray(place, jnp.uint32), examples if most is None else jnp.asarray(examples, jnp.uint32)
    epoch, index = place // examples, place % examples
    this, following = (round_keys(jax.random.fold_in(key, epoch[0] + e)) for e in (0, 1))
    return shuffled(index, jnp.where((epoch == epoch[0])[:, None], this, following), examples, most)
