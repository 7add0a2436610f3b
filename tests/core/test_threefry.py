"""The generator of lanes' keys: JAX's own threefry to the bit, without the loops that it has on CPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.core.fallback import warn_once
from hpjax.core.keys import lane_key
from hpjax.core.threefry import GENERATOR, fast

SEEDS = (0, 1, 2**31 - 1)

DRAWS = {
    "bits": lambda key: jax.random.bits(key, (5, 7)),
    "one": jax.random.bits,
    "none": lambda key: jax.random.bits(key, (0, 3)),
    "bits of 8": lambda key: jax.random.bits(key, (33,), jnp.uint8),
    "bits of 16": lambda key: jax.random.bits(key, (33,), jnp.uint16),
    "uniform": lambda key: jax.random.uniform(key, (100,)),
    "weights": lambda key: jax.random.truncated_normal(key, -2.0, 2.0, (16, 4)),
    "mask": lambda key: jax.random.bernoulli(key, 0.3, (64,)),
    "order": lambda key: jax.random.permutation(key, 50),
    "whole numbers": lambda key: jax.random.randint(key, (40,), -3, 17),
    "choice": lambda key: jax.random.categorical(key, jnp.arange(12.0)),
    "rejected some": lambda key: jax.random.gamma(key, 2.5, (6,)).round(4),  # XLA rounds it as the rest compiles
    "split": lambda key: jax.random.normal(jax.random.split(key, (3, 2))[2, 1], (4,)),
    "folded in": lambda key: jax.random.normal(jax.random.fold_in(jax.random.clone(key), 9), (4,)),
    "many keys": lambda key: jax.vmap(lambda k: jax.random.normal(k, (3,)))(jax.random.split(key, 8)),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_draws_are_those_of_jax(draw):
    function = jax.jit(DRAWS[draw])
    for seed in SEEDS:
        expected = function(jax.random.key(seed, impl="threefry2x32"))
        np.testing.assert_array_equal(function(jax.random.key(seed, impl=GENERATOR)), expected)


def test_doubles_are_those_of_jax():
    with jax.enable_x64(True):
        ours, theirs = (jax.random.normal(jax.random.key(3, impl=impl), (9,)) for impl in (GENERATOR, "threefry2x32"))
    assert ours.dtype == jnp.float64
    np.testing.assert_array_equal(ours, theirs)


def test_a_chain_of_keys_costs_what_its_links_do():
    """Computed anew wherever it is used, a key of thirty would take 2³⁰ hashes."""

    def last(key):
        for i in range(30):
            key = jax.random.fold_in(key, i)
        return jax.random.bits(key, (3,))

    many = jax.jit(jax.vmap(last))
    ours, theirs = (many(jax.random.split(jax.random.key(1, impl=impl), 4)) for impl in (GENERATOR, "threefry2x32"))
    np.testing.assert_array_equal(ours, theirs)


def test_with_the_older_order_of_counters_too():
    warn_once.cache_clear()
    slower = pytest.warns(RuntimeWarning, match="jax_threefry_partitionable is False, so JAX's own kernels draw")
    with jax.threefry_partitionable(False), slower:
        ours, theirs = (jax.random.bits(jax.random.key(3, impl=impl), (9,)) for impl in (GENERATOR, "threefry2x32"))
    np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(ours, jax.random.bits(jax.random.key(3, impl=GENERATOR), (9,)))


def test_where_the_option_is_gone_jax_draws(monkeypatch):
    warn_once.cache_clear()
    # As JAX's options are looked up.
    monkeypatch.setattr(type(jax.config), "jax_threefry_partitionable", property(lambda _: None))
    with pytest.warns(RuntimeWarning, match="jax_threefry_partitionable is None"):
        ours = jax.random.bits(jax.random.key(3, impl=GENERATOR), (11,))
    monkeypatch.undo()
    np.testing.assert_array_equal(ours, jax.random.bits(jax.random.key(3), (11,)))


def test_lanes_draw_with_it_without_loops():
    draw = jax.jit(lambda key: jax.random.normal(key, (64, 64)))
    key = lane_key(0, 0)
    np.testing.assert_array_equal(
        jax.random.key_data(key), jax.random.key_data(jax.random.fold_in(jax.random.key(0), 0))
    )
    loops = [draw.lower(each).compile().as_text().count(" while(") for each in (fast(key), key)]
    assert loops == [0, 1], "where JAX has no loop either, its own will do"


def test_accelerators_keep_jax_s_own():
    def draw(data):
        key = jax.random.wrap_key_data(data, impl=GENERATOR)
        return jax.random.normal(jax.random.fold_in(key, 3), (4,))

    traced = jax.jit(draw).trace(jnp.zeros(2, jnp.uint32))
    for platform in ("cpu", "cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("@hashed" in text) is (platform == "cpu")
        assert ("@_threefry_fold_in" in text) is (platform != "cpu")


def test_keys_in_a_state_keep_their_generators():
    """Those made of the lane's key, and the user's own: the draws are those of a plain loop."""

    def init(key, h):
        return {
            "ours": jax.random.split(key)[0],
            "own": jax.random.key(7),
            "next": jax.random.key(0),
            "w": jnp.zeros(()),
        }

    def step(key, state, batch, h):
        ours, own = (jax.random.fold_in(state[name], 1) for name in ("ours", "own"))
        ours = jnp.where(state["w"] >= 0, ours, jax.random.key(1))  # which may be mixed
        noise = jax.random.uniform(state["next"])
        w = state["w"] + jax.random.uniform(ours) + jax.random.uniform(own) * h.x + noise
        return {"ours": ours, "own": own, "next": jax.random.split(key)[0], "w": w}, {"loss": w}

    program = hpx.Program(init, step, lambda key, state, split, h: {"w": state["w"]}, steps=3)
    sweep = hpx.Sweep(
        program,
        hpx.Space(x=hpx.Uniform(0, 1)),
        sampler=hpx.Manual([{"x": 0.25}, {"x": 0.5}]),
        seed=4,
        objective=hpx.minimize("valid/w"),
    )
    found = sweep.run(progress=False).last("valid/w")[:, 0]
    lane = jax.random.fold_in(jax.random.key(4), 0)
    for x, value in zip((0.25, 0.5), found, strict=True):
        key, own, last, w = jax.random.split(jax.random.fold_in(lane, 0))[0], jax.random.key(7), jax.random.key(0), 0.0
        for t in range(3):
            key, own = jax.random.fold_in(key, 1), jax.random.fold_in(own, 1)
            w = w + jax.random.uniform(key) + jax.random.uniform(own) * x + jax.random.uniform(last)
            last = jax.random.split(jax.random.fold_in(jax.random.fold_in(lane, 2), t))[0]
        assert value == pytest.approx(float(w), rel=1e-6)
