"""Keys come from names: every random number of a sweep, as a function of what it is for.

A key derives from (sweep seed, replicate, purpose, step) and, with ``randomness="independent"``, from
the trial id; never from a lane's slot, its group or its device. So a plain loop can draw the very
noise that a lane saw:

Example:
  >>> lane = lane_key(seed=0, replicate=2)
  >>> weights = jax.random.normal(purpose_key(lane, "init"), (64, 10))
  >>> dropout = step_key(purpose_key(lane, "step"), 17)
"""

from typing import Literal

import jax

from hpjax.core.threefry import fast, plain

# The numbers are part of the format: changing one changes the bits of every recorded run.
PURPOSES = {"init": 0, "batch": 1, "step": 2, "evaluate": 3}

Purpose = Literal["init", "batch", "step", "evaluate"]
Int = int | jax.Array


def lane_key(seed: Int, replicate: Int, trial: Int | None = None) -> jax.Array:
    """The key of one lane: a typed key of JAX's threefry, shape ().

    Args:
      seed: the seed of the sweep, an int32.
      replicate: the number of the replicate, from 0.
      trial: the trial id where each trial has luck of its own, else None: then every trial of a
        replicate sees the same noise, and comparisons between trials are paired.
    """
    # threefry by name: rbg keys under vmap would let a lane's stream depend on its packing.
    key = jax.random.fold_in(fast(jax.random.key(seed, impl="threefry2x32")), replicate)
    return plain(key if trial is None else jax.random.fold_in(key, trial))


def purpose_key(lane: jax.Array, purpose: Purpose) -> jax.Array:
    """The key of one purpose within a lane."""
    return plain(jax.random.fold_in(fast(lane), PURPOSES[purpose]))


def step_key(purpose: jax.Array, step: Int) -> jax.Array:
    """The key of one optimizer step within a purpose; ``step`` counts from 0."""
    return plain(jax.random.fold_in(fast(purpose), step))
