"""The random-access shuffle: against the network's definition in plain Python, and its statistics."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hpjax.data.batches import batch_indices
from hpjax.data.shuffle import ROUNDS, round_keys, shuffled

WORD = 2**32


def by_definition(i, keys, n):
    """Hoang, Morris and Rogaway's figure 1, in Python's unbounded integers."""
    for key in keys:
        other = (key % n - i) % n
        x = (max(i, other) ^ key) * 0x85EBCA6B % WORD
        x = (x ^ x >> 15) * 0xC2B2AE35 % WORD
        i = other if x >> 31 else i
    return i


@pytest.mark.parametrize("n", [1, 2, 3, 64, 1079, 2**31 - 1, 2**31])
def test_it_is_the_swap_or_not_network(n):
    index = np.unique(np.linspace(0, n - 1, 50).astype(np.uint32))
    two = jax.random.split(jax.random.key(n % 1000))
    bits = [[int(b) for b in jax.random.bits(key, (ROUNDS,), jnp.uint32)] for key in two]
    keys = jnp.stack([round_keys(key, jnp.uint32(n)) for key in two])
    second = np.arange(len(index)) % 2 == 1
    found = shuffled(index, second, keys, jnp.uint32(n))
    assert found.tolist() == [by_definition(int(i), bits[int(one)], n) for i, one in zip(index, second, strict=True)]


def orders(n, count):
    """The first epochs of so many keys, (count, n)."""
    return np.asarray(jax.jit(jax.vmap(lambda s: batch_indices(jax.random.key(s), 0, n, n)))(jnp.arange(count)))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_permutations_are_equally_likely(n):
    every = dict.fromkeys(itertools.permutations(range(n)), 0)
    for order, count in zip(*np.unique(orders(n, 60_000), axis=0, return_counts=True), strict=True):
        every[tuple(order.tolist())] = count
    assert stats.chisquare(list(every.values())).pvalue > 1e-3


@pytest.mark.parametrize("n", [10, 33, 100])
def test_places_pairs_and_neighbours_are_uniform(n):
    found = orders(n, 20_000).astype(int)
    expected = len(found) / n
    at = np.stack([np.bincount(found[:, i], minlength=n) for i in range(n)])
    assert stats.chi2.sf(((at - expected) ** 2 / expected).sum(), (n - 1) ** 2) > 1e-3
    # Where two examples land, of all ordered pairs of places.
    pairs = np.bincount(found[:, 0] * n + found[:, n // 2], minlength=n * n).reshape(n, n)[~np.eye(n, dtype=bool)]
    assert stats.chisquare(pairs).pvalue > 1e-3
    steps = np.bincount((found[:, 1:] - found[:, :-1]).reshape(-1) % n, minlength=n)[1:]
    assert stats.chisquare(steps, np.full(n - 1, steps.sum() / (n - 1))).pvalue > 1e-3


def test_no_loop_depends_on_data():
    """Each turn of such a loop would have a GPU wait for the host."""
    text = str(jax.make_jaxpr(lambda t: batch_indices(jax.random.key(0), t, 1000, 64))(3))
    assert "shuffled" in text
    assert "while" not in text
    assert "cond[" not in text
