"""Threefry-2x32 (Salmon et al. 2011, doi:10.1145/2063384.2063405), as JAX computes it to the bit, in one kernel.

For CPUs JAX writes the 20 rounds of every draw as a loop, which XLA compiles to seven kernels that run one after the
other. Drawing the weights is then a large part of a small model's compile time, and noise costs several times as much.
For other devices JAX's own implementation is one kernel already, and is used unchanged. This file can be deleted once
JAX compiles the rounds to one kernel on CPUs, too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend import random

from hpjax.core.fallback import warn_once

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
DTYPES = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}
JAX = random.threefry_prng_impl


def hashed(first: Any, second: Any, count: Any) -> tuple[Any, Any]:
    """Returns the two words that threefry makes of each counter, uint32.

    Args:
      first, second: uint32, the two words of the keys, arrays of JAX or of NumPy.
      count: uint32, the counters. The three arrays have one rank, 1 or more, and broadcast against each other.
    """
    schedule = (first, second, first ^ second ^ np.uint32(PARITY))
    x, y = schedule[0], count + schedule[1]
    for i in range(5):
        for by in ROTATIONS[i % 2]:
            x = x + y
            y = (y << np.uint32(by) | y >> np.uint32(32 - by)) ^ x
        x, y = x + schedule[(i + 1) % 3], y + schedule[(i + 2) % 3] + np.uint32(i + 1)
    return x, y


# Jitted, so that equal shapes are traced once.
_hashed = jax.jit(hashed)


def _once(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Wraps ``function`` so that XLA computes each result once, however often the result is used.

    XLA would fuse a draw into each of its uses and compute it anew there: for every lane, and in a chain of keys
    exponentially often. On CPUs it drops optimization barriers, but it does not fuse across a branch. So the function
    is called in a branch, of a condition that always holds but that XLA cannot simplify: x (x + 1) is even.

    Args:
      function: takes (first, second, count) as ``_hashed`` does.
    """

    @custom_vmap
    def once(first: jax.Array, second: jax.Array, count: jax.Array) -> jax.Array:
        given = jax.eval_shape(function, first, second, count)
        if given.size == 0:
            return jnp.zeros(given.shape, given.dtype)
        some = first.reshape(-1)[0]
        found: jax.Array = lax.cond(
            some * (some + 1) & 1 == 0,
            lambda: function(first, second, count),
            lambda: jnp.zeros(given.shape, given.dtype),
        )
        return found

    @once.def_vmap
    def _of_many(size: int, batched: list[bool], *arrays: jax.Array) -> Any:
        # Called once on the batched arrays: a batched condition would become a select that computes both branches.
        found = once(*(x if own else x[None] for x, own in zip(arrays, batched, strict=True)))
        return found, True

    return once


_stacked = _once(lambda *arrays: jnp.stack(_hashed(*arrays), axis=-1))
_joined = _once(lambda *arrays: jnp.bitwise_xor(*_hashed(*arrays)))


def _words(key: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    first, second = key.reshape(2, *(1,) * count.ndim)
    return first, second, count


def _counted(shape: tuple[int, ...]) -> jax.Array:
    return lax.iota(jnp.uint32, prod(shape)).reshape(shape)


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    folded: jax.Array = _stacked(*_words(key, jnp.asarray(data, jnp.uint32)))
    return folded


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    keys: jax.Array = _stacked(*_words(key, _counted(shape)))
    return keys


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    return _bits(_words(key, _counted(shape)), bit_width)


def _bits(words: tuple[jax.Array, jax.Array, jax.Array], bit_width: int) -> jax.Array:
    if bit_width < 64:
        bits: jax.Array = _joined(*words).astype(DTYPES[bit_width])
        return bits
    wide: jax.Array = _stacked(*words).astype(jnp.uint64)
    return jnp.bitwise_or(wide[..., 0] << jnp.uint64(32), wide[..., 1])


def bits_at(key: jax.Array, bit_width: int, place: jax.Array) -> jax.Array | None:
    """Returns the random bits that JAX draws at some places of an array, whose elements are counted in their order.

    Args:
      key: the data of a threefry key, uint32 (2,).
      bit_width: 8, 16, 32 or 64.
      place: uint32, the numbers of the elements; of an array of less than 2³² elements.

    Returns:
      Unsigned integers of so many bits, of the shape of ``place``; None where JAX is set to draw in another order.
    """
    return _bits(_words(key, place), bit_width) if _partitionable() else None


def keys_in_rows(keys: jax.Array, count: jax.Array) -> jax.Array:
    """Returns the keys that JAX folds or splits from others, by one kernel.

    Args:
      keys: the data of threefry keys, uint32 (keys, 2).
      count: what is folded in or, of a split, the numbers of the new keys; uint32 (keys or 1, new keys).

    Returns:
      Data of keys, uint32 (keys, new keys, 2).
    """
    new: jax.Array = _stacked(keys[:, :1], keys[:, 1:], count)
    return new


def bits_in_rows(keys: jax.Array, bit_width: int, count: jax.Array) -> jax.Array:
    """Returns the random bits that JAX draws with several keys, by one kernel.

    Args:
      keys: the data of threefry keys, uint32 (keys, 2).
      bit_width: 8, 16 or 32.
      count: the numbers of the elements, uint32 (1, elements).

    Returns:
      Unsigned integers of so many bits, (keys, elements).
    """
    return _bits((keys[:, :1], keys[:, 1:], count), bit_width)


def is_threefry(key: jax.Array) -> bool:
    """Returns whether a key is one of JAX's threefry keys or of ``fast``, and elements are counted in their order."""
    return key.dtype in key_types() and _partitionable()


@cache
def key_types() -> tuple[Any, Any]:
    """Returns the dtypes of JAX's threefry keys, and of those of ``fast``."""
    own = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
    return own.dtype, jax.eval_shape(fast, own).dtype


def _partitionable() -> bool:
    """Returns whether JAX counts the elements of a draw in their order; where it does not say, it is taken not to."""
    return bool(getattr(jax.config, "jax_threefry_partitionable", None))


# The platform for which this thread lowers programs, where that is known.
_platform: ContextVar[str | None] = ContextVar("platform", default=None)


@contextmanager
def lowered_for(platform: str) -> Iterator[None]:
    """Says for which platform all is lowered in its body, in this thread; then no other's kernels are traced."""
    before = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(before)


def _on_cpus(ours: Callable[..., jax.Array], theirs: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns a function that uses our kernel on CPUs and JAX's elsewhere.

    It uses JAX's on CPUs, too, where a draw has 2³² elements or more, beyond the counters of one word, and where the
    option ``jax_threefry_partitionable`` is False, for which JAX counts in another order, or missing, so that the order
    is not known. A warning tells of each once.
    """

    def chosen(key: jax.Array, *arguments: Any) -> jax.Array:
        partitionable = getattr(jax.config, "jax_threefry_partitionable", None)
        large = any(isinstance(each, tuple) and prod(each) >= 2**32 for each in arguments)
        if large or not partitionable:
            reason = "a draw has 2³² numbers or more" if large else f"jax_threefry_partitionable is {partitionable}"
            warn_once(f"threefry: {reason}, so JAX's own kernels draw, which compile and run more slowly on CPUs.")
            return theirs(key, *arguments)
        platform = _platform.get()
        if platform is not None:
            return (ours if platform == "cpu" else theirs)(key, *arguments)
        found: jax.Array = lax.platform_dependent(
            key, cpu=lambda key: ours(key, *arguments), default=lambda key: theirs(key, *arguments)
        )
        return found

    return chosen


GENERATOR: Any = random.define_prng_impl(
    key_shape=JAX.key_shape,
    seed=JAX.seed,
    split=_on_cpus(_split, JAX.split),
    random_bits=_on_cpus(_random_bits, JAX.random_bits),
    fold_in=_on_cpus(_fold_in, JAX.fold_in),
    name="threefry2x32 in one kernel",
    tag="fry",
)


def fast(key: jax.Array) -> jax.Array:
    """Returns a key that draws the same bits as ``key`` by one kernel. Its dtype differs from that of JAX's keys."""
    same: jax.Array = jax.random.wrap_key_data(jax.random.key_data(key), impl=GENERATOR)
    return same


def plain(key: jax.Array) -> jax.Array:
    """Returns ``key`` with the dtype of JAX's threefry keys, so that it mixes with those that users make."""
    same: jax.Array = jax.random.wrap_key_data(jax.random.key_data(key), impl="threefry2x32")
    return same
