"""Accumulation: a batch that is computed in microbatches, whose contributions are added up."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.arrays import at_least_float32
from hpjax.training.measures import Values
from hpjax.training.monitors import squares
from hpjax.training.state import Accumulated
from hpjax.training.weighting import Weighted, ratio


def share(values: Weighted, sums: Accumulated | None, size: Any, microbatch: int | None) -> Weighted:
    """Returns what the examples of a call contribute to the mean over their batch, each float ().

    Args:
      values: one value for each example of the call.
      sums: those of the microbatches before; None where a call takes a whole batch.
      size: examples of the batch, a number or int32 ().
      microbatch: examples of a call.
    """
    if sums is None or microbatch is None:
        return _mean_share(values)
    return _part_share(values, sums.parts * microbatch + jnp.arange(microbatch), size)


def _mean_share(values: Weighted) -> Weighted:
    """Returns the mean over the examples of a whole batch, float (), which has no weight any more."""
    if values.weight is None:
        return Weighted(values.total.mean(), None)
    return Weighted(ratio(values.total.sum(), values.weight.sum()), None)


def _part_share(values: Weighted, place: jax.Array, size: Any) -> Weighted:
    """Returns what a microbatch contributes to the mean over its batch, each float ().

    Args:
      values: one value for each example of the microbatch, which may reach beyond its batch.
      place: the places of these examples in the batch, int32 (examples,); those from ``size`` on contribute nothing.
      size: examples of the batch, a number or int32 ().

    Returns:
      The share of the mean, without a weight; or the sums of weighted values and weights.
    """
    sums = jax.tree.map(lambda v: jnp.where(place < size, v, 0).sum(), values)
    return Weighted(sums.total / size, None) if sums.weight is None else sums


def penalty_weight(weight: jax.Array, sums: Accumulated | None, microsteps: Any) -> jax.Array:
    """Returns what multiplies the penalty in a microbatch's sums, which the weight of the whole batch will divide.

    It is the microbatch's own weight. Where the whole batch has none, the last microbatch brings the penalty.

    Args:
      weight: the sum of the microbatch's weights, float ().
      sums: those of the microbatches before.
      microsteps: number of microbatches in a batch, a number or int32 ().
    """
    assert sums is not None
    whole = jnp.asarray(sums.weighted["loss"].weight) + weight  # that of the batch, once this is its last part
    none = (whole == 0) & (sums.parts + 1 == microsteps)
    return jnp.where(none, 1, weight)


def nothing_yet(params: Any, noise: bool, weighted: Iterable[str]) -> Accumulated:
    """Returns the sums before the first microbatch of a batch.

    Args:
      params: the parameters.
      noise: whether the gradients' squared norms are added up.
      weighted: the names of loss and metrics where examples have weights; none where they count alike.
    """
    zero = jnp.zeros((), jnp.result_type(float))
    gradients = jax.tree.map(lambda p: jnp.zeros_like(at_least_float32(p)), params)
    sums = {name: Weighted(zero, zero) for name in weighted}
    norms = dict.fromkeys(jax.eval_shape(squares, gradients), zero) if noise else None
    return Accumulated(gradients, zero, jnp.zeros((), jnp.int32), norms, sums)


def added(sums: Accumulated, gradients: Any, loss: jax.Array, shares: dict[str, Weighted]) -> Accumulated:
    """Returns the sums with one more microbatch.

    Args:
      sums: those of the microbatches before.
      gradients: the gradients of ``loss``.
      loss: the microbatch's share of the loss, penalty included, float ().
      shares: what ``share`` gave for loss and metrics.
    """
    norms = None if sums.squares is None else jax.tree.map(_plus, sums.squares, squares(gradients))
    weighted = {name: jax.tree.map(_plus, old, shares[name]) for name, old in sums.weighted.items()}
    gradients = jax.tree.map(jnp.add, sums.gradients, gradients)
    return Accumulated(gradients, _plus(sums.loss, loss), sums.parts + 1, norms, weighted)


def _plus(sum_: jax.Array, value: jax.Array) -> jax.Array:
    return (sum_ + value).astype(sum_.dtype)


def mean_of(sums: Accumulated, like: Any) -> tuple[Any, jax.Array]:
    """Returns the gradients of a batch, with the dtypes of ``like``, and its loss, float ()."""
    gradients, loss = sums.gradients, sums.loss
    if sums.weighted:
        weight = jnp.asarray(sums.weighted["loss"].weight)
        # Of a batch without any weight the sums are the penalty alone.
        gradients, loss = jax.tree.map(lambda a: a / jnp.where(weight == 0, 1, weight), (gradients, loss))
    return jax.tree.map(lambda g, old: g.astype(old.dtype), gradients, like), loss


def emitted(sums: Accumulated, shares: dict[str, Weighted], full: jax.Array, microsteps: Any, changing: bool) -> Values:
    """Returns the metrics of a call, each float (), so that the mean over the calls of a batch is its metric.

    With weights all comes with the last call. Where batch sizes change, evaluations come in the midst of batches: each
    call then has the mean over its own examples.

    Args:
      sums: those of the batch, with this call.
      shares: what the call adds to them.
      full: whether the batch is complete, bool ().
      microsteps: calls of the batch, a number or int32 ().
      changing: whether batch sizes change.
    """
    if not sums.weighted:
        return {name: share.total * microsteps for name, share in shares.items()}
    if changing:
        return {name: jnp.asarray(ratio(each.total, each.weight)) for name, each in shares.items()}
    return {
        name: jnp.where(full, ratio(each.total, each.weight), 0) * microsteps for name, each in sums.weighted.items()
    }


def emptied(sums: Accumulated, full: jax.Array) -> Accumulated:
    """Returns the sums with which the next call begins: none where the batch is ``full``, bool ()."""
    empty: Accumulated = jax.tree.map(lambda sum_: jnp.where(full, 0, sum_).astype(sum_.dtype), sums)
    return empty
