"""Data in three disjoint splits: arrays from which the device draws batches, or a stream that the host reads."""

from hpjax.core.program import Data
from hpjax.data.batches import batch_indices, pool
from hpjax.data.examples import Examples, WeightedExamples, take
from hpjax.data.loaders import digits, from_arrays, from_idx, from_npz, stream
from hpjax.data.windows import Windows, tokens

__all__ = [
    "Data",
    "Examples",
    "WeightedExamples",
    "Windows",
    "batch_indices",
    "digits",
    "from_arrays",
    "from_idx",
    "from_npz",
    "pool",
    "stream",
    "take",
    "tokens",
]
