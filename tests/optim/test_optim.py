"""Schedules against Optax's, step by step, with every number traced; and what Optax has not, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hpjax as hpx

LENGTH = 120
COUNTS = np.arange(LENGTH + 11)

SCHEDULES = {
    "constant_schedule": {"value": 0.3},
    "linear_schedule": {"init_value": 0.5, "end_value": 0.1, "transition_steps": 90, "transition_begin": 7},
    "polynomial_schedule": {"init_value": 0.5, "end_value": 0.1, "power": 2.5, "transition_steps": 90},
    "cosine_decay_schedule": {"init_value": 0.5, "decay_steps": 100, "alpha": 0.1, "exponent": 1.5},
    "exponential_decay": {"init_value": 0.5, "transition_steps": 20, "decay_rate": 0.7, "transition_begin": 5},
    "warmup_constant_schedule": {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 33},
    "warmup_cosine_decay_schedule": {
        "init_value": 0.01, "peak_value": 0.5, "warmup_steps": 20, "decay_steps": 100, "end_value": 0.1
    },
    "cosine_onecycle_schedule": {"transition_steps": 100, "peak_value": 0.5, "pct_start": 0.25, "div_factor": 10.0},
    "linear_onecycle_schedule": {"transition_steps": 100, "peak_value": 0.5, "pct_start": 0.25, "pct_final": 0.75},
}  # fmt: skip


def over(schedule):
    return np.array([float(schedule(int(count))) for count in COUNTS])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_optax_s_with_every_number_traced(name):
    numbers = SCHEDULES[name]
    traced = jax.jit(lambda numbers, counts: jax.vmap(getattr(hpx.optim, name)(**numbers))(counts))(numbers, COUNTS)
    expected = over(getattr(optax, name)(**numbers))
    np.testing.assert_allclose(traced, expected, atol=1e-6)
    np.testing.assert_allclose(over(getattr(hpx.optim, name)(**numbers)), expected, atol=1e-6)
    assert name in ("constant_schedule",) or len(np.unique(expected)) > 10


@pytest.mark.parametrize(
    "settings", [{"staircase": True}, {"decay_rate": 0.0}, {"end_value": 0.2}, {"decay_rate": 1.2, "end_value": 0.9}]
)
def test_stairs_and_ends_of_an_exponential(settings):
    numbers = SCHEDULES["exponential_decay"] | settings
    expected = over(optax.exponential_decay(**numbers))
    np.testing.assert_allclose(over(hpx.optim.exponential_decay(**numbers)), expected, atol=1e-6)


def test_piecewise_constant_takes_pairs_and_dicts():
    expected = over(optax.piecewise_constant_schedule(0.5, {30: 0.1, 60: 3.0}))
    for given in ({30: 0.1, 60: 3.0}, [(30, 0.1), (60, 3.0)]):
        np.testing.assert_allclose(over(hpx.optim.piecewise_constant_schedule(0.5, given)), expected, atol=1e-6)


@pytest.mark.parametrize(("cycles", "growth", "lengths"), [(4, 1.0, [25] * 4), (3, 2.0, [15, 30, 60]), (1, 3.0, [99])])
def test_restarts_are_optax_s_sgdr(cycles, growth, lengths):
    each = {"init_value": 0.5, "peak_value": 0.5, "warmup_steps": 0, "end_value": 0.05}
    expected = over(optax.sgdr_schedule([each | {"decay_steps": n} for n in lengths]))
    traced = jax.jit(
        lambda total, cycles, growth: jax.vmap(
            hpx.optim.cosine_restarts_schedule(0.5, total, cycles, alpha=0.1, growth=growth)
        )(COUNTS)
    )(sum(lengths), cycles, growth)
    np.testing.assert_allclose(traced, expected, atol=1e-6)


def test_warmup_stable_decay_is_three_lines():
    expected = over(
        optax.join_schedules(
            [optax.linear_schedule(0.1, 0.5, 10), optax.constant_schedule(0.5), optax.linear_schedule(0.5, 0.02, 40)],
            [10, 50],
        )
    )
    ours = hpx.optim.warmup_stable_decay_schedule(0.5, 10, 50, 40, init_value=0.1, end_value=0.02)
    np.testing.assert_allclose(over(ours), expected, atol=1e-6)


def test_inverse_square_root_is_that_of_attention_is_all_you_need():
    """Equation 3, with d_model ** -0.5 such that the peak is 0.5."""
    t, warmup = np.maximum(COUNTS, 1e-9), 16
    expected = 0.5 * np.sqrt(warmup) * np.minimum(t**-0.5, t * warmup**-1.5)
    np.testing.assert_allclose(over(hpx.optim.inverse_sqrt_schedule(0.5, warmup)), expected, atol=1e-6)


def test_half_life_forgets_half():
    """An average that has seen 1 until then and 0 since stands at ½ after as many examples."""
    b2 = hpx.optim.half_life(640, 32)
    assert b2 ** (640 / 32) == pytest.approx(0.5)


def test_noise_has_the_variance_it_says():
    noise = hpx.optim.add_noise(eta=4.0, gamma=1.0)
    zeros = {"a": jnp.zeros((200, 100)), "b": jnp.zeros(20_000)}
    first, state = noise.update(zeros, noise.init(zeros), key=jax.random.key(0))
    second, _ = noise.update(zeros, state, key=jax.random.key(1))
    for updates, variance in ((first, 4.0), (second, 2.0)):
        for leaf in updates.values():
            assert float(leaf.var()) == pytest.approx(variance, rel=0.05)
    assert not np.allclose(np.ravel(first["a"]), first["b"]), "leaves have noise of their own"
