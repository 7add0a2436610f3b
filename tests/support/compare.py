"""Whether numbers agree in every bit."""

import numpy as np


def same_bits(a, b):
    """Whether two arrays agree in every bit; any NaN equals any NaN."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
