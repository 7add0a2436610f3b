"""A strict session on four CPU devices: what would pass by luck on one device or by a cast fails here."""

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples at every run, and no failing because the machine is busy.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")


@pytest.fixture(scope="module")
def fewer_passes():
    """Machine code of fewer passes, which compiles in two thirds of the time. The tests of the laws do without."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
