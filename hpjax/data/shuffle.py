"""A random-access shuffle: computes where index i lands in a permutation without building the permutation.

A lane can then draw any batch of any epoch from (key, step) alone. No order of examples is carried or sorted, and a
resumed or repacked lane draws the same batches. A Feistel network (M. Luby and C. Rackoff, "How to construct
pseudorandom permutations from pseudorandom functions", 1988) permutes the next power of two. Walking its cycles until
they return below n restricts it to n (J. Black and P. Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

ROUNDS = 12


def round_keys(key: jax.Array) -> jax.Array:
    """Returns the round keys of one permutation, uint32 (ROUNDS,), from a key of shape ()."""
    return jax.random.bits(key, (ROUNDS,), jnp.uint32)


def _mix(x: jax.Array) -> jax.Array:
    """Returns the finalizer of MurmurHash3 of uint32s: every input bit flips each output bit about half of the time."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def shuffled(index: jax.Array, keys: jax.Array, n: Any, most: int | None = None) -> jax.Array:
    """Returns where each index lands in a permutation of {0, …, n − 1}.

    Args:
      index: uint32 (...), each below ``n``.
      keys: the round keys of each index's permutation, uint32 (..., ROUNDS).
      n: size of the permutation, 1 to 2³¹: an int, or uint32 () where it is traced.
      most: an upper bound of ``n``, needed where that is traced. Where ``most - 1`` and ``n - 1`` have equally many
        bits, the permutation is the same as for ``n`` as an int.

    Returns:
      uint32 (...), each below ``n``; one permutation for each set of keys.
    """
    # With fewer than 6 bits some permutations are visibly more frequent than others.
    bits = max(((n if most is None else most) - 1).bit_length(), 6)
    place: jax.Array = _walked(index, keys, jnp.asarray(n, jnp.uint32), bits)
    return place


# Jitted, so that it is traced once for all programs: these rounds are half of the operations of a small program.
@partial(jax.jit, static_argnames="bits")
def _walked(index: jax.Array, keys: jax.Array, n: jax.Array, bits: int) -> jax.Array:
    low_bits = bits // 2
    low_mask, high_mask = jnp.uint32((1 << low_bits) - 1), jnp.uint32((1 << (bits - low_bits)) - 1)

    # ROUNDS Feistel rounds: each mixes one half of the bits into the other, which can be undone, so no two x collide.
    def permute(x: jax.Array) -> jax.Array:
        high, low = x >> low_bits, x & low_mask
        for r in range(0, ROUNDS, 2):
            high ^= _mix(low ^ keys[..., r]) & high_mask
            low ^= _mix(high ^ keys[..., r + 1]) & low_mask
        joined: jax.Array = (high << low_bits) | low
        return joined

    def walk(x: jax.Array) -> jax.Array:
        return jnp.where(x >= n, permute(x), x)

    place: jax.Array = lax.while_loop(lambda x: jnp.any(x >= n), walk, permute(index))
    return place
