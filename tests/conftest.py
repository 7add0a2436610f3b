"""A strict session on four CPU devices: what would pass by luck on one device or by a cast fails here."""

import jax
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples at every run, and no failing because the machine is busy.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")
