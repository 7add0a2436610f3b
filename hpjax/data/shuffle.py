"""A random-access shuffle: where index i lands in a permutation, without building the permutation.

A lane can then draw any batch of any epoch from (key, step) alone: nothing is carried, nothing sorted,
and a resumed or repacked lane draws the very same. A Feistel network (Luby & Rackoff 1988, "How to
construct pseudorandom permutations from pseudorandom functions") permutes the next power of two, and
walking its cycles until they return below n restricts it to n (Black & Rogaway 2002, "Ciphers with
arbitrary finite domains").
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

ROUNDS = 12


def round_keys(key: jax.Array) -> jax.Array:
    """uint32 (ROUNDS,), the keys of one permutation."""
    return jax.random.bits(key, (ROUNDS,), jnp.uint32)


def _mix(x: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3: every input bit changes every output bit about half of the time."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def shuffled(index: jax.Array, keys: jax.Array, n: Any, most: int | None = None) -> jax.Array:
    """Where each index lands.

    Args:
      index: uint32 (...), each below ``n``.
      keys: uint32 (..., ROUNDS), the round keys of each index's permutation.
      n: size of the permutation, 1 to 2³¹; a uint32 () where it is traced.
      most: an upper bound of a traced ``n``; the permutation is that of a number ``n`` if both need as many bits.

    Returns:
      uint32 (...), each below ``n``; one permutation of {0, …, n − 1} for each set of keys.
    """
    bits = max(((n if most is None else most) - 1).bit_length(), 6)  # fewer make the permutations visibly unequal
    landed: jax.Array = _walked(index, keys, jnp.asarray(n, jnp.uint32), bits)
    return landed


# A jitted function is traced once for all programs, and this one is half of what a small program traces.
@partial(jax.jit, static_argnames="bits")
def _walked(index: jax.Array, keys: jax.Array, n: jax.Array, bits: int) -> jax.Array:
    low_bits = bits // 2
    low_mask, high_mask = jnp.uint32((1 << low_bits) - 1), jnp.uint32((1 << (bits - low_bits)) - 1)

    def permute(x: jax.Array) -> jax.Array:
        high, low = x >> low_bits, x & low_mask
        for r in range(0, ROUNDS, 2):
            high ^= _mix(low ^ keys[..., r]) & high_mask
            low ^= _mix(high ^ keys[..., r + 1]) & low_mask
        joined: jax.Array = (high << low_bits) | low
        return joined

    def walk(x: jax.Array) -> jax.Array:
        return jnp.where(x >= n, permute(x), x)

    landed: jax.Array = lax.while_loop(lambda x: jnp.any(x >= n), walk, permute(index))
    return landed
