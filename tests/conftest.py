"""A strict session on four CPU devices: what would pass by luck on one device or by a cast fails here."""

import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
