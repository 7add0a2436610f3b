"""Scalars of NumPy and JAX as the numbers of Python that they are."""

from typing import Any

import numpy as np


def as_python(value: Any) -> Any:
    """Returns a scalar of NumPy or JAX as the Python number or text that it is; anything else as it is.

    Args:
      value: anything; of a tuple each entry is converted.

    Example:
      >>> as_python((np.float64(0.5), np.array(3), "relu"))
      (0.5, 3, 'relu')
    """
    if type(value) is tuple:
        return tuple(map(as_python, value))
    if isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "shape", None) == ()):
        found = value.item()
        return float(found) if isinstance(found, np.floating) else found  # a long double has no Python number
    return value
