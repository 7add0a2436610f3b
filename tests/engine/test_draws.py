"""Draws that are hashed together have the bits of JAX's own, and are fewer kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from hpjax.core.keys import lane_key, lane_keys
from hpjax.core.threefry import fast, plain
from hpjax.engine.lowering import lowered, lowering


def weights(key):
    """As a network draws them: a key for each layer, of sizes that differ."""
    sizes = ((64, 32), (32, 32), (32, 10), (1,), (3, 0))
    return [jax.random.truncated_normal(jax.random.fold_in(key, i), -2, 2, s) for i, s in enumerate(sizes)]


def many_kinds(key):
    a, b, c = jax.random.split(key, 3)
    order = jax.random.permutation(c, 20)
    bits = [jax.random.bits(k, (5,), t) for k, t in ((a, jnp.uint8), (b, jnp.uint8), (a, jnp.uint16), (b, jnp.uint32))]
    several = jax.random.split(b, (2, 3))
    each = jax.vmap(jax.vmap(jax.random.uniform))(several)  # with keys in an array
    return order, bits, each, jax.random.key_data(several), jax.random.categorical(a, jnp.zeros(7))


def one_after_the_other(key):
    """Where the next key depends on what was drawn."""
    for _ in range(3):
        key = jax.random.fold_in(key, (jax.random.uniform(key) * 100).astype(jnp.int32))
    return jax.random.normal(key, (4,)), jax.random.key_data(key)


def in_a_loop(key):
    def body(key, i):
        key, a, b = jax.random.split(key, 3)
        return key, (jax.random.normal(a, (3,)), lax.cond(i > 1, jax.random.uniform, lambda k: i / 7, b))

    return lax.scan(body, key, jnp.arange(4))[1]


def large_and_small(key):
    """Sizes so different that rows of one array would be for nothing, for the most part."""
    a, b, c = jax.random.split(key, 3)
    return jax.random.bits(a, (2**17,)), jax.random.bits(b, (9,)), jax.random.bits(c, (5000,))


def differentiated(key):
    def loss(w):
        a, b = jax.random.split(key)
        return ((w + jax.random.normal(a, w.shape)) * jax.random.bernoulli(b, 0.5, w.shape)).sum()

    return jax.grad(lowered(loss))(jnp.ones(6))


FUNCTIONS = [weights, many_kinds, one_after_the_other, in_a_loop, large_and_small, differentiated]


@pytest.mark.parametrize("many", [False, True], ids=["one key", "keys of lanes"])
@pytest.mark.parametrize("own", [plain, fast], ids=["jax's key", "ours"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_bits_are_those_of_jax(function, own, many):
    def run(key):
        with lowering(False, True):
            return (jax.vmap(lowered(function)) if many else lowered(function))(own(key))

    key = jax.random.split(jax.random.key(3), 4) if many else jax.random.key(3)
    wanted = jax.jit(jax.vmap(function) if many else function)(key)
    found = jax.jit(run)(key)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def kernels(function, draws):
    with lowering(False, draws):
        text = jax.jit(lowered(function)).lower(fast(jax.random.key(0))).as_text()
    return text.count("call @hashed")


def test_what_does_not_wait_for_another_is_one_kernel():
    assert kernels(weights, False) == 9, "a key and a draw for each, but for what has no element"
    assert kernels(weights, True) <= 4, "of all keys, and of draws of about one size"


def test_prints_of_users_keep_their_order(capfd):
    def talks(key):
        for i in range(3):
            jax.debug.print("{}", jax.random.bits(jax.random.fold_in(key, i)), ordered=True)

    said = []
    for draws in (False, True):
        with lowering(False, draws):
            jax.jit(lowered(talks))(jax.random.key(1))
        jax.effects_barrier()
        said.append(capfd.readouterr().out)
    assert said[0] == said[1]
    assert said[0].count("\n") == 3


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_the_host_computes_the_keys_of_lanes(seed):
    replicate, trial = np.array([[0, 1], [5, 2]], np.int32), np.array([[3, 0], [1, 70_000]], np.int32)
    for of in (None, trial):
        for place in np.ndindex(2, 2):
            wanted = lane_key(seed, int(replicate[place]), None if of is None else int(of[place]))
            np.testing.assert_array_equal(lane_keys(seed, replicate, of)[place], jax.random.key_data(wanted))
