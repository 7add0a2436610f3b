"""Schedules against Optax's, step by step, with every number traced; what Optax has not, against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.interpolate import PchipInterpolator

import hpjax as hpx
from hpjax.core.bounds import collecting

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


def traced_over(make, numbers):
    """The schedule that ``make`` makes of a list of numbers, all of which are traced."""
    return jax.jit(lambda numbers: jax.vmap(make(numbers))(COUNTS))(numbers)


def rising(values, warmup, init=0.1, peak=0.5):
    """Values of a fall, with those of a straight line before the end of the rise."""
    return np.where(warmup > COUNTS, init + (peak - init) * COUNTS / max(warmup, 1), values)


@pytest.mark.parametrize("warmup", [0, 16])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 7.0])
def test_rex_is_the_hyperbola_of_its_papers(warmup, beta):
    """Of Naganuma et al. with β; with β = 1/2 equation 1 of Chen et al., (1 − z) / (1/2 + (1 − z)/2)."""
    z = np.clip((COUNTS - warmup) / (100 - warmup), 0, 1)
    with np.errstate(invalid="ignore"):
        share = np.where(z < 1, (1 - z) / (1 - (1 - beta) * z), 0)
    if beta == 0.5:
        np.testing.assert_allclose(share, (1 - z) / (0.5 + (1 - z) / 2))
    expected = rising(0.02 + 0.48 * share, warmup)
    make = hpx.optim.warmup_rex_decay_schedule
    np.testing.assert_allclose(over(make(0.1, 0.5, warmup, 100, 0.02, beta)), expected, atol=1e-6)
    traced = traced_over(lambda n: make(*n), [0.1, 0.5, warmup, 100, 0.02, beta])
    np.testing.assert_allclose(traced, expected, atol=1e-6)


@pytest.mark.parametrize("warmup", [0, 16])
@pytest.mark.parametrize(
    ("exponent", "share"), [(0.0, (1, 1)), (0.5, (0.8**0.5, 0.6**0.5)), (1, (0.8, 0.6)), (2, (0.64, 0.36))]
)
def test_square_root_decay_is_the_ellipse_of_its_paper(warmup, exponent, share):
    """√(1 − z²)ᵅ, which for z = 0.6 and 0.8 is 0.8ᵅ and 0.6ᵅ."""
    z = np.clip((COUNTS - warmup) / (100 - warmup), 0, 1)
    expected = rising(0.02 + 0.48 * np.sqrt(1 - z**2) ** exponent, warmup)
    make = hpx.optim.warmup_sqrt_decay_schedule
    np.testing.assert_allclose(over(make(0.1, 0.5, warmup, 100, 0.02, exponent)), expected, atol=1e-6)
    traced = traced_over(lambda n: make(*n), [0.1, 0.5, warmup, 100, 0.02, exponent])
    np.testing.assert_allclose(traced, expected, atol=1e-6)
    schedule = make(0.0, 1.0, warmup, warmup + 100, exponent=exponent)
    np.testing.assert_allclose([float(schedule(warmup + step)) for step in (60, 80)], share, atol=1e-6)


def test_straight_lines_through_points_are_those_of_numpy_and_optax():
    points = [(5, 0.1), (30, 0.5), (31, 0.2), (64.5, 0.3), (100, 0.0)]
    expected = np.interp(COUNTS, *np.transpose(points))
    np.testing.assert_allclose(over(hpx.optim.piecewise_linear_schedule(points)), expected, atol=1e-6)
    traced = traced_over(hpx.optim.piecewise_linear_schedule, points)
    np.testing.assert_allclose(traced, expected, atol=1e-6)
    theirs = optax.piecewise_interpolate_schedule("linear", 0.2, {40: 2.0, 100: 0.25})
    ours = hpx.optim.piecewise_linear_schedule([(0, 0.2), (40, 0.4), (100, 0.1)])
    np.testing.assert_allclose(over(ours), over(theirs), atol=1e-6)


@pytest.mark.parametrize("many", [2, 3, 4, 6])
def test_splines_are_scipy_s(many):
    """At the first and the last step, at all between, and beyond; through points that rise, fall, turn and stay."""
    rng = np.random.default_rng(many)
    run = jax.jit(lambda points: jax.vmap(hpx.optim.spline_schedule(points))(COUNTS))
    for values in (rng.uniform(0, 1, many), np.sort(rng.uniform(0, 1, many))[::-1], np.repeat([0.3, 0.7], many)[:many]):
        steps = np.sort(rng.choice(LENGTH, many, replace=False))
        expected = PchipInterpolator(steps, values)(np.clip(COUNTS, steps[0], steps[-1]))
        points = list(zip(steps.tolist(), values.tolist(), strict=True))
        np.testing.assert_allclose(run(points), expected, atol=1e-6)
    np.testing.assert_allclose(over(hpx.optim.spline_schedule(points)), expected, atol=1e-6)


SHARES = [(0.3, 0.7, 0.25, 0.1), (0.0, 1.0, 0.0, 0.4), (1.0, 0.2, 1.0, 1.0), (0.5, 0.0, 0.5, 0.5)]


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize(
    ("name", "through"), [("two_point_linear_schedule", np.interp), ("two_point_spline_schedule", None)]
)
def test_two_points_are_shares_of_what_is_left(name, through, shares):
    """Of the warmup family's paper: x₁ = x₀ + Δ₁ (1 − x₀), x₂ = x₁ + Δ₂ (1 − x₁), y₂ = Δy₂ y₁, whose end is 0."""
    x1, y1, x2, y2 = shares
    steps = [20, 20 + x1 * 80, 0, 100]
    steps[2] = steps[1] + x2 * (100 - steps[1])
    values = np.array([0.5, 0.5 * y1, 0.5 * y1 * y2, 0.0])
    # Of points at one step the last one counts, on the right of the jump.
    last = [i for i in range(4) if i == 3 or steps[i] < steps[i + 1]]
    at, place = np.array(steps)[last], values[last]
    first = [i for i in range(4) if i == 0 or steps[i] > steps[i - 1]]
    if through is None and last == first:
        expected = PchipInterpolator(at, place)(np.clip(COUNTS, 20, 100))
    elif through is None:
        expected = None
    else:
        expected = np.where(COUNTS >= 100, 0, np.interp(COUNTS, steps, values))
    make = getattr(hpx.optim, name)
    concrete = over(make(0.1, 0.5, 20, 100, (x1, y1), (x2, y2)))
    traced = traced_over(lambda n: make(n[0], n[1], n[2], n[3], n[4:6], n[6:8]), [0.1, 0.5, 20, 100, *shares])
    np.testing.assert_allclose(traced, concrete, atol=1e-6)
    assert (np.diff(concrete[20:]) <= 1e-7).all()
    assert concrete.min() >= 0
    assert concrete.max() <= 0.5
    assert (concrete[100:] == 0).all()
    if expected is not None:
        np.testing.assert_allclose(concrete, rising(expected, 20), atol=1e-6)


@pytest.mark.parametrize("peak_at", [0.05, 0.45, 0.8])
def test_a_smooth_non_monotonic_schedule_is_scipy_s_spline_through_sorted_points(peak_at):
    """With the peak before, between and after the points at 0.2 and 0.2 + 0.5 (1 − 0.2) = 0.6."""
    points = [(0, 0.1), (20, 0.3 * 0.5), (60, 0.9 * 0.5), (100 * peak_at, 0.5), (100, 0.2)]
    expected = PchipInterpolator(*np.transpose(sorted(points)))(np.minimum(COUNTS, 100))
    make = hpx.optim.smooth_nonmonotonic_schedule
    concrete = over(make(0.1, 0.5, 100, peak_at, (0.2, 0.3), (0.5, 0.9), 0.2))
    np.testing.assert_allclose(concrete, expected, atol=1e-6)
    numbers = [0.1, 0.5, 100, peak_at, 0.2, 0.3, 0.5, 0.9, 0.2]
    traced = traced_over(lambda n: make(*n[:4], n[4:6], n[6:8], n[8]), numbers)
    np.testing.assert_allclose(traced, expected, atol=1e-6)


def test_of_several_points_at_one_step_of_a_smooth_schedule_the_last_holds():
    """Start, first, second, peak, end, in this order."""
    make = hpx.optim.smooth_nonmonotonic_schedule
    at_start = make(0.1, 1.0, 100, 0.5, (0.0, 0.2), (0.0, 0.3))
    assert [round(float(at_start(step)), 6) for step in (0, 50, 100)] == [0.3, 1.0, 0.0]
    at_peak = make(0.1, 1.0, 100, 0.5, (0.5, 0.2), (0.0, 0.3))
    assert [round(float(at_peak(step)), 6) for step in (0, 50, 100)] == [0.1, 1.0, 0.0]
    assert float(at_peak(49)) < 0.21


def test_a_spline_never_leaves_the_values_of_its_points():
    """In float32, at a million steps, where rounding would make a learning rate negative."""
    schedule = hpx.optim.spline_schedule([(0, 3e-4), (300_000, 2.9e-4), (900_000, 1e-7), (1_000_000, 0.0)])
    values = np.asarray(jax.vmap(schedule)(np.arange(0, 1_000_100, 7)))
    assert values.min() == 0
    assert values.max() <= np.float32(3e-4)
    assert (np.diff(values) <= 1e-10).all()


def test_points_at_one_step_jump_to_the_second():
    for make in (hpx.optim.piecewise_linear_schedule, hpx.optim.spline_schedule):
        schedule = make([(0, 1.0), (10, 1.0), (10, 0.5), (20, 0.5)])
        assert [float(schedule(step)) for step in (0, 9, 10, 15, 20, 25)] == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("name", ["piecewise_linear_schedule", "spline_schedule"])
def test_points_out_of_order_are_refused(name):
    make = getattr(hpx.optim, name)
    with pytest.raises(hpx.InputError, match=rf"{name}.steps_from_point_2_to_3 = -10: must be 0 or more"):
        make([(0, 1.0), (30, 0.5), (20, 0.0)])
    with pytest.raises(hpx.InputError, match=rf"{name}.points = \[\(0, 1.0\)\]: must be two or more pairs"):
        make([(0, 1.0)])
    with collecting() as found:
        jax.eval_shape(lambda step: make([(0, 1.0), (step, 0.5)])(3), 1.0)
    assert [(each.field, each.low) for each in found] == [(f"{name}.steps_from_point_1_to_2", 0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": (1.2, 0.5)}, r"first\[0\] = 1.2: must lie between 0 and 1"),
        ({"second": (0.2, -0.5)}, r"second\[1\] = -0.5: must lie between 0 and 1"),
        ({"warmup_steps": 100}, "warmup_steps = 100: must be less than 100"),
    ],
)
def test_two_points_outside_of_what_is_left_are_refused(change, message):
    numbers = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5, "decay_steps": 100}
    numbers |= {"first": (0.5, 0.5), "second": (0.5, 0.5)}
    for name in ("two_point_linear_schedule", "two_point_spline_schedule"):
        with pytest.raises(hpx.InputError, match=f"{name}.{message}"):
            getattr(hpx.optim, name)(**numbers | change)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("warmup_sqrt_decay_schedule", {"exponent": -1.0}, "exponent = -1.0: must be 0 or more"),
        ("warmup_sqrt_decay_schedule", {"warmup_steps": 100}, "warmup_steps = 100: must be less than 100"),
        ("smooth_nonmonotonic_schedule", {"peak_at": 1.5}, "peak_at = 1.5: must lie between 0 and 1"),
        ("smooth_nonmonotonic_schedule", {"first": (-0.5, 0.5)}, r"first\[0\] = -0.5: must lie between 0 and 1"),
        ("smooth_nonmonotonic_schedule", {"second": (0.5, 2.0)}, r"second\[1\] = 2.0: must lie between 0 and 1"),
        ("smooth_nonmonotonic_schedule", {"transition_steps": 0}, "transition_steps = 0: must be 1 or more"),
    ],
)
def test_numbers_that_make_no_schedule_are_refused(name, change, message):
    numbers = {"init_value": 0.0, "peak_value": 1.0}
    if name == "warmup_sqrt_decay_schedule":
        numbers |= {"warmup_steps": 5, "decay_steps": 100}
    else:
        numbers |= {"transition_steps": 100, "peak_at": 0.5, "first": (0.5, 0.5), "second": (0.5, 0.5)}
    with pytest.raises(hpx.InputError, match=f"{name}.{message}"):
        getattr(hpx.optim, name)(**numbers | change)


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
