"""Statistics for papers: against closed forms, published tables, other libraries, and counting one by one."""

from itertools import combinations, product

import numpy as np
import pytest
from rliable import metrics
from scipy import integrate, stats

import hpjax as hpx
from tests.support.programs import RATES, quadratic, rates

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(10, 4)) + np.arange(4)


def test_the_expected_best_is_the_mean_over_all_subsets():
    values = RNG.normal(size=7)
    for direction, best in (("minimize", min), ("maximize", max)):
        found = hpx.analysis.expected_best(values, direction)
        wanted = [np.mean([best(each) for each in combinations(values, n)]) for n in range(1, 8)]
        np.testing.assert_allclose(found.expected, wanted, rtol=1e-12)
        assert found.trials.tolist() == [*range(1, 8)]
        without = [hpx.analysis.expected_best(np.delete(values, i), direction).expected for i in range(7)]
        half = stats.t.ppf(0.975, 6) * np.sqrt(6 / 7 * 7 * np.var(without, axis=0))
        np.testing.assert_allclose(found.high[:6] - found.expected[:6], half, rtol=1e-9)
        np.testing.assert_allclose(found.expected[:6] - found.low[:6], half, rtol=1e-9)
        assert np.isnan([found.low[6], found.high[6]]).all()
    lost = hpx.analysis.expected_best([np.nan, *values, np.nan])
    worst = hpx.analysis.expected_best([values.max(), *values, values.max()])
    np.testing.assert_array_equal(lost.expected, worst.expected)


def test_many_trials_do_not_overflow():
    values = (np.arange(3000) + 0.5) / 3000
    found = hpx.analysis.expected_best(values)
    # The expected lowest of n uniform numbers is 1 / (n + 1).
    np.testing.assert_allclose(found.expected[[0, 9, 99]], [1 / 2, 1 / 11, 1 / 101], rtol=0.02)
    assert found.expected[-1] == values[0]


DRAWN = {
    "uniform": (lambda rng, size: rng.random(size), lambda u: u),
    "squares of uniform": (lambda rng, size: rng.random(size) ** 2, lambda u: u**2),
    "normal": (lambda rng, size: rng.normal(size=size), stats.norm.ppf),
    "lognormal": (lambda rng, size: np.exp(rng.normal(size=size)), lambda u: np.exp(stats.norm.ppf(u))),
}


@pytest.mark.parametrize("name", DRAWN)
def test_intervals_of_the_expected_best_hold_the_truth(name, counted):
    """Of 40 trials, at 90 %: four in five up to a quarter of them. Beyond it is less, which the docstring warns of."""
    draw, quantile = DRAWN[name]
    u = (np.arange(200_000) + 0.5) / 200_000
    truth = [(quantile(u) * n * (1 - u) ** (n - 1)).mean() for n in range(1, 41)]
    held = np.zeros(40)
    for seed in range(300):
        found = hpx.analysis.expected_best(draw(np.random.default_rng(seed), 40), confidence=0.9)
        held += (found.low <= truth) & (truth <= found.high)
    shares = ", ".join(f"{held[n - 1] / 300:.2f} for n = {n}" for n in (1, 5, 10, 20, 30))
    counted(f"90 % intervals of the expected best of 40 {name} values hold the truth: {shares}")
    assert (held[:10] / 300 > 0.8 - 3 * 0.023).all(), "three standard errors of a share of 300"


def test_aggregates_are_those_of_rliable():
    found = hpx.analysis.interquartile_mean(SCORES, resamples=5000)
    assert found.value == pytest.approx(metrics.aggregate_iqm(SCORES), rel=1e-12)
    # The rest of rliable needs arch, which is behind pandas: SciPy resamples the runs of each task alone, too.
    other = stats.bootstrap(
        SCORES.T,
        lambda *tasks, axis: np.apply_along_axis(lambda x: stats.trim_mean(x, 0.25), 1, np.hstack(tasks)),
        n_resamples=5000,
        method="percentile",
        vectorized=True,
        rng=1,
    ).confidence_interval
    np.testing.assert_allclose([found.low, found.high], other, atol=0.05 * (other.high - other.low))
    x, y = SCORES, RNG.normal(size=(6, 4)) + 0.5 * np.arange(4)
    improvement = hpx.analysis.probability_of_improvement(x, y, resamples=5000)
    assert improvement.value == pytest.approx(metrics.probability_of_improvement(x, y), rel=1e-12)
    thresholds = np.linspace(-2, 5, 15)
    profile = hpx.analysis.performance_profile(SCORES, thresholds, resamples=100)
    np.testing.assert_allclose(profile.share, (SCORES[..., None] > thresholds).mean(axis=(0, 1)), rtol=1e-12)
    assert ((profile.low <= profile.share) & (profile.share <= profile.high)).all()


def test_improvement_is_the_statistic_of_mann_and_whitney():
    x, y = np.array([1.0, 2, 2, 5]), np.array([0.0, 2, 3])
    u = stats.mannwhitneyu(x, y).statistic
    assert hpx.analysis.probability_of_improvement(x, y).value == pytest.approx(u / 12, rel=1e-12)


def test_pairs_are_those_of_the_paper_and_its_rule_is_read_off():
    assert hpx.analysis.pairs_needed(0.75) == 29  # Bouthillier et al. 2021, appendix C.3
    a = np.arange(40.0)
    better = np.where(np.arange(40) < 36, a - 1, a + 1)  # A wins 36 of 40
    found = hpx.analysis.probability_of_outperforming(a, better)
    assert found.value == 36 / 40
    assert found.significant
    assert found.meaningful
    # The interval is that of a share of 36 in 40, whose standard error is sqrt(0.9 * 0.1 / 40).
    np.testing.assert_allclose([found.low, found.high], 0.9 + np.array([-1.96, 1.96]) * 0.0474, atol=0.02)
    often = np.where(np.arange(400) % 5 < 3, -1.0, 1.0)  # A wins 240 of 400
    slightly = hpx.analysis.probability_of_outperforming(np.zeros(400), often)
    assert (slightly.significant, slightly.meaningful) == (True, False)
    assert str(slightly).endswith("significant, but not meaningful")
    assert not hpx.analysis.probability_of_outperforming(a, a).significant


# Six targets and four judges: P. E. Shrout and J. L. Fleiss 1979, table 2.
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_variances_are_those_of_a_published_table():
    found = hpx.analysis.variances(RATINGS)
    assert found.share == pytest.approx(0.29, abs=0.005), "ICC(2, 1), table 4"
    assert found.residual == pytest.approx(1.02, abs=0.005), "EMS, table 3"
    assert found.trial == pytest.approx((11.24 - 1.02) / 4, abs=0.01), "BMS"
    assert found.seed == pytest.approx((32.49 - 1.02) / 6, abs=0.01), "JMS"


def test_variances_of_random_effects_are_found():
    trials, seeds = RNG.normal(0, 2, (400, 1)), RNG.normal(0, 0.5, (1, 400))
    found = hpx.analysis.variances(trials + seeds + RNG.normal(0, 1, (400, 400)))
    np.testing.assert_allclose([found.trial, found.seed, found.residual], [4, 0.25, 1], rtol=0.2)


def test_steps_to_target_of_a_result():
    sweep = hpx.Sweep(quadratic(20, 5), RATES, sampler=rates(0.05, 0.2, 9.0), devices=1)
    steps = hpx.analysis.steps_to_target(sweep.run(progress=False), target=0.01)
    # The loss after t steps is (1 − 2 · rate)²ᵗ.
    wanted = [next((t for t in (5, 10, 15, 20) if abs(1 - 2 * r) ** (2 * t) <= 0.01), np.inf) for r in (0.05, 0.2, 9)]
    assert steps[:, 0].tolist() == wanted == [np.inf, 5, np.inf]


def test_studies_are_medians_of_minima():
    times = [5.0, 3, 4, 1, 2, np.inf]
    medians = []
    for order in product(range(6), repeat=6):  # all orders, each as probable
        if len({*order}) == 6:
            drawn = np.array(times)[list(order)].reshape(3, 2)
            medians.append(np.median(drawn.min(axis=1)))
    found = hpx.analysis.median_of_studies(times, studies=3, trials=2, draws=4000)
    assert found.value == np.quantile(medians, 0.5, method="inverted_cdf")
    assert (found.low, found.high) == (min(medians), max(medians))


def test_profile_scores_are_areas_under_profiles():
    times = np.array([[1.0, 10, 3, np.inf], [2, 5, 9, 7], [1.5, 50, 3, 8]])
    ratios = times / times.min(axis=0)
    for scores, own in zip(hpx.analysis.profile_scores(times), ratios, strict=True):
        points = sorted({float(r) for r in own if 1 < r < 4})
        area = integrate.quad(lambda tau, own=own: np.mean(own <= tau), 1, 4, points=points, limit=200)[0] / 3
        assert scores == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda a: a.expected_best([1.0, 2.0]), "values = "),
        (lambda a: a.expected_best([np.nan] * 3), "values = "),
        (lambda a: a.expected_best([1.0, 2.0, 3.0], "lowest"), "direction = 'lowest'"),
        (lambda a: a.expected_best([1.0, 2.0, 3.0], confidence=95), "confidence = 95"),
        (lambda a: a.interquartile_mean([[1.0, np.nan], [2.0, 3.0]]), "scores = .*1 values that are not finite"),
        (lambda a: a.interquartile_mean("high"), "scores = "),
        (lambda a: a.interquartile_mean(SCORES, resamples=3), "resamples = 3"),
        (lambda a: a.performance_profile(SCORES, [np.nan]), "thresholds = "),
        (lambda a: a.probability_of_improvement(SCORES, SCORES[:, :2]), "y = .*must have the 4 tasks"),
        (lambda a: a.probability_of_outperforming([1.0, 2.0], [1.0, 2.0, 3.0]), "b = "),
        (lambda a: a.probability_of_outperforming([1.0, 2.0], [1.0, 2.0], 0.3), "threshold = 0.3"),
        (lambda a: a.pairs_needed(0.5), "threshold = 0.5"),
        (lambda a: a.variances([[1.0], [2.0]]), "must have 2 replicates or more"),
        (lambda a: a.median_of_studies([1.0] * 24), "times = .*must be 25 or more"),
        (lambda a: a.median_of_studies([0.0] * 25), "times = "),
        (lambda a: a.profile_scores([[np.inf], [np.inf]]), "times = "),
        (lambda a: a.profile_scores([[1.0]], worst=1), "worst = 1"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(hpx.InputError, match=named):
        call(hpx.analysis)
