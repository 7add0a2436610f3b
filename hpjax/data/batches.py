"""Which examples a batch holds: epochs without replacement, and the folds of cross-validation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hpjax.core.errors import InputError
from hpjax.core.program import Data
from hpjax.data.examples import examples_in, take
from hpjax.data.shuffle import round_keys, shuffled
from hpjax.data.windows import Windows


def pool(data: Data) -> Any:
    """Returns the examples of the train and valid splits in one shuffled pool, from which folds are taken.

    The order is that of ``numpy.random.default_rng(0).permutation(examples)``. Fold ``f`` of ``k`` is the ``f``-th of
    ``k`` consecutive blocks; where ``k`` does not divide the pool, the first blocks are one example longer, as in
    scikit-learn's ``KFold``.

    Args:
      data: the splits, pytrees of arrays (examples, ...).

    Returns:
      A pytree like ``data.train``, of arrays (train + valid examples, ...).

    Raises:
      InputError: ``data.valid`` is another pytree than ``data.train``, for example of several validation sets; or the
        splits are windows of tokens.

    Example:
      >>> pool(hpx.data.digits()).x.shape
      (1527, 64)
    """
    check_poolable(data)
    both = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)]), data.train, data.valid)
    order = np.random.default_rng(0).permutation(examples_in(both))
    return jax.tree.map(lambda a: a[order], both)


def check_poolable(data: Data) -> None:
    """Raises ``InputError`` if splits are windows, or ``data.valid`` is several sets or unlike ``data.train``."""
    if any(isinstance(split, Windows) for split in (data.train, data.valid)):
        allowed = "must be examples to be cut into folds: in windows of one text each fold is beside the others"
        raise InputError("data", data.name, allowed, "Leave folds out, or give other texts: valid={name: array}.")
    if jax.tree.structure(data.train) != jax.tree.structure(data.valid):  # type: ignore[operator]
        found = list(data.valid) if isinstance(data.valid, Mapping) else type(data.valid).__name__
        allowed = f"must be one set like data.train, {type(data.train).__name__}: folds are cut from both together"
        remedy = "Leave folds out, or give one validation set, with weights if train has them."
        raise InputError("data.valid", found, allowed, remedy)


class Fold(NamedTuple):
    """The place of a fold in the pool, in numbers that may be traced.

    Attributes:
      start: index of its first example, int32 ().
      size: number of its examples, int32 ().
    """

    start: Any
    size: Any

    @classmethod
    def of(cls, fold: Any, folds: int, examples: int) -> "Fold":
        """Returns fold ``fold``, from 0, of ``folds`` in a pool of so many ``examples``."""
        size, longer = divmod(examples, folds)
        one_more = fold < longer  # of a known fold a number, from which shapes may follow
        return cls(
            fold * size + jnp.minimum(fold, longer),
            size + (one_more.astype(jnp.int32) if isinstance(one_more, jax.Array) else one_more),
        )


def drawn(key: jax.Array, first: jax.Array, count: int, train: Any, fold: tuple[Any, int] | None) -> Any:
    """Returns the training examples at some positions of the endless sequence of epochs.

    Args:
      key: the key of the purpose ``"batch"``, shape ().
      first, count: the positions in the sequence, as for ``examples_at``.
      train: a pytree of arrays (examples, ...): the training split, or with folds the whole pool.
      fold: the number of the fold that is left out, and the number of folds; None without folds.

    Returns:
      A pytree like ``train``, of arrays (count, ...).
    """
    everything = examples_in(train)
    if fold is None:
        index = examples_at(key, first, count, everything)
    else:
        out = Fold.of(*fold, everything)
        index = examples_at(key, first, count, everything - out.size)
        # Indices skip the fold, which is the lane's validation split.
        index = jnp.where(index < jnp.uint32(out.start), index, index + jnp.uint32(out.size))
    return take(train, index)


def batch_indices(key: jax.Array, step: int | jax.Array, examples: int, batch_size: int) -> jax.Array:
    """Returns the examples of one step's batch, drawn epoch by epoch without replacement.

    Epochs follow each other without a gap: a batch that begins at the end of an epoch is filled up from the next one.
    So every batch is full, and every example is drawn exactly once an epoch.

    Args:
      key: the key of the purpose ``"batch"``, shape (); the order of every epoch derives from it.
      step: the number of the step, int32 (), from 0.
      examples: number of examples in the training split.
      batch_size: number of examples in a batch, at most ``examples``; ``(step + 1) × batch_size`` must stay below 2³².

    Returns:
      Indices of examples, uint32 (batch_size,), each below ``examples``.

    Raises:
      InputError: ``batch_size`` is more than ``examples``.

    Example:
      >>> sorted(batch_indices(jax.random.key(0), 0, examples=4, batch_size=4).tolist())
      [0, 1, 2, 3]
    """
    if batch_size > examples:
        remedy = "Write a smaller batch_size."
        raise InputError("batch_size", batch_size, f"must be at most the number of examples, {examples}", remedy)
    return examples_at(key, jnp.asarray(step, jnp.uint32) * jnp.uint32(batch_size), batch_size, examples)


def examples_at(key: jax.Array, first: jax.Array, count: int, examples: Any) -> jax.Array:
    """Returns the examples at consecutive positions of the endless sequence of epochs.

    Args:
      key: the key of the purpose ``"batch"``, shape ().
      first: the first position in the sequence, uint32 (), from 0.
      count: how many positions, at most ``examples``.
      examples: number of examples in the training split, an int or int32 ().

    Returns:
      Indices of examples, uint32 (count,), each below ``examples``.
    """
    first, examples = jnp.asarray(first, jnp.uint32), jnp.asarray(examples, jnp.uint32)
    # At most ``examples`` consecutive positions lie in at most two epochs, so that the first one tells of all.
    index = lax.rem(first, examples) + jnp.arange(count, dtype=jnp.uint32)
    later = index >= examples
    epochs = lax.div(first, examples) + jnp.arange(2, dtype=jnp.uint32)
    keys = jax.vmap(lambda epoch: round_keys(jax.random.fold_in(key, epoch), examples))(epochs)
    found: jax.Array = shuffled(jnp.where(later, index - examples, index), later, keys, examples)
    return found
