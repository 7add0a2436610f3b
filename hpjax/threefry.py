"""Threefry-2x32 (Salmon et al. 2011, doi:10.1145/2063384.2063405), as JAX computes it to the bit, in one kernel.

For CPUs JAX writes the 20 rounds of every draw as a loop, which XLA compiles to seven kernels that run one after the
other: drawing the weights is then most of what a small model takes to compile, and noise costs eight times as much.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import random

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
DTYPES = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}


def _hashed(key: jax.Array, high: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The hash of counters under a key, uint32 (2,)."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    x, y = high + schedule[0], low + schedule[1]
    for i in range(5):
        for by in ROTATIONS[i % 2]:
            x = x + y
            y = (y << jnp.uint32(by) | y >> jnp.uint32(32 - by)) ^ x
        x, y = x + schedule[(i + 1) % 3], y + schedule[(i + 2) % 3] + jnp.uint32(i + 1)
    return x, y


def random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    """What JAX's own ``random_bits`` gives."""
    partitionable = getattr(jax.config, "jax_threefry_partitionable")  # noqa: B009  mypy does not know it
    if not partitionable or prod(shape) >= 2**32:
        bits: jax.Array = random.threefry_prng_impl.random_bits(key, bit_width, shape)
        return bits
    count = lax.iota(jnp.uint32, prod(shape)).reshape(shape)
    high, low = _hashed(key, jnp.zeros_like(count), count)
    if bit_width < 64:
        return (high ^ low).astype(DTYPES[bit_width])
    return jnp.asarray(high.astype(jnp.uint64) << jnp.uint64(32) | low.astype(jnp.uint64))


# Keys are derived as JAX derives them: of unrolled rounds in a chain, XLA would compute each as often as it is used.
GENERATOR: Any = random.define_prng_impl(
    key_shape=random.threefry_prng_impl.key_shape,
    seed=random.threefry_prng_impl.seed,
    split=random.threefry_prng_impl.split,
    random_bits=random_bits,
    fold_in=random.threefry_prng_impl.fold_in,
    name="threefry2x32 in one kernel",
    tag="fry",
)
