"""What layers of fewer units than they have room for share: which of them count, and what the others give."""

from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.nn.initializers import Initializer


def traced(value: Any) -> bool:
    """Whether a hyperparameter is a leaf of the program, and not a number."""
    return isinstance(value, jax.Array)


def check_units(field: str, units: Any, most: int | None, masks: bool = False) -> None:
    """Raises ``InputError`` unless ``units``, where there are any given, is a whole number from 1 to ``most``."""
    if units is None:
        return
    if jnp.issubdtype(jnp.result_type(units), jnp.floating):
        raise InputError(field, units, "must be a whole number", "Write Int or LogInt for its domain.")
    if most is not None:
        check_bounds(field, units, 1, most, masks=masks)


def biases(initializer: Initializer, active: Any) -> Initializer:
    """``initializer`` of one number a unit, with zeros for those that do not count."""
    return lambda key, shape, dtype=jnp.float32: first(initializer(key, shape, dtype), active)


def first(x: Any, count: Any) -> Any:
    """``x`` with zeros behind the first ``count`` of its last axis."""
    if count is None:
        return x
    return jnp.where(counting(x, count), x, 0)


def counting(x: Any, count: Any) -> jax.Array:
    """Which of the last axis of ``x`` count, with as many axes."""
    inside: jax.Array = jnp.arange(x.shape[-1]) < count
    return inside.reshape(*[1] * (x.ndim - 1), -1)
