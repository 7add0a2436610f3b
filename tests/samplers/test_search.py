"""The promises of every sampler and scheduler, and that the checks of them can fail."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest

import hpjax as hpx
from hpjax import testing
from hpjax.samplers import Observation
from tests.support.counting import compilations
from tests.support.marks import slow
from tests.support.programs import RATES, quadratic

OPTUNA = {
    "TPE": lambda kinds: kinds.TPESampler(n_startup_trials=6),
    "multivariate TPE": lambda kinds: kinds.TPESampler(n_startup_trials=6, multivariate=True, group=True),
    "random": lambda kinds: kinds.RandomSampler(),
    "QMC": lambda kinds: kinds.QMCSampler(seed=3),
    "CMA-ES": lambda kinds: kinds.CmaEsSampler(),
}
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.mark.parametrize(
    "sampler",
    [hpx.Sobol(), hpx.Random(), hpx.Refine(), hpx.CoordinateDescent(), slow(hpx.Bayes(initial=6))],
    ids=repr,
)
def test_samplers(sampler):
    testing.check_sampler(sampler)


def test_samplers_that_end():
    space = hpx.Space(size=hpx.Choice(*range(40)), rate=0.1)
    testing.check_sampler(hpx.Grid(), space)
    testing.check_sampler(hpx.Manual([{"size": size} for size in range(40)]), space)


class Unbased(hpx.Sobol):
    """Passes over the baseline."""

    def ask(self, space, history, n, seed):
        return self.propose(space, history, len(history), n, seed)


@pytest.mark.filterwarnings("ignore:.*independent.*")
@pytest.mark.parametrize("name", OPTUNA)
def test_samplers_of_optuna(name):
    numbers = name in ("QMC", "CMA-ES")
    testing.check_sampler(hpx.Optuna(OPTUNA[name](optuna.samplers)), *((testing.SPACE,) if numbers else ()))


@pytest.mark.parametrize(
    "scheduler",
    [
        hpx.Halving(3),
        hpx.Halving(2, 5),
        hpx.Hyperband(3),
        hpx.MedianStop(3),
        hpx.EarlyStop(20),
        hpx.PBT(10),
        hpx.PBT(7, exploit="tournament", explore="crossover"),
        hpx.PBT(5, explore="resample"),
    ],
    ids=repr,
)
def test_schedulers(scheduler):
    testing.check_scheduler(scheduler, trials=143 if isinstance(scheduler, hpx.Hyperband) else 27)


class Forgetful(hpx.Sampler):
    """Another answer at every question."""

    asked = 0

    def propose(self, space, history, start, n, seed):
        self.asked += 1
        return hpx.Random().propose(space, history, start, n, seed + self.asked)


class Outside(hpx.Sampler):
    def propose(self, space, history, start, n, seed):
        return [point | {"rate": 7.0} for point in hpx.Sobol().propose(space, history, start, n, seed)]


class Few(hpx.Sampler):
    def propose(self, space, history, start, n, seed):
        return hpx.Sobol().propose(space, history, start, max(n - 1, 0), seed)


class Stubborn(hpx.Scheduler):
    def decide(self, race):
        return [0]


class Cruel(hpx.Scheduler):
    def decide(self, race):
        return race.live


class Backward(hpx.Scheduler):
    def next(self, step):
        return 5

    def decide(self, race):
        return []


@pytest.mark.parametrize("bad", [Forgetful, Outside, Few, Stubborn, Cruel, Backward, Unbased])
def test_the_checks_can_fail(bad):
    bad = bad()
    check = testing.check_sampler if isinstance(bad, hpx.Sampler) else testing.check_scheduler
    with pytest.raises((AssertionError, hpx.InputError)):
        check(bad)


def test_optuna_is_asked_and_told_as_by_hand():
    """The same points as a study of Optuna's own, with the same seed, asked and told in the same batches."""
    space = hpx.Space(x=hpx.Uniform(0, 1), y=hpx.LogUniform(1e-3, 1), n=hpx.Int(1, 9), c=hpx.Choice("a", "b"))
    kinds = optuna.distributions
    distributions = {
        "x": kinds.FloatDistribution(0, 1),
        "y": kinds.FloatDistribution(1e-3, 1, log=True),
        "n": kinds.IntDistribution(1, 9),
        "c": kinds.CategoricalDistribution([0, 1]),
    }

    def value(x, y, n, c):
        return (x - 0.3) ** 2 + y + n / 10 + (c == "b")

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=5))
    study.sampler._rng.rng.seed(4)
    study.sampler._random_sampler._rng.rng.seed(4)
    sampler, history = hpx.Optuna(optuna.samplers.TPESampler(n_startup_trials=5)), []
    for number in range(3):
        points = sampler.ask(space, history, 6, seed=4)
        trials = [study.ask(distributions) for _ in range(6)]
        for point, trial in zip(points, trials, strict=True):
            expected = trial.params
            assert point["n"] == expected["n"]
            assert point["c"] == "ab"[expected["c"]]
            assert point["x"] == pytest.approx(expected["x"], abs=1e-3), "rounded, as all points are"
            assert point["y"] == pytest.approx(expected["y"], rel=2e-3)
            study.tell(trial, value(**point))
        history += [Observation(point, (value(**point),), 1, number) for point in points]
    # Another instance, as after a restart, asks for everything again and is where the first is.
    again = hpx.Optuna(optuna.samplers.TPESampler(n_startup_trials=5))
    assert again.ask(space, history, 6, seed=4) == sampler.ask(space, history, 6, seed=4)


def test_cma_es_moves_towards_the_minimum():
    space = hpx.Space(x=hpx.Uniform(0, 1), y=hpx.Uniform(0, 1))
    sampler, history = hpx.Optuna(optuna.samplers.CmaEsSampler()), []
    for number in range(16):
        points = sampler.ask(space, history, 8, seed=0)
        history += [Observation(p, ((p["x"] - 0.8) ** 2 + (p["y"] - 0.1) ** 2,), 1, number) for p in points]
    first, last = (np.mean([seen.score for seen in history if seen.round in rounds]) for rounds in ((0, 1), (14, 15)))
    assert last < 0.2 * first


def test_refine_halves_the_box_around_the_best():
    space = hpx.Space(
        rate=hpx.LogUniform(1e-4, 1.0), drop=hpx.Uniform(0, 1), act=hpx.Choice("a", "b", "c"), n=hpx.Int(1, 100)
    )
    best = {"rate": 1e-2, "drop": 0.9, "act": "b", "n": 50}
    history = [
        Observation(point, (0.0 if point is best else 1.0,), 1, number)
        for number, point in ((0, best), (1, best | {"n": 3}))
    ]
    points = hpx.Refine(shrink=0.5).ask(space, history, 64, seed=0)
    rates = np.log10([point["rate"] for point in points])
    assert rates.min() == pytest.approx(-2.5, abs=0.1)
    assert rates.max() == pytest.approx(-1.5, abs=0.1)
    drops = [point["drop"] for point in points]
    assert min(drops) == pytest.approx(0.75, abs=0.02)
    assert max(drops) == pytest.approx(1.0, abs=0.02)
    kinds = [point["act"] for point in points]
    assert kinds.count("b") / 64 == pytest.approx(0.75 + 0.25 / 3, abs=0.05)
    assert {"a", "c"} <= set(kinds)


def test_coordinate_descent_changes_one_hyperparameter_of_the_best():
    """Windows by hand: of width 1/4 after two rounds, moved where they would leave the domain."""
    space = hpx.Space(
        rate=hpx.LogUniform(1e-4, 1.0), drop=hpx.Uniform(0, 1), act=hpx.Choice("a", "b", "c"), fixed=7
    ) | hpx.Space(other=hpx.Uniform(0, 1))
    best = {"rate": 1e-2, "drop": 0.95, "act": "b", "fixed": 7}
    history = [
        Observation(point, (0.0 if point is best else 1.0,), 1, number)
        for number, point in ((0, best), (1, best | {"act": "a"}), (1, {"other": 0.5}))
    ]
    points = hpx.CoordinateDescent(shrink=0.5).ask(space, history, 12, seed=0)
    changed = [[name for name in best if point.get(name) != best[name]] for point in points]
    moved = {name: [p[name] for p, names in zip(points, changed, strict=True) if names == [name]] for name in best}
    np.testing.assert_allclose(sorted(moved["drop"]), 0.75 + 0.25 * np.array([0.125, 0.375, 0.625, 0.875]), atol=1e-4)
    np.testing.assert_allclose(
        np.log10(sorted(moved["rate"])) / 4 + 1, 0.375 + 0.25 * np.array([0.125, 0.375, 0.625, 0.875]), atol=1e-4
    )
    assert moved["act"] == ["c"], "a was tried, and b is the best"
    assert moved["fixed"] == []
    assert len({str(point) for point in points}) == 12, "the rest are other points of the whole space"


def test_coordinate_descent_tries_both_sides_where_a_round_has_one_point_each():
    space = hpx.Space(x=hpx.Uniform(0, 1), y=hpx.Uniform(0, 1))
    history = [Observation({"x": 0.5, "y": 0.5}, (0.0,), 1)]
    first = hpx.CoordinateDescent().ask(space, history, 2, seed=0)
    assert first == [{"x": 0.375, "y": 0.5}, {"x": 0.5, "y": 0.375}]
    history += [Observation(point, (1.0,), 1, round=1) for point in first]
    assert hpx.CoordinateDescent().ask(space, history, 2, seed=0) == [{"x": 0.5625, "y": 0.5}, {"x": 0.5, "y": 0.5625}]


def test_coordinate_descent_finds_a_minimum_that_chance_does_not():
    space = hpx.Space(x=hpx.Uniform(0, 1), y=hpx.Uniform(0, 1), z=hpx.Uniform(0, 1))
    target = np.array([0.8, 0.1, 0.35])
    best = {}
    for sampler in (hpx.CoordinateDescent(), hpx.Sobol()):
        history = []
        for number in range(7):
            points = sampler.ask(space, history, 18, seed=0)
            scores = [float(np.sum((np.array([p["x"], p["y"], p["z"]]) - target) ** 2)) for p in points]
            history += [Observation(p, (score,), 1, number) for p, score in zip(points, scores, strict=True)]
        best[type(sampler)] = min(seen.score for seen in history)
    assert best[hpx.CoordinateDescent] < 0.1 * best[hpx.Sobol]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hpx.Optuna("TPE"), "Optuna.sampler = 'TPE': must be a sampler of Optuna"),
        (lambda: hpx.Optuna(optuna.samplers.TPESampler), "must be a sampler of Optuna"),
        (lambda: hpx.Halving(math.inf), r"Halving.factor = inf: must be a number, 2 or more"),
        (lambda: hpx.EarlyStop(3, "x"), r"EarlyStop.min_delta = 'x': must be a number, 0 or more"),
        (lambda: hpx.minimize("valid/loss", quantile="x"), r"minimize.quantile = 'x': must lie between 0 and 1"),
        (lambda: hpx.PBT(9, resample="x"), r"PBT.resample = 'x': must lie between 0 and 1"),
        (
            lambda: hpx.Optuna(optuna.samplers.GridSampler({"x": [1]})),
            r"Optuna.sampler = .*: must be one that never runs out of points",
        ),
        (lambda: hpx.Choice(["a", "b"]), r"must be hashable.*Write Choice\('a', 'b'\)"),
        (lambda: testing.check_sampler(hpx.Sobol), r"check_sampler.sampler = .*: must be a Sampler"),
        (lambda: hpx.Refine(1.0), r"Refine.shrink = 1.0: must lie between 0 and 1"),
        (lambda: hpx.CoordinateDescent(0.0), r"CoordinateDescent.shrink = 0.0: must lie between 0 and 1"),
        (lambda: hpx.Refine(math.nan), r"Refine.shrink = nan: must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(hpx.InputError, match=message):
        make()


def test_a_pack_is_an_objective(tmp_path):
    """Diverged points are infinite on the bad side; a second pack compiles nothing."""
    program = quadratic()
    objective = hpx.as_objective(hpx.Sweep(program, RATES, trials=1, replicates=2))
    values = objective([{"rate": 0.1}, {"rate": 1e6}])
    assert values == [pytest.approx(0.8**20, rel=1e-4), math.inf]
    with compilations() as programs:
        objective([{"rate": 0.2}, {"rate": 0.3}])
    assert programs == []
    defaults = hpx.Space(rate=hpx.LogUniform(1e-3, 1e6, default=0.4))
    with_default = hpx.as_objective(hpx.Sweep(program, defaults, trials=1))
    assert with_default([{"rate": 0.1}, {"rate": 0.4}]) == [pytest.approx(r**20, rel=1e-4) for r in (0.8, 0.2)]
    other = hpx.as_objective(hpx.Sweep(program, RATES, trials=1, objective=hpx.maximize("valid/loss")))
    assert other([{"rate": 1e6}]) == [-math.inf]


def test_a_sweep_becomes_a_study_of_optuna(tmp_path):
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1e6), size=hpx.Int(1, 3), kind=hpx.Choice("a", "b")) | hpx.Space(
        rate=hpx.LogUniform(1e-3, 1e6), kind="c"
    )
    points = [
        {"rate": 0.1, "size": 1, "kind": "a"},
        {"rate": 1e6, "size": 3, "kind": "b"},
        {"rate": 0.3, "kind": "c"},
        {"rate": 0.01, "kind": "c"},
    ]
    sweep = hpx.Sweep(quadratic(20, 5), space, sampler=hpx.Manual(points), scheduler=hpx.Halving(2, 5))
    result = sweep.run(tmp_path / "run", progress=False)
    result.to_optuna(tmp_path / "journal.log")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.load_study(study_name="hpjax", storage=storage)
    assert [trial.params for trial in study.trials] == result.hparams
    names = {"complete": "COMPLETE", "stopped": "PRUNED", "diverged": "FAIL"}
    assert [trial.state.name for trial in study.trials] == [names[status] for status in result.statuses]
    assert study.best_trial.number == result.best.id
    assert study.best_value == result.best.metrics["valid/loss"]
    curve = result.best.curve("valid/loss")[0]
    assert study.best_trial.intermediate_values == dict(zip((5, 10, 15, 20), curve.tolist(), strict=True))
    loaded = hpx.load(tmp_path / "run")
    loaded.to_optuna(tmp_path / "journal.log", name="again")
    assert len(optuna.load_study(study_name="again", storage=storage).trials) == 4


def cursed(truth, sigma, replicates, seed):
    """A sweep whose objective is a known value with known noise, the same of each replicate for all, and some alike."""

    def init(key, h):
        return jnp.zeros(())

    def evaluate(key, state, split, h):
        mine, common = jax.random.normal(key), 3.0
        return {"loss": h.truth + sigma * mine + common}

    program = hpx.Program(init, lambda key, s, b, h: (s, {}), evaluate, steps=1)
    points = [{"truth": float(value)} for value in truth]
    space = hpx.Space(truth=hpx.Uniform(-1, 100))
    sweep = hpx.Sweep(
        program, space, sampler=hpx.Manual(points), replicates=replicates, randomness="independent", seed=seed
    )
    return sweep.run(progress=False)


def test_the_winner_s_curse_of_equal_trials_is_that_of_the_normal_distribution():
    """The expected maximum of 50 normal numbers is 2.249 (H. L. Harter, 1961)."""
    found = [hpx.winners_curse(cursed(np.zeros(50), 2.0, 4, seed)) for seed in range(3)]
    assert np.mean(found) == pytest.approx(2.249 * 2.0 / 2, rel=0.15)


def test_who_wins_by_far_is_not_cursed():
    assert hpx.winners_curse(cursed(np.arange(20) * 5.0, 0.5, 3, 0)) < 0.02


def test_the_curse_wants_replicates():
    with pytest.raises(hpx.InputError, match="replicates = 1: must be 2 or more"):
        hpx.winners_curse(cursed(np.arange(5), 1.0, 1, 0))
    with pytest.raises(hpx.InputError, match="trials = 2: must be 3 or more"):
        hpx.winners_curse(cursed(np.arange(2), 1.0, 2, 0))


def test_replicates_are_judged_by_their_mean_or_by_a_quantile():
    """One trial is better on average, the other at its worst; direction and divergence in one place."""
    values = np.array([[0.0, 0.0, 1.2], [0.5, 0.5, 0.5], [0.1, 0.1, np.nan]])
    status, step = np.full((3, 3), "complete"), np.full((3, 3), 9)
    assert hpx.minimize("valid/loss").rank(values, status, step) == [0, 1]
    assert hpx.minimize("valid/loss", quantile=1.0).rank(values, status, step) == [1, 0]
    assert hpx.minimize("valid/loss", quantile=0.5).rank(values, status, step) == [0, 1]
    assert hpx.maximize("valid/loss", quantile=1.0).rank(values, status, step) == [1, 0]
    assert hpx.maximize("valid/loss", quantile=0.0).rank(values, status, step) == [0, 1]
    some = np.random.default_rng(0).random((5, 4))
    found = hpx.maximize("a", quantile=0.25).aggregate(some)
    np.testing.assert_allclose(-found, np.quantile(some, 0.75, axis=1))
    with pytest.raises(hpx.InputError, match=r"minimize.quantile = 2: must lie between 0 and 1"):
        hpx.minimize("valid/loss", quantile=2)


def test_samplers_and_schedulers_see_the_quantile():
    told = []

    class Telling(hpx.Sampler):
        def propose(self, space, history, start, n, seed):
            told.extend(history)
            return [{"truth": float(i)} for i in range(n)]

    def evaluate(key, state, split, h):
        return {"loss": h.truth + jax.random.uniform(key)}

    program = hpx.Program(lambda key, h: jnp.zeros(()), lambda key, s, b, h: (s, {}), evaluate, steps=1)
    objective = hpx.minimize("valid/loss", quantile=1.0)
    sweep = hpx.Sweep(
        program,
        hpx.Space(truth=hpx.Uniform(0, 9)),
        trials=4,
        rounds=2,
        replicates=3,
        sampler=Telling(),
        objective=objective,
    )
    result = sweep.run(progress=False)
    worst = result.last("valid/loss").max(axis=1)
    assert [seen.scores for seen in told] == [(pytest.approx(value),) for value in worst[:2]]
    assert result.objective == objective
