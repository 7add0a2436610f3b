"""Array types that annotations use, and the arithmetic of array sizes."""

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int32]


@overload
def ceil_div(total: int, part: int) -> int: ...
@overload
def ceil_div(total: Any, part: Any) -> Any: ...
def ceil_div(total: Any, part: Any) -> Any:
    """Returns how many parts hold the total: ``total / part`` rounded up, for integers, arrays and traced values."""
    return -(-total // part)
