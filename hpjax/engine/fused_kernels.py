"""Operations that XLA compiles for accelerators to kernels of their own, written so that they fuse with others.

What a kernel writes goes to memory and back, and each takes its time to launch. A small model is little else.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from hpjax.engine.conv_kernels import NotRewrittenError

# The matrix units of GPUs take 16 or more numbers of each row at once.
LEAST = 16


def picked(operand: jax.Array, indices: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Computes ``gather`` of one element of each row, such as the logit of a label, by a comparison and a maximum.

    Args:
      operand: numbers (rows..., elements).
      indices: integers (rows..., 1, 1), as ``jnp.take_along_axis`` makes them.
      params: the parameters of ``gather``.

    Returns:
      The elements, (rows..., 1), bit by bit those of ``gather``.

    Raises:
      NotRewrittenError: it is another gather.
    """
    numbers, mode, last = params["dimension_numbers"], params["mode"], operand.ndim - 1
    rows, taken = tuple(range(last)), (numbers.offset_dims, numbers.collapsed_slice_dims, numbers.start_index_map)
    batching = numbers.operand_batching_dims, numbers.start_indices_batching_dims
    if taken != ((), (last,), (last,)) or batching != (rows, rows) or indices.shape != (*operand.shape[:-1], 1, 1):
        raise NotRewrittenError("it takes other elements than one of each row")
    if last == 0:
        raise NotRewrittenError("of one row all elements would be read for one")
    floating = jnp.issubdtype(operand.dtype, jnp.floating)
    if not (floating or jnp.issubdtype(operand.dtype, jnp.integer)) or (floating and operand.dtype.itemsize < 2):
        raise NotRewrittenError("it takes no real numbers, or such as have no infinity")
    index, hit = _hits(operand, indices, mode)
    least = -np.inf if floating else np.iinfo(operand.dtype).min
    # The maximum with the least there is changes no bit, also not of NaN and of -0.0, which a sum would.
    found = jnp.where(hit, operand, jnp.asarray(least, operand.dtype)).max(-1)
    if mode == lax.GatherScatterMode.FILL_OR_DROP:
        inside = (index >= 0) & (index < operand.shape[-1])
        found = jnp.where(inside, found, jnp.asarray(params["fill_value"], operand.dtype))
    return found[..., None]


def added(operand: jax.Array, indices: jax.Array, updates: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Computes ``scatter-add`` to one element of each row, the gradient of ``picked``, by a comparison.

    Args:
      operand: numbers (rows..., elements).
      indices: integers (rows..., 1, 1).
      updates: what is added, (rows..., 1).
      params: the parameters of ``scatter-add``.

    Returns:
      An array like ``operand``, bit by bit that of ``scatter-add``.

    Raises:
      NotRewrittenError: it is another scatter.
    """
    numbers, last = params["dimension_numbers"], operand.ndim - 1
    rows, taken = tuple(range(last)), (numbers.update_window_dims, numbers.inserted_window_dims)
    batching = numbers.operand_batching_dims, numbers.scatter_indices_batching_dims
    if (*taken, numbers.scatter_dims_to_operand_dims) != ((), (last,), (last,)) or batching != (rows, rows):
        raise NotRewrittenError("it adds to other elements than one of each row")
    if last == 0 or (indices.shape, updates.shape) != ((*operand.shape[:-1], 1, 1), (*operand.shape[:-1], 1)):
        raise NotRewrittenError("it adds to other elements than one of each row")
    _, hit = _hits(operand, indices, params["mode"])
    return jnp.where(hit, operand + updates, operand)


def product(a: jax.Array, b: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Computes ``dot_general``, of lanes that share a small operand with one of their own each.

    ``vmap`` makes one wide product of them: the lanes become columns, for which the other operand and the result are
    transposed. Lanes that have the shared operand to themselves, as far as XLA knows, are a batch of products, into
    which it fuses what comes before and after.

    Args:
      a, b: the operands.
      params: the parameters of ``dot_general``.

    Raises:
      NotRewrittenError: under ``vmap`` that would not help.
    """
    (contracted, _), _ = params["dimension_numbers"]

    def plain(a: jax.Array, b: jax.Array) -> jax.Array:
        found: jax.Array = lax.dot_general_p.bind(a, b, **params)
        return found

    if prod(a.shape[axis] for axis in contracted) < LEAST:
        raise NotRewrittenError("so short a product is none that others are fused into")
    own = custom_vmap(plain)

    @own.def_vmap
    def _of_lanes(size: int, batched: list[bool], a: jax.Array, b: jax.Array) -> tuple[jax.Array, bool]:
        if all(batched) or (a.size // size < b.size if batched[0] else b.size // size < a.size):
            # The shared one, if any, is larger than those of the lanes: it would be read once for each of them.
            return jax.vmap(plain, [0 if each else None for each in batched])(a, b), True
        a, b = (x if each else jnp.broadcast_to(x, (size, *x.shape)) for x, each in zip((a, b), batched, strict=True))
        return jax.vmap(plain)(a, b), True

    found: jax.Array = own(a, b)
    return found


def _hits(operand: jax.Array, indices: jax.Array, mode: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the index of each row's element, (rows...), and whether elements are those, bool like ``operand``."""
    index = indices.reshape(operand.shape[:-1])
    if index.dtype.itemsize < 4:  # they may not count to the end of a row
        index = index.astype(jnp.int32)
    if mode == lax.GatherScatterMode.CLIP:
        index = jnp.clip(index, 0, operand.shape[-1] - 1)
    return index, lax.broadcasted_iota(index.dtype, operand.shape, operand.ndim - 1) == index[..., None]
