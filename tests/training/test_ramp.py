"""Batches that grow while a lane trains, against plain Optax loops over the same examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax import InputError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 3)).astype("float32"), RNG.normal(size=24).astype("float32")
DATA = hpx.data.from_arrays(X, Y, valid=(X, Y), test=(X, Y))
PART, CALLS = 2, 18
# Examples of each complete batch of ``stairs``, worked out by hand: they double after 4 and after 16 examples.
STAIRS = [2, 2, 4, 4, 4, 8, 8]


def stairs(h):
    return optax.piecewise_constant_schedule(2, {4: 2, 16: 2})


def linear(h):
    return optax.linear_schedule(2, 12, 40)


def program(ramp, steps=CALLS, **settings):
    settings = {"optimizer": lambda h: optax.adam(h.rate), "microbatch": PART} | settings
    return hpx.supervised(
        model=nn.Sequential([nn.Dense(1), lambda z: z[:, 0]]),
        loss=hpx.metrics.squared_error,
        data=DATA,
        batch_size=ramp,
        steps=steps,
        eval_every=5,
        **settings,
    )


def order():
    """The examples that a lane sees, in their order: those of a program with whole batches of two."""
    whole = program(PART, microbatch=None)
    key = hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "batch")
    calls = [whole.batch(key, jnp.int32(call), DATA.train, {}) for call in range(CALLS)]
    return np.concatenate([call.x for call in calls]), np.concatenate([call.y for call in calls])


def plain(sizes, make, scale=lambda size: 1.0):
    """Parameters after one step of Optax for each batch."""
    key = hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "init")
    params = program(PART, microbatch=None).init(key, type("h", (), {"rate": 0.05})()).params["layers_0"]
    (xs, ys), at = order(), 0
    optimizer = make(0.05)
    state = optimizer.init(params)
    for size in sizes:
        x, y = xs[at : at + size], ys[at : at + size]
        slopes = jax.grad(lambda p, x=x, y=y: jnp.mean((x @ p["kernel"][:, 0] + p["bias"][0] - y) ** 2))(params)
        updates, state = optimizer.update(slopes, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u, size=size: u * scale(size), updates))
        at += size
    return params


def run(own):
    return hpx.Sweep(own, hpx.Space(rate=0.05), trials=1).run(progress=False)


def test_each_step_takes_the_batch_of_the_ramp():
    """Eighteen microbatches of two: batches of 2, 2, 4, 4, 4, 8 and 8, and four examples that complete no batch."""
    result = run(program(stairs))
    wanted = plain(STAIRS, optax.adam)
    for name, value in wanted.items():
        np.testing.assert_allclose(result[0].restore()["params"]["layers_0"][name], value, rtol=2e-5, atol=1e-6)
    # After 10, 20, 30 and 36 examples; batches end after 2, 4, 8, 12, 16, 24, 32.
    assert result[0].curve("train/optimizer_steps")[0].tolist() == [3, 5, 6, 7]
    assert result[0].curve("train/batch_size")[0].tolist() == [4, 8, 8, 8]


def test_a_smooth_ramp_takes_the_nearest_number_of_microbatches():
    """Sizes of 2 + seen / 4, in whole microbatches of 2."""
    sizes, seen = [], 0
    while True:
        size = PART * int(np.round((2 + seen * 10 / 40) / PART))
        if seen + size > PART * CALLS:
            break
        sizes.append(size)
        seen += size
    result = run(program(linear))
    wanted = plain(sizes, optax.adam)
    for name, value in wanted.items():
        np.testing.assert_allclose(result[0].restore()["params"]["layers_0"][name], value, rtol=2e-5, atol=1e-6)
    assert result[0].metrics["train/optimizer_steps"] == len(sizes)


def test_updates_scale_with_the_batch_size():
    own = program(stairs, optimizer=lambda h: optax.chain(optax.sgd(h.rate), hpx.optim.scale_by_batch_size(2)))
    wanted = plain(STAIRS, optax.sgd, lambda size: (size / 2) ** 0.5)
    for name, value in wanted.items():
        np.testing.assert_allclose(run(own)[0].restore()["params"]["layers_0"][name], value, rtol=2e-5, atol=1e-6)


def test_a_constant_ramp_trains_as_that_batch_size():
    """Steps of one are microbatches, of the other batches."""
    constant = run(program(lambda h: lambda seen: 4))
    fixed = run(program(4, steps=CALLS // 2))
    np.testing.assert_array_equal(
        constant[0].restore()["params"]["layers_0"]["kernel"], fixed[0].restore()["params"]["layers_0"]["kernel"]
    )
    np.testing.assert_allclose(constant[0].curve("train/loss"), fixed[0].curve("train/loss"), rtol=1e-6)


def test_ramps_of_all_lanes_are_one_program():
    own = program(lambda h: optax.linear_schedule(2, h.last, 20))
    sweep = hpx.Sweep(own, hpx.Space(rate=0.05, last=hpx.Choice(2, 6, 12)), sampler=hpx.Grid())
    assert len(sweep.plan().groups) == 1
    sizes = sweep.run(progress=False).last("train/batch_size")[:, 0]
    assert sizes.tolist() == [2, 6, 12]


def test_epochs_of_a_ramp_count_examples():
    assert program(stairs, steps=None, epochs=2.5).length(type("h", (dict,), {})()).steps == 30


@pytest.mark.parametrize(
    ("ramp", "settings", "message"),
    [
        (lambda h: optax.linear_schedule(4, 0.5, 20), {}, r"batch_size = '0.85 after 18 examples.*one microbatch of 2"),
        (lambda h: lambda seen: jnp.nan, {}, "must have one microbatch of 2 examples"),
        (lambda h: optax.linear_schedule(4, 40, 20), {}, "must be at most 24, the size of the training split"),
        (stairs, {"microbatch": None}, "can change while a lane trains only in microbatches"),
        (stairs, {"monitor": ["gradient_noise"]}, "2 microbatches, whose gradients are compared"),
        (stairs, {"train_metrics_every": 3}, "cannot count batches whose size changes"),
        (stairs, {"monitor": ["gradient_norm"]}, "is of whole batches"),
        (
            lambda h: lambda seen: 24,
            {"steps": 11},
            "of a batch at least, and the first one has 12",
        ),
        (lambda h: lambda seen: 2 if seen < 8 else 4, {}, r"Write lambda seen: jnp.where"),
        (optax.linear_schedule(2, 12, 40), {}, "Write batch_size=lambda h: schedule"),
        (lambda h: lambda seen: jnp.ones(2) * 4, {}, r"a ramp of shape \(2,\)"),
    ],
)
def test_a_ramp_that_cannot_run_is_refused(ramp, settings, message):
    with pytest.raises(InputError, match=message):
        hpx.Sweep(program(ramp, **settings), hpx.Space(rate=0.05), trials=1).plan()


def test_weighted_losses_are_reported_at_each_evaluation():
    """Of weights that are all 2, each evaluation has the loss of the unweighted one."""
    weighted = run(program(stairs, weights=lambda y: 0 * y + 2.0))
    np.testing.assert_allclose(weighted[0].curve("train/loss"), run(program(stairs))[0].curve("train/loss"), rtol=1e-5)


@pytest.mark.parametrize("outer", [lambda own: optax.lookahead(own, 5, 0.5), lambda own: optax.contrib.sam(own, own)])
def test_an_optimizer_that_hides_the_batch_size_is_refused(outer):
    own = program(stairs, optimizer=lambda h: outer(optax.chain(optax.sgd(h.rate), hpx.optim.scale_by_batch_size(2))))
    with pytest.raises(InputError, match=r"scale_by_batch_size.*lookahead and sam do not"):
        hpx.Sweep(own, hpx.Space(rate=0.05), trials=1).plan()


def test_the_noise_of_gradients_is_measured_on_a_ramp():
    """Of batches of 4 and 8 in microbatches of 2, equal examples have no noise: tr Σ is 0."""
    same = hpx.data.from_arrays(np.ones((24, 3), "float32"), np.ones(24, "float32"), valid=(X, Y), test=(X, Y))
    own = hpx.supervised(
        model=nn.Sequential([nn.Dense(1), lambda z: z[:, 0]]),
        optimizer=lambda h: optax.sgd(h.rate),
        loss=hpx.metrics.squared_error,
        data=same,
        batch_size=lambda h: optax.piecewise_constant_schedule(4, {8: 2}),
        microbatch=PART,
        steps=CALLS,
        eval_every=CALLS,
        monitor=["gradient_noise"],
    )
    scale = hpx.studies.noise_scale(run(own))
    assert scale.signal.item() > 0
    assert abs(scale.trace.item()) < 1e-4 * scale.signal.item()
