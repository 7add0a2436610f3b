"""Bayesian optimization: the Gaussian process against scikit-learn's, the proposals against known minima."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

import hpjax as hpx
from hpjax.samplers import Bayes, Observation, Random, Sobol
from hpjax.samplers import gaussian_process as gp
from hpjax.samplers.bayes import Columns, standardized

LENGTHS, NOISE = np.array([0.3, 1.2, 0.7]), 0.05


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.random((40, 3))
    return x, np.sin(5 * x[:, 0]) + x[:, 1] + 0.2 * rng.standard_normal(40)


@pytest.fixture(scope="module")
def theirs(data):
    kernel = Matern(LENGTHS, nu=2.5) + WhiteKernel(NOISE)
    return GaussianProcessRegressor(kernel, alpha=gp.JITTER, optimizer=None).fit(*data)


def ours(data, share=None):
    x, y = data
    return (
        gp.Hyper(jnp.log(LENGTHS), jnp.log(NOISE)),
        gp.padded(x, y, np.ones(40) if share is None else share),
        np.arange(3),
    )


def test_the_likelihood_and_its_slope_are_scikit_learn_s(data, theirs):
    value, slope = theirs.log_marginal_likelihood(theirs.kernel_.theta, eval_gradient=True)
    with jax.enable_x64(True):
        hyper, seen, groups = ours(data)
        found, gradient = jax.jit(jax.value_and_grad(gp.log_likelihood))(hyper, seen, groups)
    assert found == pytest.approx(value, rel=1e-10)
    np.testing.assert_allclose([*gradient.lengths, gradient.noise], slope, rtol=1e-6)


def test_the_posterior_is_scikit_learn_s(data, theirs):
    places = np.random.default_rng(1).random((25, 3))
    mean, deviation = theirs.predict(places, return_std=True)
    with jax.enable_x64(True):
        believed = jax.jit(gp.posterior)(*ours(data), places)
    np.testing.assert_allclose(believed.mean, mean, rtol=1e-8)
    np.testing.assert_allclose(believed.variance, deviation**2 - NOISE, rtol=1e-6)


def test_replicates_lower_the_noise(data):
    share = np.where(np.arange(40) < 20, 0.25, 1.0)
    places = np.random.default_rng(1).random((25, 3))
    reference = GaussianProcessRegressor(Matern(LENGTHS, nu=2.5), alpha=NOISE * share + gp.JITTER, optimizer=None)
    mean, deviation = reference.fit(*data).predict(places, return_std=True)
    with jax.enable_x64(True):
        believed = jax.jit(gp.posterior)(*ours(data, share), places)
    np.testing.assert_allclose(believed.mean, mean, rtol=1e-8)
    np.testing.assert_allclose(believed.variance, deviation**2, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # a length at its bound
def test_the_fit_is_as_likely_as_scikit_learn_s(data):
    """Theirs maximizes the likelihood alone; ours may lose what the prior gains it."""
    kernel = Matern(LENGTHS, nu=2.5) + WhiteKernel(NOISE)
    best = GaussianProcessRegressor(kernel, alpha=gp.JITTER, n_restarts_optimizer=5, random_state=0).fit(*data)
    with jax.enable_x64(True):
        _, seen, groups = ours(data)
        starts = gp.Hyper(np.log([[0.2] * 3, [1.0] * 3, [3.0] * 3]), np.array([-6.0, -3.0, -1.0]))
        found = gp.fit(starts, seen, groups, steps=200)
        objective = [
            float(gp.log_likelihood(h, seen, groups) + gp.log_prior(h))
            for h in (found, gp.Hyper(best.kernel_.theta[:3], best.kernel_.theta[3]))
        ]
    assert objective[0] >= objective[1] - 1e-3


@pytest.mark.parametrize("z", [-30.0, -10.0, -5.1, -4.9, -1.0, 0.0, 3.0])
def test_expected_improvement(z):
    """The integral of the normal distribution, below z."""
    value, _ = integrate.quad(lambda t: math.exp(special.log_ndtr(t) - special.log_ndtr(z)), -np.inf, z, epsabs=0)
    with jax.enable_x64(True):
        found = float(gp.log_improvement(jnp.float64(1.0), jnp.float64(2.0), jnp.float64(1.0 + 2.0 * z)))
    assert found == pytest.approx(math.log(2.0) + math.log(value) + special.log_ndtr(z), rel=1e-3)


def branin(x, y):
    """Its minima are 0.397887 (Dixon and Szegő, 1978)."""
    x, y = 15 * x - 5, 15 * y
    bowl = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def searched(sampler, space, function, rounds, batch=16, seed=0):
    history = []
    for _ in range(rounds):
        points = sampler.ask(space, history, batch, seed)
        history += [Observation(point, (function(**point),), 1) for point in points]
    return history


SQUARE = hpx.Space(x=hpx.Uniform(0, 1), y=hpx.Uniform(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_the_minimum_of_branin(seed):
    best = min(seen.score for seen in searched(Bayes(), SQUARE, branin, 5, seed=seed))
    assert best < 0.397887 + 0.01
    assert min(seen.score for seen in searched(Random(), SQUARE, branin, 5, seed=seed)) > 0.397887 + 0.05


@pytest.mark.slow
def test_a_large_batch_has_no_near_duplicates():
    space = hpx.Space(**{f"x{i}": hpx.Uniform(0, 1) for i in range(5)})

    def bowl(**x):
        return sum((value - 0.3) ** 2 for value in x.values())

    points = Sobol().ask(space, [], 1000, 0)
    history = [Observation(point, (bowl(**point),), 1) for point in points]
    batch = Bayes().ask(space, history, 256, 0)
    places = np.array([space.to_unit(point) for point in batch])
    apart = np.sqrt(((places[:, None] - places[None]) ** 2).sum(-1)) + np.eye(256)
    assert apart.min() >= 0.0099
    assert np.median(apart.min(1)) > 0.03
    assert not {tuple(p.values()) for p in batch} & {tuple(p.values()) for p in points}
    # And it knows where the bowl is.
    assert np.median([bowl(**point) for point in batch]) < 0.3 * np.median([seen.score for seen in history])


def test_conditional_and_unordered_hyperparameters():
    """One alternative and one choice in it are better; the batch goes there."""
    space = hpx.Space(kind="a", x=hpx.Uniform(0, 1), act=hpx.Choice("relu", "tanh", "gelu")) | hpx.Space(
        kind="b", z=hpx.LogUniform(1e-3, 1)
    )

    def function(kind, x=0.0, act=None, z=0.0):
        return (x - 0.7) ** 2 + {"relu": 1.0, "tanh": 0.0, "gelu": 2.0}[act] if kind == "a" else 3.0 + z

    history = searched(Bayes(), space, function, rounds=3)
    last = history[-16:]
    assert sum(seen.point["kind"] == "a" and seen.point["act"] == "tanh" for seen in last) >= 12
    assert min(seen.score for seen in history) < 1e-3
    columns = Columns(space).of([{"kind": "a", "x": 0.5, "act": act} for act in ("relu", "tanh")])
    assert np.linalg.norm(columns[0] - columns[1]) == pytest.approx(1.0)


@pytest.mark.slow
def test_diverged_trials_are_bad_news():
    """The minimum lies next to rates at which everything diverges."""

    def function(x, y):
        return math.inf if x > 0.5 else (x - 0.45) ** 2 + (y - 0.2) ** 2

    history = searched(Bayes(), SQUARE, function, rounds=4)
    assert sum(math.isinf(seen.score) for seen in history[:16]) >= 6
    assert sum(math.isinf(seen.score) for seen in history[-16:]) <= 6
    assert min(seen.score for seen in history) < 1e-3


def test_scores_are_standardized():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(90), np.full(5, 1e9), np.full(5, np.inf)])
    found = standardized(scores)
    assert found.mean() == pytest.approx(0, abs=1e-12)
    assert found.std() == pytest.approx(1)
    assert len(np.unique(found[90:])) == 1
    assert (found[90:] > found[:90].max()).all()
    assert np.array_equal(np.argsort(found[:90]), np.argsort(scores[:90]))
    assert not standardized(np.full(4, 0.5)).any()


def test_a_finite_space_is_tried_whole_before_anything_is_tried_twice():
    space = hpx.Space(n=hpx.Int(1, 30))
    history = searched(Bayes(), space, lambda n: (n - 7) ** 2, rounds=3, batch=10)
    assert sorted(seen.point["n"] for seen in history) == list(range(1, 31))


@pytest.mark.slow
def test_a_sweep_in_rounds_with_it():
    def step(key, w, batch, h):
        w = w - h.rate * 2 * (w - 1)
        return w, {"loss": (w - 1) ** 2}

    program = hpx.Program(
        lambda key, h: jnp.zeros(()), step, lambda key, w, split, h: {"loss": (w - 1) ** 2}, steps=3, eval_every=3
    )
    space = hpx.Space(rate=hpx.Uniform(1e-3, 10.0))
    result = hpx.Sweep(program, space, trials=32, rounds=4, sampler=Bayes()).run(progress=False)
    assert result.best.metrics["valid/loss"] < 1e-5, "a rate of 1/2 ± 0.07; that of 32 even ones is off by 0.15"


def test_initial_that_cannot_be():
    with pytest.raises(hpx.InputError, match=r"Bayes.initial = 0: must be a whole number, 1 or more"):
        Bayes(initial=0)
