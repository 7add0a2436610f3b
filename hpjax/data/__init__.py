"""Data: arrays in three disjoint splits, and batches drawn from them on the device; or batches that the host draws."""

from hpjax.core.program import Data
from hpjax.data.batches import batch_indices, pool
from hpjax.data.examples import Examples
from hpjax.data.loaders import digits, from_arrays, from_idx, from_npz, stream

__all__ = ["Data", "Examples", "batch_indices", "digits", "from_arrays", "from_idx", "from_npz", "pool", "stream"]
