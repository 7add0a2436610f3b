"""A random-access shuffle: computes where index i lands in a permutation without building the permutation.

A lane can then draw any batch of any epoch from (key, step) alone. No order of examples is carried or sorted, and a
resumed or repacked lane draws the same batches. The swap-or-not network (V. T. Hoang, B. Morris and P. Rogaway, "An
Enciphering Scheme Based on a Card Shuffle", CRYPTO 2012) permutes any number of indices in a fixed number of rounds, so
that no loop depends on data: on a GPU each turn of such a loop would wait for the host.
"""

import jax
import jax.numpy as jnp
from jax import lax

# In a million keys a χ² test finds permutations of 2 to 6 indices equally frequent after 16 rounds, and not after 12.
# Eight more are for larger numbers, of which an index stays where it is if no round swaps it: 2⁻²⁴ of them.
ROUNDS = 24


def round_keys(key: jax.Array, n: jax.Array) -> jax.Array:
    """Returns what the rounds of one permutation need, uint32 (2, ROUNDS), from a key of shape ().

    Args:
      key: the key of the permutation, shape ().
      n: its size, uint32 (), 1 to 2³¹.
    """
    bits = jax.random.bits(key, (ROUNDS,), jnp.uint32)
    return jnp.stack([bits, bits % n])


# Jitted, so that it is traced once for all programs: these rounds are many of the operations of a small program.
@jax.jit
def shuffled(index: jax.Array, second: jax.Array, keys: jax.Array, n: jax.Array) -> jax.Array:
    """Returns where each index lands in one of two permutations of {0, …, n − 1}.

    Args:
      index: uint32 (indices,), each below ``n``.
      second: bool (indices,), whether the second permutation is meant, and not the first.
      keys: the round keys of both, uint32 (2, 2, ROUNDS).
      n: size of the permutations, uint32 (), the same as for the keys.

    Returns:
      uint32 (indices,), each below ``n``.
    """
    # Written in operations of equal shapes, since numbers would be broadcast in each round anew.
    place, size, highest = index, jnp.full_like(index, n), jnp.full_like(index, 2**31)
    shift, once, twice = (jnp.full_like(index, number) for number in (15, 0x85EBCA6B, 0xC2B2AE35))
    words, totals = map(jnp.unstack, jnp.where(second, keys[1][..., None], keys[0][..., None]))
    for word, total in zip(words, totals, strict=True):
        # A round pairs each place with the one that adds up to its total modulo n, and swaps a pair or not. Where the
        # difference is negative it wraps around to more than n, and adding n wraps it back.
        difference = total - place
        other = lax.min(difference, difference + size)
        # The highest bit of a multiplicative hash, to which all bits of the pair and of the word contribute.
        hashed = (lax.max(place, other) ^ word) * once
        hashed = (hashed ^ lax.shift_right_logical(hashed, shift)) * twice
        place = lax.select(hashed >= highest, other, place)
    return place
