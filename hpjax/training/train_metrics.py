"""Metrics of training batches that are computed every few steps only; between them the last values stand."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.data.examples import AnyExamples
from hpjax.training.measures import Values
from hpjax.training.state import Held
from hpjax.training.weighting import Weighted


class Drawn(NamedTuple):
    """The examples of a call of ``step``, and whether their metrics are computed.

    Attributes:
      examples: the batch, or one microbatch of it.
      measured: bool (). It is one number for all lanes unless their batch sizes differ, so that under ``vmap`` a
        condition on it stays one, and skips what it says.
    """

    examples: AnyExamples
    measured: jax.Array


def none_held(names: Iterable[str]) -> Held:
    """Returns the values before the first step, which measures."""
    zeros = dict.fromkeys(names, jnp.zeros((), jnp.result_type(float)))
    return Held(zeros, zeros)


def shares_if(measured: jax.Array, shares: Callable[[], dict[str, Weighted]]) -> dict[str, Weighted]:
    """Returns ``shares()`` where the batch is measured, else zeros, which cost nothing."""
    shapes = jax.eval_shape(shares)
    found: dict[str, Weighted] = lax.cond(
        measured, shares, lambda: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    )
    return found


def held_on(
    held: Held, means: Values, measured: jax.Array, first: Any, full: Any, microsteps: Any
) -> tuple[Held, Values]:
    """Returns the values that stand after a call, and its means with those that stood where it did not measure.

    Args:
      held: the values that stood before.
      means: what the call adds to the metrics of its batch, times ``microsteps``, float ().
      measured: whether its batch is measured, bool ().
      first, full: whether the call is the first and the last of its batch, bool ().
      microsteps: number of calls of a batch.
    """
    so_far, last, shown = {}, {}, dict(means)
    for name in held.last:
        so_far[name] = jnp.where(first, 0, held.so_far[name]) + means[name]
        last[name] = jnp.where(full & measured, so_far[name] / microsteps, held.last[name])
        shown[name] = jnp.where(measured, means[name], last[name])
    return Held(so_far, last), shown
