"""Masks for layers that use only the first of their units; the others output 0."""

from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.nn.initializers import Initializer


def traced(value: Any) -> bool:
    """Returns whether a hyperparameter is a leaf of the program and not a number."""
    return isinstance(value, jax.Array)


def check_units(field: str, units: Any, most: int | None, masks: bool = False) -> None:
    """Raises ``InputError`` unless ``units`` is None or a whole number from 1 to ``most``.

    Args:
      field: the argument as the user wrote it, ``Dense.active``.
      units: a number of units, int32 () where it is traced.
      most: the number of units of the layer, None where it is not known.
      masks: whether a traced number masks part of a larger layer.
    """
    if units is None:
        return
    if jnp.issubdtype(jnp.result_type(units), jnp.floating):
        raise InputError(
            field, units, "must be a whole number", "Write hpx.Int(8, 64) or hpx.LogInt(8, 64) for its domain."
        )
    if most is not None:
        check_bounds(field, units, 1, most, masks=masks)


def biases(initializer: Initializer, active: Any) -> Initializer:
    """Returns ``initializer`` of one number a unit, with zeros from unit ``active`` on."""
    return lambda key, shape, dtype=jnp.float32: first(initializer(key, shape, dtype), active)


def first(x: Any, count: Any) -> Any:
    """Returns ``x`` with zeros after the first ``count`` elements of its last axis; None for ``count`` keeps all."""
    if count is None:
        return x
    return jnp.where(inside(x, count), x, 0)


def inside(x: Any, count: Any) -> jax.Array:
    """Returns which elements of the last axis of ``x`` are among the first ``count``, bool (1, ..., x.shape[-1])."""
    mask: jax.Array = jnp.arange(x.shape[-1]) < count
    return mask.reshape(*[1] * (x.ndim - 1), -1)
