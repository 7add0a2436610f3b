"""Batch-scaling studies against plain loops, published tables and exact gradients."""

import dataclasses
import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

import hpjax as hpx
from hpjax import plot
from hpjax.frontends.cli import main
from hpjax.results.store.manifest import StudyRecord
from hpjax.studies import (
    BatchScaling,
    BatchScalingResult,
    NoisyQuadratic,
    fit_rates,
    fit_steps,
    noise_scale,
    noise_scale_of,
)
from hpjax.studies.batch_scaling import _estimated_seconds
from hpjax.studies.batch_scaling_result import recorded_answer
from hpjax.studies.plot import draw_rates, draw_scaling
from hpjax.studies.to_target import bootstrap_of_minimum
from hpjax.sweep.planning.width import Measured, Rate
from tests.support.counting import compilations
from tests.support.plain import SEED, train_alone
from tests.support.programs import blobs

SIZES = 2 ** np.arange(6, 15)


# Fits


@pytest.mark.parametrize(
    ("steps", "published"),
    [
        ([46000, 23000, 13282, 7000, 3840, 2528, 1917, 1600, 1600], 745.32),
        ([96000, 49000, 24000, 12000, 7128, 4350, 2940, 2400, 2300], 955.16),
    ],
)
def test_the_batch_size_of_a_fifth_more_examples_is_the_published_one(steps, published):
    """Zhang et al. 2024, arXiv 2410.21676."""
    assert fit_steps(SIZES, steps).overhead_batch_size(256) == pytest.approx(published, abs=0.005)


def test_a_curve_of_the_law_is_found_again():
    fit = fit_steps(SIZES, 300 * (1 + 1000 / SIZES))
    assert (fit.minimum_steps, fit.critical_batch_size) == pytest.approx((300, 1000), rel=1e-6)
    assert fit.minimum_examples == pytest.approx(300_000, rel=1e-6)
    steps = fit.steps(500.0)
    # McCandlish et al. 2018, equation 2.11.
    assert (steps / fit.minimum_steps - 1) * (steps * 500 / fit.minimum_examples - 1) == pytest.approx(1)
    rise = 1e-6
    slope = np.log(fit.steps(500 * (1 + rise)) / steps) / np.log1p(rise)
    assert fit.slope(500.0) == pytest.approx(slope, rel=1e-4)


def test_a_straight_line_has_a_critical_batch_size_beyond_it():
    fit = fit_steps([1, 2, 4], [100.0, 50.0, 25.0])
    assert np.isfinite(fit.critical_batch_size)
    assert fit.critical_batch_size > 400


@pytest.mark.parametrize(
    ("law", "rates"),
    [
        ("linear", 0.002 * SIZES),
        ("square root", 0.002 * np.sqrt(SIZES)),
        ("surge", 0.1 / (0.5 * (np.sqrt(700 / SIZES) + np.sqrt(SIZES / 700)))),
    ],
)
def test_laws_of_the_learning_rate_are_told_apart(law, rates):
    best, *others = fit_rates(SIZES, rates)
    assert best.law == law
    np.testing.assert_allclose(best.rate(SIZES), rates, rtol=1e-4)
    assert best.error < 1e-4 < min(other.error for other in others)


def test_two_points_make_no_fit():
    for fit in (fit_steps, fit_rates):
        with pytest.raises(hpx.InputError, match=r"2 points.: needs 3 or more batch sizes"):
            fit([1, 2, 4], [3.0, np.inf, 1.0])


@pytest.mark.parametrize(
    ("sizes", "values"), [([1, 2, 4], [3.0, 2.0]), ([0, 2, 4], [3.0, 2.0, 1.0]), ([1, 2, 4], [3.0, -2.0, 1.0])]
)
def test_points_that_are_none_are_refused(sizes, values):
    for fit in (fit_steps, fit_rates):
        with pytest.raises(hpx.InputError, match="must be two lists of positive numbers of one length"):
            fit(sizes, values)
    with pytest.raises(hpx.InputError, match=r"2 points.: needs 3 or more"):
        fit_steps([4, 4, 8], [3.0, 3.0, 2.0])


def test_the_bootstrap_of_the_minimum_is_that_of_many_draws():
    values = np.array([7.0, 3.0, 9.0, 12.0, np.inf, 5.0, 8.0, 20.0])
    draws = np.random.default_rng(0).choice(values, (200_000, len(values))).min(axis=1)
    expected = np.sort(draws)[[int(0.025 * len(draws)), int(0.975 * len(draws))]]
    assert bootstrap_of_minimum(values) == tuple(expected)


# The noisy quadratic model


@pytest.mark.parametrize(
    ("power", "steps"),
    [
        (0.0, [1507367, 379858, 95759, 25880, 10609, 8117, 7447, 7309, 7276, 7268]),
        (0.5, [345591, 86273, 21587, 5421, 1366, 342, 106, 88, 85, 84]),
    ],
)
def test_steps_of_the_noisy_quadratic_model_are_the_published_ones(power, steps):
    """Zhang et al. 2019, arXiv 1907.04164."""
    assert NoisyQuadratic(power=power).steps_to(4 ** np.arange(1, 11)).tolist() == steps


def moments(model, rate, size, steps):
    """The expected loss after 0 … ``steps`` steps, by a plain loop over second moments."""
    h = model.curvatures
    a, m, noise = rate * h**-model.power, model.momentum, h / size
    tt, tv, vv = np.ones_like(h), np.zeros_like(h), np.zeros_like(h)
    losses = [np.sum(h * tt) / 2]
    for _ in range(steps):
        tv, vv = m * tv + h * tt, m**2 * vv + 2 * m * h * tv + h**2 * tt + noise
        tt, tv = tt - 2 * a * tv + a**2 * vv, tv - a * vv
        losses.append(np.sum(h * tt) / 2)
    return np.array(losses)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
def test_expected_losses_are_those_of_a_loop_over_moments(power, momentum):
    model = NoisyQuadratic(dimensions=40, distinct=15, power=power, momentum=momentum)
    rates, steps = np.array([0.003, 0.1, 0.9]), np.arange(0, 301)
    for rate in rates:
        expected = moments(model, rate, 32, 300)
        # The paper's 1e-8 in the denominator of the limit is all that differs.
        np.testing.assert_allclose(model.loss(rate, 32, steps), expected, rtol=2e-6)
    target = 0.08
    exact = [moments(model, rate, 32, 3000) for rate in rates]
    last = min(max(np.flatnonzero(losses >= target).max(), 1) if losses[-1] < target else np.inf for losses in exact)
    assert model.steps_to([32], target, rates).tolist() == [last]


def test_a_rate_that_is_too_high_never_settles():
    model = NoisyQuadratic(dimensions=10, distinct=5, momentum=0.5)
    assert model.loss(10.0, 4, 100) == np.inf
    assert model.steps_to([4], 0.01, [10.0]).tolist() == [np.inf]


def test_the_simulation_agrees_with_the_closed_form():
    model = NoisyQuadratic(dimensions=20, distinct=20, power=0.5, momentum=0.6)
    points = [{"learning_rate": rate, "batch_size": size} for rate, size in ((0.05, 2), (0.3, 16), (0.02, 2))]
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1), batch_size=hpx.LogInt(1, 1024))
    sweep = hpx.Sweep(model.program(steps=60, eval_every=15), space, sampler=hpx.Manual(points), replicates=400, seed=3)
    with compilations() as programs:
        losses = sweep.run(progress=False).curves("valid/loss")
    assert len([name for name in programs if "advance_lanes" in name]) == 1, "batch sizes are traced"
    for point, found in zip(points, losses, strict=True):
        expected = model.loss(point["learning_rate"], point["batch_size"], np.array([15, 30, 45, 60]))
        error = found.std(axis=0) / np.sqrt(len(found))
        assert (np.abs(found.mean(axis=0) - expected) < 4 * error).all()
        assert (error < 0.15 * expected).all()


def test_settings_of_the_model_are_checked():
    for settings, field in (
        ({"dimensions": 0}, "dimensions"),
        ({"distinct": 1}, "distinct"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"power": np.nan}, "power"),
    ):
        with pytest.raises(hpx.InputError, match=f"NoisyQuadratic.{field}"):
            NoisyQuadratic(**settings)
    model = NoisyQuadratic(dimensions=10)
    for call, field in (
        (lambda: model.loss(0.1, 4, -1), "loss.steps = -1.0"),
        (lambda: model.loss([0.1, -0.1], 4, 1), "loss.learning_rate = -0.1"),
        (lambda: model.loss(0.1, 0, 1), "loss.batch_size = 0.0"),
        (lambda: model.steps_to([4], target=0.0), "steps_to.target = 0.0"),
        (lambda: model.steps_to([4], learning_rates=[]), r"steps_to.learning_rates = \[\]: must not be empty"),
        (lambda: model.steps_to([4.5]), "steps_to.batch_sizes = 4.5"),
    ):
        with pytest.raises(hpx.InputError, match=f"NoisyQuadratic.{field}"):
            call()


# The gradient noise scale


def test_two_batch_sizes_tell_noise_from_gradient():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(400_000, 3)) * [1.0, 2.0, 0.5] + [0.3, -0.2, 0.1]
    squares = [np.square(gradients.reshape(-1, size, 3).mean(axis=1)).sum(axis=1) for size in (4, 32)]
    found = noise_scale_of(4, 32, *squares)
    assert float(found.signal) == pytest.approx(0.14, rel=0.05)
    assert float(found.trace) == pytest.approx(5.25, rel=0.02)
    assert float(found.simple) == pytest.approx(37.5, rel=0.06)
    assert float(noise_scale_of(4, 8, [1.0], [0.2]).simple) == np.inf, "no gradient to be seen"
    with pytest.raises(hpx.InputError, match=r"noise_scale_of.big = 4: must differ from 4"):
        noise_scale_of(4, 4, squares[0], squares[0])


def linear(**changes):
    settings = {"batch_size": lambda h: h.batch, "microbatch": 4, "steps": 300, "eval_every": 300} | changes
    return hpx.supervised(
        model=nn.Dense(3),
        optimizer=lambda h: optax.sgd(h.rate),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=blobs(),
        monitor=["gradient_noise"],
        **settings,
    )


def test_the_noise_of_microbatches_is_that_of_exact_gradients():
    """At fixed weights, for a batch of which the last microbatch is short; in epochs, without replacement."""
    program = linear()
    space = hpx.Space(rate=0.0, batch=hpx.Choice(8, 18))
    sweep = hpx.Sweep(program, space, sampler=hpx.Grid(), devices=1)
    result = sweep.run(progress=False)
    found = noise_scale(result, window=100)
    train = program.data.train
    n = len(train.y)
    for trial, size in enumerate((8, 18)):
        params = jax.tree.map(jnp.asarray, result[trial].restore()["params"])

        def loss(params, x, y):
            return optax.softmax_cross_entropy_with_integer_labels(nn.Dense(3).apply({"params": params}, x), y)

        each = jax.vmap(jax.grad(loss), (None, 0, 0))(params, train.x, train.y)
        each = np.concatenate([np.reshape(leaf, (n, -1)) for leaf in jax.tree.leaves(each)], axis=1)
        trace = each.var(axis=0, ddof=1).sum()
        signal = np.square(each.mean(axis=0)).sum() - trace / n
        last = np.flatnonzero(np.isfinite(found.signal[trial, 0]))[-1]
        assert found.signal[trial, 0, last] == pytest.approx(signal, rel=0.1), size
        assert found.trace[trial, 0, last] == pytest.approx(trace, rel=0.03), size
        assert found.simple[trial, 0, last] == pytest.approx(trace / signal, rel=0.1), size
        layers = [noise_scale(result, window=100, layer=layer) for layer in ("bias", "kernel")]
        own = each[:, :3], each[:, 3:]  # leaves in the order of their names
        for layer, gradients in zip(layers, own, strict=True):
            own_trace = gradients.var(axis=0, ddof=1).sum()
            assert layer.trace[trial, 0, last] == pytest.approx(own_trace, rel=0.15), size
            own_signal = np.square(gradients.mean(axis=0)).sum() - own_trace / n
            assert layer.signal[trial, 0, last] == pytest.approx(own_signal, abs=0.1 * float(signal)), size
        for name in ("signal", "trace"):
            added = sum(getattr(layer, name)[trial, 0, last] for layer in layers)
            assert added == pytest.approx(getattr(found, name)[trial, 0, last], rel=1e-4)
    with pytest.raises(hpx.InputError, match=r"noise_scale.layer = 'kernels': .* Did you mean 'kernel'"):
        noise_scale(result, layer="kernels")


@pytest.mark.slow
def test_noise_where_evaluations_fall_between_batches():
    """A batch of five parts, an evaluation every two: two of five see no batch, and the others one."""
    program = linear(batch_size=20, steps=10, eval_every=2)
    sweeps = (
        hpx.Sweep(dataclasses.replace(program, eval_every=every), hpx.Space(rate=0.0), trials=1) for every in (2, 5)
    )
    apart, whole = (noise_scale(sweep.run(progress=False)) for sweep in sweeps)
    signal = apart.signal[0, 0]
    np.testing.assert_array_equal(np.isnan(signal[:5]), [True, True, False, True, False])
    np.testing.assert_allclose(signal[~np.isnan(signal)], whole.signal[0, 0], rtol=1e-4)
    np.testing.assert_allclose(apart.trace[0, 0][~np.isnan(signal)], whole.trace[0, 0], rtol=1e-4)


def test_noise_without_parts_is_refused():
    with pytest.raises(hpx.InputError, match=r"supervised.monitor = 'gradient_noise': needs microbatches"):
        linear(microbatch=None)
    space = hpx.Space(rate=0.1, batch=hpx.Choice(4, 8))
    with pytest.raises(hpx.InputError, match=r"gradient_noise.*cannot tell noise from gradient where a batch, of 4"):
        hpx.Sweep(linear(), space, sampler=hpx.Grid()).plan()


# The study


def decay(steps, eval_every=1, critical=16.0):
    """A loss that shrinks by 1 − rate · B/(B + critical) a step, from 1; it overflows above rate 4."""

    def init(key, h):
        return jnp.ones(())

    def step(key, w, batch, h):
        return w * (1 - h.rate * h.batch_size / (h.batch_size + critical)), {}

    def evaluate(key, w, split, h):
        return {"loss": jnp.where(h.rate > 4, jnp.nan, jnp.abs(w))}

    return hpx.Program(init, step, evaluate, steps=steps, eval_every=eval_every)


SPACE = hpx.Space(rate=hpx.LogUniform(1e-3, 10))
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def plain_study(hparams, target, steps, eval_every):
    """(status, steps to the target or infinity) of each trial, by a loop in float32."""
    found = []
    for h in hparams:
        if h["rate"] > 4:
            found.append(("diverged", np.inf))
            continue
        w, at = np.float32(1), np.inf
        factor = np.float32(1) - np.float32(h["rate"]) * np.float32(h["batch_size"]) / np.float32(h["batch_size"] + 16)
        for t in range(1, steps + 1):
            w = w * factor
            if (t % eval_every == 0 or t == steps) and abs(w) < target:
                at = t
                break
        found.append(("complete", at))
    return found


@pytest.fixture(scope="module")
def study():
    return BatchScaling(decay(steps=400, eval_every=3), SPACE, BATCHES[::-1], target=0.01, trials=12).run(
        progress=False
    )


def test_points_are_those_of_a_plain_loop(study):
    hparams = study.result.hparams
    expected = plain_study(hparams, 0.01, 400, 3)
    assert study.batch_sizes == BATCHES
    for i, size in enumerate(BATCHES):
        own = [t for t, h in enumerate(hparams) if h["batch_size"] == size]
        assert own == list(range(i, 12 * len(BATCHES), len(BATCHES)))
        complete = [t for t in own if expected[t][0] == "complete"]
        reached = [t for t in complete if np.isfinite(expected[t][1])]
        ended = study.counts[i]
        assert ended == (len(complete), len(own) - len(complete), 0, len(reached))
        point = next(p for p in study.points if p.batch_size == size)
        best = min(reached, key=lambda t: (expected[t][1], t))
        assert (point.trial, point.steps) == (best, expected[best][1])
        assert point.hparams == hparams[best]
        assert point.interval == bootstrap_of_minimum([expected[t][1] for t in complete])
    assert study.missing == ()
    rates = {size: [h["rate"] for h in hparams if h["batch_size"] == size] for size in BATCHES}
    assert rates[1] != rates[2], "each batch size has a search of its own"
    assert all(np.ptp(np.log(own)) > 0.75 * np.log(1e4) for own in rates.values()), "all over the space"


def test_trials_end_at_the_target(study):
    steps = np.array([steps for _, steps in plain_study(study.result.hparams, 0.01, 400, 3)])
    taken = study.result.lane_step[:, 0]
    complete = study.result.statuses == "complete"
    np.testing.assert_array_equal(taken[complete], np.where(np.isfinite(steps), steps, 400)[complete])


def test_fit_slopes_and_regimes(study):
    sizes, steps = (np.array([getattr(p, name) for p in study.points], float) for name in ("batch_size", "steps"))
    np.testing.assert_allclose(study.slopes, np.diff(np.log(steps)) / np.diff(np.log(sizes)))
    assert study.fit == fit_steps(sizes, steps)
    critical = study.fit.critical_batch_size
    for size, regime in zip(sizes, study.regimes, strict=True):
        assert regime == (
            "perfect scaling"
            if size < critical / 9
            else "diminishing returns"
            if size <= 9 * critical
            else "maximal data parallelism"
        )
    low, high = study.critical_interval()
    assert low <= critical <= high
    np.testing.assert_allclose(study.best_rates("rate"), [p.hparams["rate"] for p in study.points])


def test_it_prints_and_draws(study, tmp_path):
    text = str(study)
    assert text.startswith("steps to valid/loss below 0.01\n")
    for point in study.points:
        assert f"{point.steps:,}" in text
    assert "critical batch size" in text
    study.plot(tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 10_000
    columns = study.table()
    assert columns["batch_size"].tolist() == list(BATCHES)
    np.testing.assert_array_equal(columns["examples"], columns["steps"] * columns["batch_size"])


def test_the_figure_is_of_these_numbers(study):
    ax = draw_scaling(study, Figure().subplots())
    lines = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
    first = study.points[0]
    np.testing.assert_allclose(lines["perfect scaling"].prod(axis=1), first.steps * first.batch_size)
    np.testing.assert_allclose(lines["fit"][:, 1], study.fit.steps(lines["fit"][:, 0]))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    ax = draw_rates(study, Figure().subplots(), "rate")
    assert {"linear", "square root", "surge"} <= {line.get_label() for line in ax.get_lines()}
    (drawn,) = (
        line.get_xydata() for line in ax.get_lines() if line.get_marker() == "o" and line.get_color() == plot.BLUE
    )
    np.testing.assert_allclose(drawn, [(point.batch_size, point.hparams["rate"]) for point in study.points])


def test_the_command_line_draws_what_a_directory_has(tmp_path):
    study = BatchScaling(decay(200), SPACE, [1, 16, 64], 0.01, trials=4).run(tmp_path / "run", progress=False)
    again = BatchScalingResult.load(tmp_path / "run")
    assert (again.target, again.points, again.counts) == (0.01, study.points, study.counts)
    shown = CliRunner().invoke(main, ["show", str(tmp_path / "run")])
    assert shown.output.startswith("steps to valid/loss below 0.01\n")
    done = CliRunner().invoke(main, ["plot", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "run" / "scaling.png") in done.output.splitlines()
    other = hpx.Sweep(decay(5), SPACE & hpx.Space(batch_size=4), trials=1).run(tmp_path / "other", progress=False)
    assert recorded_answer(other) is None
    with pytest.raises(hpx.RunError, match=r"other' was not run as a batch-scaling study\. Write its target"):
        BatchScalingResult.load(tmp_path / "other")


def test_only_the_first_complete_ones_count(study):
    few = BatchScalingResult.read(study.result, 0.01, complete=3)
    for own, all_of in zip(few.counts, study.counts, strict=True):
        assert own.complete == min(3, all_of.complete)
        assert own[1:3] == all_of[1:3]
    assert all(few_point.steps >= point.steps for few_point, point in zip(few.points, study.points, strict=True))
    assert any(few_point.steps > point.steps for few_point, point in zip(few.points, study.points, strict=True))


def listed(points, target, steps, **changes):
    """A study of listed trials, without stopping any."""
    program = decay(steps, **changes)
    space = SPACE & hpx.Space(batch_size=hpx.Choice(*sorted({p["batch_size"] for p in points})))
    return hpx.Sweep(program, space, sampler=hpx.Manual(points)).run(progress=False), target


def test_strictly_better_counts_and_ties_go_to_the_first():
    # Rate 1 and B = 16: the loss halves every step, exactly.
    points = [{"rate": rate, "batch_size": 16} for rate in (0.5, 1.0, 1.0)]
    result, _ = listed(points, None, 6)
    assert BatchScalingResult.read(result, 0.25).points[0][:2] == (16, 3), "0.25 itself after 2 steps does not count"
    assert BatchScalingResult.read(result, 0.2500001).points[0][:2] == (16, 2)
    first = BatchScalingResult.read(result, 0.25)
    assert first.points[0].trial == 1
    assert first.points[0].evaluations == 3
    assert (
        "batch size 16: the target was met at evaluation 3, so that steps are known to within 33%. "
        "Choose a harder target." in first.doubts
    )
    rarely, _ = listed([{"rate": 1.0, "batch_size": 16}], None, 6, eval_every=2)
    assert (
        "known to within 50%. Choose a harder target, or evaluate more often."
        in BatchScalingResult.read(rarely, 0.25).doubts[0]
    )
    assert not any("met at evaluation" in doubt for doubt in BatchScalingResult.read(result, 0.02).doubts), (
        "of six evaluations"
    )


def test_a_target_that_is_no_float32_is_compared_as_lanes_do():
    """An accuracy of 0.8 in float32 is above the double 0.8, and no better than the target."""

    def evaluate(key, w, split, h):
        return {"accuracy": jnp.float32(0.8) + 0 * w}

    program = hpx.Program(
        lambda key, h: jnp.zeros(()), lambda key, w, batch, h: (w, {}), evaluate, steps=4, eval_every=1
    )
    space = SPACE & hpx.Space(batch_size=hpx.Choice(2, 4))
    better = hpx.maximize("valid/accuracy")
    result = hpx.Sweep(program, space, trials=2, objective=better).run(progress=False)
    assert result.curves("valid/accuracy").dtype == np.float32
    assert BatchScalingResult.read(result, 0.8).points == ()
    assert len(BatchScalingResult.read(result, 0.79999).points) > 0


@pytest.mark.slow
def test_alternatives_and_tuples_are_told_and_drawn():
    space = (hpx.Space(optimizer="a", learning_rate=hpx.LogUniform(0.1, 2)) | hpx.Space(optimizer="b")) & hpx.Space(
        batch_size=hpx.Choice(4, 16, 64), layers=hpx.Choice((8,), (8, 8))
    )
    inner = decay(200)

    def step(key, w, batch, h):
        rate = h.learning_rate if "learning_rate" in h else 0.9
        return inner.step(key, w, batch, hpx.Hparams({"rate": rate, "batch_size": h.batch_size}))

    def evaluate(key, w, split, h):
        return {"loss": jnp.abs(w)}

    program = dataclasses.replace(inner, step=step, evaluate=evaluate)
    points = [{"optimizer": "a", "learning_rate": 0.2, "batch_size": s, "layers": (8,)} for s in (4, 16, 64)]
    points += [{"optimizer": "b", "batch_size": 16, "layers": (8, 8)}]
    result = hpx.Sweep(program, space, sampler=hpx.Manual(points)).run(progress=False)
    found = BatchScalingResult.read(result, 0.01)
    assert [point.hparams["optimizer"] for point in found.points] == ["a", "b", "a"]
    np.testing.assert_array_equal(found.best_rates(), [0.2, np.nan, 0.2])
    assert found.table()["layers"].tolist() == [(8,), (8, 8), (8,)]
    assert "(8, 8)" in str(found)
    found.plot()


def test_hyperparameters_named_like_columns_have_columns_of_their_own():
    space = hpx.Space(
        rate=hpx.Uniform(0.1, 1), steps=hpx.Choice(7, 8), reached=hpx.Choice(True), batch_size=hpx.Choice(4, 16)
    )
    inner = decay(200)
    program = dataclasses.replace(
        inner,
        step=lambda key, w, batch, h: inner.step(
            key, w, batch, hpx.Hparams({"rate": h.rate, "batch_size": h.batch_size})
        ),
        evaluate=lambda key, w, split, h: {"loss": jnp.abs(w)},
    )
    points = [{"rate": 0.5, "steps": steps, "reached": True, "batch_size": size} for steps, size in ((7, 4), (8, 16))]
    found = BatchScalingResult.read(hpx.Sweep(program, space, sampler=hpx.Manual(points)).run(progress=False), 0.01)
    columns = found.table()
    assert columns["steps"].tolist() == [point.steps for point in found.points]
    assert (columns["steps_0"].tolist(), columns["reached_0"].tolist()) == ([7, 8], [True, True])
    assert columns["reached"].tolist() == [1, 1]


def test_batch_sizes_whose_target_was_not_reached_have_no_point():
    points = [{"rate": rate, "batch_size": size} for rate in (5.0, 1.0) for size in (1, 16)]
    result, _ = listed(points, None, 10)
    found = BatchScalingResult.read(result, 0.01)
    assert [point.batch_size for point in found.points] == [16]
    assert found.missing == (1,)
    assert found.counts[0] == (1, 1, 0, 0)
    assert "batch size 1: no point. Of 1 complete trial none reached 0.01; 1 diverged, 0 are incomplete." in str(found)
    assert "no fit: 1 point of 3 needed" in str(found)
    with pytest.raises(hpx.InputError, match="needs 3 or more batch sizes that reached the target"):
        _ = found.fit
    with pytest.raises(hpx.InputError, match="needs 3 or more batch sizes that reached the target"):
        found.critical_interval()
    again = BatchScalingResult.read(result, 0.01)
    assert (str(again), again.points, again.counts) == (str(found), found.points, found.counts)
    nothing = BatchScalingResult.read(result, 1e-9)
    assert nothing.points == ()
    assert nothing.missing == (1, 16)
    nothing.plot()
    str(nothing)


@pytest.mark.slow
def test_what_a_study_cannot_tell_it_does_not(study):
    with pytest.raises(
        hpx.InputError, match=r"read.target = 0.001: is harder than the target at which the trials ended, 0.01"
    ):
        BatchScalingResult.read(study.result, 0.001)
    easier = BatchScalingResult.read(study.result, 0.1)
    assert all(a.steps <= b.steps for a, b in zip(easier.points, study.points, strict=True))
    points = [{"rate": 0.1, "batch_size": size} for size in (64, 128, 256, 512)]
    result, _ = listed(points, None, 200)
    found = BatchScalingResult.read(result, 1e-3)
    assert found.fit.critical_batch_size < 64
    assert any(
        "is outside of the batch sizes, which do not determine it. Add smaller" in doubt for doubt in found.doubts
    )
    points = [{"rate": rate, "batch_size": size} for size in (8, 16, 32, 64) for rate in (1.0, 0.1, 0.1)]
    result, _ = listed(points, None, 400)
    found = BatchScalingResult.read(result, 1e-3)
    assert 8 < found.fit.critical_batch_size < 64
    assert any("reaches beyond the batch sizes. Add" in doubt for doubt in found.doubts)


@pytest.mark.slow
def test_edges_of_the_space_are_told_whatever_was_tried(tmp_path):
    sizes = hpx.Space(batch_size=hpx.Choice(4, 16, 64, 256))
    space = sizes & (
        hpx.Space(kind=hpx.Choice("c", "a"), rate=hpx.LogUniform(0.01, 1.0), layers=hpx.Choice(1, 2, 3))
        | hpx.Space(kind=hpx.Choice("b", "d"), rate=hpx.Uniform(0.01, 5.0), layers=hpx.Choice(1, 2, 3, 4))
    )
    points = [
        {"kind": "a", "rate": 0.9, "layers": 2, "batch_size": 4},
        {"kind": "b", "rate": 0.9, "layers": 3, "batch_size": 16},  # inside of its own alternative, not of the other
        {"kind": "a", "rate": 0.1, "layers": 3, "batch_size": 64},  # the last of several in order
        {"kind": "b", "rate": 0.1, "layers": 2, "batch_size": 256},  # a twentieth is 0.25
    ]
    hpx.Sweep(decay(400), space, sampler=hpx.Manual(points)).run(tmp_path, progress=False)
    found = BatchScalingResult.read(hpx.load(tmp_path), 0.01)
    edges = [{"rate": "highest"}, {}, {"layers": "highest"}, {"rate": "lowest"}]
    assert [dict(point.edges) for point in found.points] == edges
    assert (
        "batch size 4: the best rate, 0.9, is at the highest end of its domain. Widen that domain if a value beyond "
        "makes sense." in found.doubts
    )


def classified(**changes):
    settings = {"batch_size": lambda h: h.batch_size, "steps": 40, "eval_every": lambda h: 16 // h.batch_size} | changes
    settings = {"model": nn.Dense(3)} | settings
    return hpx.supervised(
        optimizer=lambda h: optax.sgd(h.rate),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=blobs(),
        **settings,
    )


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.BatchNorm(not train)(x))


def test_batch_statistics_are_of_whole_batches_where_microbatches_would_be_earlier():
    def microbatch(model):
        program = classified(model=model)
        return BatchScaling(program, SPACE, [4, 8, 16], 0.3, trials=4, seed=1).sweep.program.batches.microbatch

    assert (microbatch(nn.Dense(3)), microbatch(Normalized())) == (4, None)


@pytest.mark.slow
def test_it_takes_microbatches_where_one_program_is_done_earlier():
    sweep = BatchScaling(classified(), SPACE, [4, 8, 16], 0.3, trials=4, seed=1).sweep
    assert sweep.program.batches.microbatch == 4
    assert len(sweep.plan().groups) == 1
    # Where evaluations are so many steps apart for all, it cannot: these are counted in microbatches.
    program = classified(eval_every=4, steps=lambda h: 40)
    apart = BatchScaling(program, SPACE, [4, 8, 16], 0.3, trials=4, seed=1).sweep
    assert apart.program.batches.microbatch is None
    assert [group.eval_every for group in apart.plan().groups] == [4, 4, 4]
    both = [BatchScalingResult.read(each.run(progress=False), 0.3) for each in (sweep, apart)]
    assert both[0].result.hparams == both[1].result.hparams
    trial = next(t for t, h in enumerate(both[0].result.hparams) if h["batch_size"] == 4)
    # At its fourth step both have seen the same examples.
    same = [each.result.curves("valid/loss")[trial, 0, 0] for each in both]
    assert same[0] == pytest.approx(same[1], rel=1e-4)


def test_batches_that_several_devices_share_need_the_steps_of_a_plain_loop():
    """Four devices share large batches, and those of fewer examples than devices; statistics are of whole batches."""
    program, target, rates = classified(model=Normalized(), eval_every=1), 0.75, (0.1, 0.3)
    points = hpx.Manual([{"rate": rate} for rate in rates])
    spanning = {"sampler": points, "seed": SEED, "devices_per_lane": 4, "partition": "fsdp"}
    answer = BatchScaling(program, SPACE, [3, 48], target, **spanning).run(progress=False)
    about = answer.result.manifest.sweep
    assert (about.devices_per_lane, about.partition) == (4, "fsdp")

    def steps(rate, size):
        alone = {"model": Normalized(), "optimizer": optax.sgd(rate), "batch_size": size}
        losses = np.array(train_alone(program.data, steps=40, eval_every=1, **alone)[1])
        return 1 + int(np.argmax(losses < target))

    expected = {size: [steps(rate, size) for rate in rates] for size in (3, 48)}
    assert answer.result.lane_step[:, 0].tolist() == [expected[size][i] for i in (0, 1) for size in (3, 48)]
    assert [(point.batch_size, point.steps) for point in answer.points] == [(s, min(expected[s])) for s in (3, 48)]


@pytest.mark.slow
def test_a_study_of_a_directory_goes_on_and_is_read_again(tmp_path):
    first = BatchScaling(classified(), SPACE, [4, 8, 16], 0.3, trials=4, complete=2).run(tmp_path, progress=False)
    again = BatchScaling(classified(), SPACE, [4, 8, 16], 0.3, trials=4, complete=2)
    again.plan()
    with compilations() as programs:
        assert again.run(tmp_path, progress=False).points == first.points
    assert programs == []
    read = BatchScalingResult.load(tmp_path)
    assert (read.points, read.complete) == (first.points, 2)
    assert again.read(read.result, 0.5).complete == 2
    few = BatchScalingResult.read(first.result, 0.3, complete=100)
    complete = few.counts[0].complete
    assert f"batch size 4: {complete} complete trials, fewer than complete=100. Add trials." in few.doubts


def test_the_manifest_says_what_was_asked(tmp_path):
    question = BatchScaling(decay(20), SPACE, [4, 8], 0.1 + 0.2, trials=1, complete=1)
    result = question.run(tmp_path, progress=False).result
    assert hpx.load(tmp_path).manifest.sweep.study == StudyRecord("batch scaling", 0.1 + 0.2, "batch_size", 1)
    assert BatchScalingResult.load(tmp_path).points == question.read(result).points
    with pytest.raises(hpx.RunError, match=r"study.target: 0.30000000000000004 there, 0.2 here"):
        BatchScaling(decay(20), SPACE, [4, 8], 0.2, trials=1, complete=1).run(tmp_path, progress=False)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sweep"]["study"]["complete"] = 0
    path.write_text(json.dumps(manifest))
    with pytest.raises(hpx.RunError, match=r"sweep.study.complete = 0"):
        hpx.load(tmp_path)


def test_microbatches_keep_what_was_replaced_in_a_program():
    program = classified()
    other = dataclasses.replace(program, react=lambda state, metrics, h: (state, True), describe={"kind": "mine"})
    parts = other.with_microbatch(4)
    assert (parts.react, parts.describe, parts.batches.microbatch) == (other.react, other.describe, 4)
    assert parts.step != other.step
    assert parts.with_microbatch(None).step == program.step
    replaced = dataclasses.replace(program, step=lambda key, state, batch, h: (state, {}))
    assert replaced.with_microbatch(4) is None, "a step of one's own takes the batches that it was written for"
    assert decay(3).with_microbatch(4) is None
    own_step = dataclasses.replace(program, step=lambda *given: program.step(*given))
    assert BatchScaling(own_step, SPACE, [4, 8, 16], 0.3, trials=4, seed=1).sweep.program.step is own_step.step


def test_what_is_measured_does_not_decide_how_batches_are_taken(monkeypatch):
    sweep = BatchScaling(classified(), SPACE, [4, 8, 16], 0.3, trials=4).sweep
    before = _estimated_seconds(sweep)
    plan = sweep.plan()
    (own,) = plan.arrangements
    measured = Measured((Rate(own.width, own.kernels, 1.0),), True, 1e6)
    slow = dataclasses.replace(plan, arrangements=(dataclasses.replace(own, measured=measured),))
    monkeypatch.setattr(type(sweep), "plan", lambda self: slow)
    assert slow.run_seconds > 1e6
    assert _estimated_seconds(sweep) == before


def test_samplers_with_an_end_give_all_of_their_points():
    grid = {"sampler": hpx.Grid(), "steps": 3}
    space = hpx.Space(rate=hpx.LogUniform(0.1, 1, num=5))
    assert BatchScaling(decay(3), space, [4, 8], 0.01, **grid).plan().trials == 10
    with pytest.raises(hpx.InputError, match=r"BatchScaling.trials = 64: must be 5, the number of points of Grid"):
        BatchScaling(decay(3), space, [4, 8], 0.01, trials=64, **grid)


def test_budgets():
    def steps(program=None, **given):
        return list(BatchScaling(program or decay(40), SPACE, [4, 8, 16], 0.3, trials=1, **given).plan().steps)

    examples = len(blobs().train.y)
    assert steps() == [40] * 3
    assert steps(steps=17) == [17] * 3
    assert steps(steps=lambda size: 100 // size) == [25, 12, 6]
    assert steps(classified(), epochs=2) == [-(-2 * examples // size) for size in (4, 8, 16)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": [0, 4]}, r"BatchScaling.batch_sizes = 0: must be a whole number, 1 or more"),
        ({"program": classified(batch_size=8)}, r"BatchScaling.program = 'batch_size': is never read by the program"),
        ({"objective": "valid/loss"}, r"BatchScaling.objective = 'valid/loss': must be of type Objective"),
        ({"space": {}}, r"BatchScaling.space = {}: must be of type Space"),
        ({"complete": 0}, r"BatchScaling.complete = 0"),
        ({"batch_sizes": 64}, r"BatchScaling.batch_sizes = 64: must be a list"),
        (
            {"program": classified(early_stopping=hpx.EarlyStopping(3))},
            r"must be without early_stopping or another finish",
        ),
        ({"batch_sizes": [2.5]}, r"BatchScaling.batch_sizes = 2.5: must be a whole number"),
        ({"batch_sizes": []}, r"BatchScaling.batch_sizes = \[\]: must not be empty"),
        ({"batch_sizes": [4, 4096]}, r"BatchScaling.batch_sizes = 4096: must be at most 54, the examples of"),
        (
            {"batch_sizes": [4, 80], "program": dataclasses.replace(decay(9), data=blobs())},
            r"BatchScaling.batch_sizes = 80: must be at most 54, the examples of the training split",
        ),
        (
            {"target": 50.0},
            r"BatchScaling.target = 50.0: is met before the first step, at which valid/loss is .*\. Write target=\d",
        ),
        ({"target": "low"}, r"BatchScaling.target = 'low'"),
        ({"trials": 0}, r"BatchScaling.trials = 0"),
        ({"steps": 10, "epochs": 1}, r"BatchScaling.epochs = 1: cannot be combined with steps"),
        ({"name": "rate"}, r"BatchScaling.space = 'rate': must not be in the space"),
        ({"objective": hpx.minimize("valid/error")}, r"Sweep.objective = 'valid/error'"),
    ],
)
def test_bad_input(changes, message):
    given = {"program": classified(), "space": SPACE, "batch_sizes": [4, 8], "target": 0.3, "trials": 2} | changes
    with compilations() as programs, pytest.raises(hpx.InputError, match=message):
        BatchScaling(**given).run(progress=False)
    assert not any("_lanes" in name for name in programs)


@pytest.mark.parametrize(("better", "target"), [(hpx.minimize, 50.0), (hpx.maximize, -50.0)])
def test_the_target_that_an_error_names_is_not_met_before_the_first_step(better, target):
    study = BatchScaling(decay(9), SPACE, [4, 8], target, objective=better("valid/loss"), trials=2)
    with pytest.raises(hpx.InputError, match="is met before the first step") as caught:
        study.run(progress=False)
    advised = float(re.fullmatch(r"Write target=(\S+)\.", caught.value.remedy)[1])
    assert len(dataclasses.replace(study, target=advised).run(progress=False).result) == 4


def test_results_of_other_kinds_are_refused():
    result = hpx.Sweep(decay(2), SPACE & hpx.Space(batch_size=4), trials=2, replicates=2).run(progress=False)
    with pytest.raises(hpx.InputError, match=r"read.result = '2 replicates'"):
        BatchScalingResult.read(result, 0.1)
    with pytest.raises(hpx.InputError, match=r"read.name = 'batch': must be a hyperparameter"):
        BatchScalingResult.read(result, 0.1, name="batch")
    with pytest.raises(hpx.InputError, match=r"noise_scale.result = .* must have train/gradient_noise"):
        noise_scale(result)
