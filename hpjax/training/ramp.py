"""Ramps: batches that grow, or shrink, while a lane trains, in whole microbatches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.errors import InputError, annotate_errors
from hpjax.core.format import show

# Examples seen so far, int32 (), to the examples of the batch that begins there.
Ramp = Callable[[jax.Array], Any]


class Filled(NamedTuple):
    """The batches of a ramp that are complete.

    Attributes:
      batches: how many, which is the number of optimizer steps, int32 ().
      microbatches: how many they have together, int32 ().
    """

    batches: jax.Array
    microbatches: jax.Array


def none_filled() -> Filled:
    """Returns the counts before the first batch."""
    return Filled(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def parts_of(ramp: Ramp, filled: Filled, microbatch: int) -> jax.Array:
    """Returns the number of microbatches of the present batch, the nearest one to the ramp there, int32 ()."""
    return jnp.maximum(_nearest(ramp, filled.microbatches, microbatch), 1)


def filled_with(filled: Filled, parts: jax.Array, full: jax.Array) -> Filled:
    """Returns the counts after a call: one batch of ``parts`` microbatches more where it is ``full``, bool ()."""
    return Filled(filled.batches + full, filled.microbatches + jnp.where(full, parts, 0))


def _nearest(ramp: Ramp, microbatches: jax.Array, microbatch: int) -> jax.Array:
    size = jnp.asarray(annotate_errors("supervised.batch_size", ramp)(microbatches * microbatch))
    return jnp.round(size / microbatch).astype(jnp.int32)


def check_ramp(ramp: Ramp, calls: int, microbatch: int | None, most: int, least: int) -> None:
    """Raises unless each batch of a ramp has as many microbatches as it needs, and the data the examples of each.

    Args:
      ramp: examples seen to the size of a batch.
      calls: microbatches that the trial takes.
      microbatch: examples of each; None where the program takes none.
      most: the examples of the training split.
      least: microbatches that a batch needs.

    Raises:
      InputError: it does not, or the positions of examples would not fit into int32.
    """
    field = "supervised.batch_size"
    if microbatch is None:
        allowed = "can change while a lane trains only in microbatches"
        raise InputError(field, show(ramp), allowed, "Write microbatch=8, a divisor of its batch sizes.")
    if calls * microbatch >= 2**31:
        allowed = "must stay below 2**31 in a ramp"
        raise InputError("steps × microbatch", calls * microbatch, allowed, f"Write steps={2**31 // microbatch - 1}.")
    try:
        sizes = np.asarray(jax.vmap(lambda call: jnp.asarray(ramp(call * microbatch), float))(jnp.arange(calls)))
    except Exception as error:
        allowed = f"must be a function of the examples seen, int32 (), that JAX can trace; it fails: {str(error)[:100]}"
        raise InputError(field, show(ramp), allowed, "Write lambda seen: jnp.where(seen < 1024, 16, 64).") from None
    if sizes.shape != (calls,):
        allowed = "must be one number for each count of examples"
        raise InputError(
            field, f"a ramp of shape {sizes.shape[1:]}", allowed, "Write optax.linear_schedule(16, 256, 4096)."
        )
    parts = np.round(sizes / microbatch)
    low = np.flatnonzero(~(parts >= least))  # NaN, too
    if len(low):
        found = f"{show(round(float(sizes[low[0]]), 3))} after {low[0] * microbatch:,} examples"
        needed = "one microbatch" if least == 1 else f"{least} microbatches, whose gradients are compared,"
        allowed = f"must have {needed} of {microbatch} examples at least throughout"
        remedy = f"Write a ramp that does not fall below {least * microbatch}, or a smaller microbatch."
        raise InputError(field, found, allowed, remedy)
    if parts[0] > calls:
        allowed = f"must be the microbatches of a batch at least, and the first one has {int(parts[0])}"
        remedy = "Write epochs=, or more steps, which count microbatches with a ramp."
        raise InputError("supervised.steps", calls, allowed, remedy)
    high = np.flatnonzero(parts * microbatch > most)
    if len(high):
        found = f"{show(round(float(sizes[high[0]]), 3))} after {high[0] * microbatch:,} examples"
        allowed = f"must be at most {most:,}, the size of the training split"
        raise InputError(field, found, allowed, f"Write a ramp that ends at {most // microbatch * microbatch}.")
