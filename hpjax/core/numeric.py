"""Arrays of numbers: checks that data is what JAX can hold on a device, without a change."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.errors import InputError


def check_numbers(field: str, leaf: Any) -> None:
    """Raises unless a value is an array of numbers, or a number, that keeps its value as a JAX array.

    Args:
      field: the argument as the user wrote it, ``Data.train``.
      leaf: a leaf of a pytree.

    Raises:
      InputError: it is text, a table of pandas, a masked array, typed PRNG keys, ..., or has integers of more bits
        than JAX keeps.

    Example:
      >>> check_numbers("Data.train", np.ma.masked_array([1.0, 2.0]))
      Traceback (most recent call last):
      hpjax.core.errors.InputError: Data.train = 'MaskedArray': must be an array of numbers. Write x.filled(0.0).
    """
    if (remedy := _remedy(leaf)) is not None:
        shown = leaf if isinstance(leaf, str) else type(leaf).__name__
        raise InputError(field, shown, "must be an array of numbers", remedy)
    check_integers(field, leaf)


def _remedy(leaf: Any) -> str | None:
    """Returns what to type in place of a value that is no array of numbers, None for one that is."""
    if isinstance(leaf, str | bytes) or (isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "OSUMm"):
        return "Encode it: np.unique(values, return_inverse=True)[1]."
    if hasattr(leaf, "to_numpy"):
        return "Write table.to_numpy()."
    if isinstance(leaf, np.ma.MaskedArray):
        return "Write x.filled(0.0)."
    if isinstance(leaf, np.ndarray) and leaf.dtype.names is not None:
        return "Write a dict: {name: x[name] for name in x.dtype.names}."
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return "Write np.zeros(shape, dtype)."
    try:
        found = jax.eval_shape(lambda x: x, leaf)
    except OverflowError:
        return None  # a Python integer, which check_integers refuses
    except (TypeError, ValueError):
        return "Write np.asarray(x, np.float32)."
    return "Write jax.random.key_data(keys)." if jnp.issubdtype(found.dtype, jax.dtypes.prng_key) else None


def check_integers(field: str, leaf: Any) -> None:
    """Raises ``InputError`` if an integer needs more bits than JAX keeps, which it would cut off without a word.

    Args:
      field: the name of the value in the message.
      leaf: an array of NumPy or a number; any other value passes.
    """
    values = leaf if isinstance(leaf, np.ndarray | np.generic) else np.asarray(leaf) if type(leaf) is int else None
    if values is None or values.size == 0 or (values.dtype.kind not in "iu" and type(leaf) is not int):
        return
    kept = np.iinfo(jax.dtypes.canonicalize_dtype(values.dtype if values.dtype.kind in "iu" else np.int64))
    for value in (values.min(), values.max()) if values.dtype.itemsize > kept.bits // 8 else ():
        if not kept.min <= int(value) <= kept.max:
            allowed = f"must lie in {kept.min} … {kept.max}, the integers that JAX has by default"
            remedy = 'Renumber them, or write jax.config.update("jax_enable_x64", True).'
            raise InputError(field, int(value), allowed, remedy)
