"""Drawing: the examples of one call of ``step``, a batch or one microbatch of it."""

from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import ProgramError
from hpjax.core.hparams import Hparams
from hpjax.data.batches import drawn
from hpjax.data.examples import AnyExamples


def examples_of(
    key: jax.Array, call: jax.Array, train: AnyExamples, h: Hparams, size: Any, microbatch: int | None
) -> AnyExamples:
    """Returns the examples of one call of ``step``.

    Args:
      key: the key of the purpose ``"batch"``, shape ().
      call: number of the call, int32 (), from 0.
      train: the training split, with folds the whole pool.
      h: the hyperparameters.
      size: examples of a batch, an int, or with microbatches int32 ().
      microbatch: examples of a call; None where a call takes a whole batch.

    Raises:
      ProgramError: a batch of a traced size, without microbatches.
    """
    if microbatch is None and isinstance(size, jax.core.Tracer):
        raise ProgramError("batch_size sets the shape of a batch; with microbatch=m it can be traced")
    count = int(size) if microbatch is None else microbatch
    microsteps = 1 if microbatch is None else ceil_div(size, microbatch)
    call, microsteps, size = (jnp.asarray(number, jnp.uint32) for number in (call, microsteps, size))
    # Batches follow each other in the sequence of epochs; in each batch the microbatches do.
    first = call // microsteps * size + call % microsteps * count
    found: AnyExamples = drawn(key, first, count, train, (h.fold, h.folds) if "fold" in h else None)
    return found
