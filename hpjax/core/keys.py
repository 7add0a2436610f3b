"""Random keys that derive from names: the sweep's seed, the replicate, the purpose and the step.

With ``randomness="independent"`` a key derives from the trial id, too; never from a lane's slot, its group or its
device. So a plain loop can draw the very noise that a lane saw:

Example:
  >>> lane = lane_key(seed=0, replicate=2)
  >>> weights = jax.random.normal(purpose_key(lane, "init"), (64, 10))
  >>> dropout = step_key(purpose_key(lane, "step"), 17)
"""

from typing import Literal

import jax
import numpy as np

from hpjax.core.arrays import Array, Ints
from hpjax.core.threefry import fast, hashed, plain

__all__ = ["lane_key", "purpose_key", "step_key"]

# The numbers are part of the format: changing one changes the bits of every recorded run.
PURPOSES = {"init": 0, "batch": 1, "step": 2, "evaluate": 3, "artifacts": 4, "inspect": 5}

Purpose = Literal["init", "batch", "step", "evaluate", "artifacts", "inspect"]
Int = int | jax.Array


def lane_key(seed: Int, replicate: Int, trial: Int | None = None) -> jax.Array:
    """Returns the key of one lane, from which all its random numbers derive.

    Args:
      seed: the seed of the sweep, int32 ().
      replicate: the number of the replicate, int32 (), from 0.
      trial: the trial id, int32 (), with ``randomness="independent"``; by default None: every trial of a replicate
        then sees the same noise, so that comparisons between trials are paired.

    Returns:
      A typed threefry key, shape ().

    Example:
      >>> lane_key(seed=0, replicate=2).shape
      ()
    """
    # The implementation is named: with rbg keys under vmap a lane's numbers would depend on its neighbours.
    key = jax.random.fold_in(fast(jax.random.key(seed, impl="threefry2x32")), replicate)
    return plain(key if trial is None else jax.random.fold_in(key, trial))


def lane_keys(seed: int, replicate: Ints, trial: Ints | None = None) -> Array:
    """Returns the data of ``lane_key`` for many lanes, computed on the host.

    Args:
      seed: the seed of the sweep.
      replicate: the replicate of each lane, int32 (...).
      trial: the trial id of each, int32 (...), with ``randomness="independent"``.

    Returns:
      uint32 (..., 2).
    """
    key = np.zeros(1, np.uint32), np.array([seed], np.uint32)
    for number in (replicate,) if trial is None else (replicate, trial):
        key = hashed(*key, np.asarray(number).astype(np.uint32).reshape(-1))
    return np.stack(key, axis=-1).reshape(*np.shape(replicate), 2)


def purpose_key(lane: jax.Array, purpose: Purpose) -> jax.Array:
    """Returns the key of one purpose within a lane.

    Args:
      lane: the key of the lane, shape ().
      purpose: ``"init"`` for initial parameters, ``"batch"`` for the order of the examples, ``"step"`` for what a
        training step draws (dropout, augmentation, noise), ``"evaluate"`` for evaluations, ``"artifacts"`` for the
        artifacts of an evaluation, ``"inspect"`` for what it reports of the training split.

    Returns:
      A typed threefry key, shape ().

    Example:
      >>> purpose_key(lane_key(seed=0, replicate=0), "init").shape
      ()
    """
    return plain(jax.random.fold_in(fast(lane), PURPOSES[purpose]))


def step_key(purpose: jax.Array, step: Int) -> jax.Array:
    """Returns the key of one call of ``step`` within a purpose.

    Args:
      purpose: the key of the purpose, shape ().
      step: the number of the call, int32 (), from 0. It is the optimizer step unless gradients are accumulated.

    Returns:
      A typed threefry key, shape ().

    Example:
      >>> step_key(purpose_key(lane_key(seed=0, replicate=0), "step"), 17).shape
      ()
    """
    return plain(jax.random.fold_in(fast(purpose), step))
