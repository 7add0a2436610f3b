"""Samplers on finite spaces: every point once before any comes again, and sweeps that end with the space."""

import warnings

import numpy as np
import optuna
import pytest

import hpjax as hpx
from hpjax.core.space import point_key
from hpjax.samplers import Observation
from tests.support.programs import quadratic

OPTIONS = [lambda v: v, lambda v: 2 * v]
# Spaces, and how many points each has.
SPACES = {
    "choices": (hpx.Space(a=hpx.Choice(0.1, 0.2), b=hpx.Choice(True, False)), 4),
    "integers": (hpx.Space(a=hpx.Int(-2, 4), b=hpx.LogInt(1, 5)), 35),
    "a default": (hpx.Space(a=hpx.Int(1, 5, default=2), b=hpx.Choice("x", "y", default="x"), c=1), 10),
    "functions that print alike": (hpx.Space(a=hpx.Choice(*OPTIONS), b=hpx.Int(1, 3)), 6),
    "alternatives": (hpx.Space(a=hpx.Choice(1, 2, 3)) | hpx.Space(b=hpx.Int(1, 5)), 8),
    "alternatives that overlap": (hpx.Space(a=hpx.Choice(1, 2)) | hpx.Space(a=hpx.Int(2, 5)), 5),
    "true is not one": (hpx.Space(a=hpx.Choice(1, 2)) | hpx.Space(a=hpx.Choice(True, False)), 4),
    "one point": (hpx.Space(a=1, b="x"), 1),
    "one point, the baseline": (hpx.Space(a=hpx.Choice(1, default=1)), 1),
}
SAMPLERS = {"random": hpx.Random(), "sobol": hpx.Sobol(), "refine": hpx.Refine(), "bayes": hpx.Bayes(initial=3)}


def tpe(**settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hpx.Optuna(optuna.samplers.TPESampler(n_startup_trials=4, **settings))


def asked(sampler, space, rounds, seed=0):
    """The points of several rounds, of which a middling one scores best."""
    history = []
    for number, n in enumerate(rounds):
        points = sampler.ask(space, history, n, seed)
        history += [Observation(p, (float(len(repr(p)) % 7),), 1, number) for p in points]
    return [seen.point for seen in history]


@pytest.mark.parametrize("name", SPACES)
def test_the_size_of_a_space(name):
    space, size = SPACES[name]
    assert space.size == size
    assert len(set(map(point_key, space.points()))) == size
    assert (hpx.Space(x=hpx.Uniform(0, 1)) & space if "x" not in space.names else space).size is None


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("sampler", ["random", "sobol"])
@pytest.mark.parametrize("seed", range(3))
def test_every_point_comes_once_before_one_comes_again(name, sampler, seed):
    (space, size), sampler = SPACES[name], SAMPLERS[sampler]
    points = asked(sampler, space, [size], seed)
    assert set(map(point_key, points)) == set(map(point_key, space.points()))
    assert asked(sampler, space, [1] * size, seed) == points, "in parts as at once"
    # All of them again: no error, and as many as were asked for.
    assert len(asked(sampler, space, [3 * size], seed)) == 3 * size


@pytest.mark.parametrize("name", [name for name, (_, size) in SPACES.items() if size > 3])
@pytest.mark.parametrize("sampler", ["refine", "bayes", "tpe"])
def test_samplers_that_learn_repeat_no_point_while_others_are_left(name, sampler):
    space, size = SPACES[name]
    made = tpe() if sampler == "tpe" else SAMPLERS[sampler]
    rounds = [size // 2, size // 4, size - size // 2 - size // 4]
    points = asked(made, space, rounds)
    assert set(map(point_key, points)) == set(map(point_key, space.points()))
    assert len(asked(made, space, [*rounds, 5])) == size + 5


@pytest.mark.parametrize("name", SPACES)
def test_a_grid_of_a_finite_space_is_all_of_it_once(name):
    space, size = SPACES[name]
    assert hpx.Grid().size(space) == size
    points = hpx.Grid().ask(space, [], size, 0)
    assert sorted(map(str, map(point_key, points))) == sorted({str(point_key(p)) for p in space.points()})


def test_a_batch_of_optuna_has_no_point_twice_and_optuna_learns_of_its_proposals():
    """TPE proposes the same few points of a small space again; each trial that it began is told a score."""
    space = hpx.Space(a=hpx.Int(1, 6), b=hpx.Int(1, 6))
    sampler = tpe(seed=0)
    points = asked(sampler, space, [12, 12, 8])
    assert len(set(map(point_key, points))) == 32
    study = sampler._kept[0][-1]._study
    states = [trial.state for trial in study.get_trials()]
    waiting = states.count(optuna.trial.TrialState.RUNNING)
    assert 8 <= waiting < len(states) - 20, "only those of the last batch wait for their scores"
    scores = {}
    for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        scores.setdefault(tuple(trial.params.values()), set()).add(trial.value)
    assert all(len(values) == 1 for values in scores.values())


def test_numbers_that_are_rounded_do_not_come_twice():
    """A domain has about 5,000 numbers, of which chance meets some again among 400."""
    points = hpx.Random().ask(hpx.Space(x=hpx.Uniform(0, 1)), [], 400, 0)
    by_chance = {round(u, 4) for u in np.random.default_rng(0).random((400, 1))[:, 0]}
    assert len(by_chance) < 400
    assert len({p["x"] for p in points}) == 400


SMALL = hpx.Space(rate=hpx.Choice(0.1, 0.2), size=hpx.Choice(2, 3))


def sweep(space=SMALL, **more):
    return hpx.Sweep(quadratic(10, 5), space, **({"trials": 32} | more))


def hints(made, word):
    return [hint for hint in made.plan().hints if word in hint]


def test_a_sweep_ends_with_the_space(tmp_path):
    made = sweep(space=hpx.Space(rate=hpx.Choice(0.1, 0.2), flag=hpx.Choice(True, False)))
    assert hints(made, "space") == [
        "the space has 4 points, and each is tried once: the sweep ends after so many of the 32 trials that were asked "
        "for. Write replicates=2 for more seeds of each."
    ]
    result = made.run(tmp_path / "run", progress=False)
    assert len({tuple(trial.hparams.items()) for trial in result}) == len(result) == 4
    assert list(made.events(tmp_path / "run")) == []


@pytest.mark.parametrize(
    ("rounds", "planned"), [(1, (4,)), (3, (2, 1, 1)), (8, (1, 1, 1, 1)), ((2, 10, 20), (2, 2)), ((32,), (4,))]
)
@pytest.mark.parametrize("sampler", [hpx.Sobol(), hpx.Bayes(initial=2)], ids=["sobol", "bayes"])
def test_rounds_end_with_the_space(rounds, planned, sampler):
    assert sweep(rounds=rounds, sampler=sampler).plan().rounds == planned


def test_a_sweep_of_fewer_trials_than_points_is_as_asked():
    made = sweep(trials=3)
    assert made.plan().trials == 3
    assert hints(made, "point") == []


def test_a_finished_sweep_is_extended_to_the_end_of_the_space(tmp_path):
    sweep(trials=3).run(tmp_path / "run", progress=False)
    result = sweep(trials=50).run(tmp_path / "run", progress=False, extend=True)
    assert len({tuple(trial.hparams.items()) for trial in result}) == len(result) == 4


def test_under_a_scheduler_the_number_stays_and_repeated_points_are_told():
    made = sweep(scheduler=hpx.Halving(2, 5))
    assert made.plan().trials == 32
    assert hints(made, "another one") == [
        "28 of 32 trials have the hyperparameters of another one, with the same random numbers, and the same results. "
        "The space has 4 points. Leave them out, or write replicates=2 for more seeds of each."
    ]


def test_repeated_points_of_a_list_are_told():
    points = hpx.Manual([{"rate": 0.5, "size": 2}, {"rate": 0.25, "size": 2}, {"rate": 0.5, "size": 2.0}])
    space = hpx.Space(rate=hpx.Uniform(0, 1), size=hpx.Choice(2, 3))
    (told,) = hints(sweep(space, trials=None, sampler=points), "another one")
    assert told.startswith("1 of 3 trials have the hyperparameters of another one, with the same random numbers")
    (told,) = hints(sweep(space, trials=None, sampler=points, randomness="independent"), "another one")
    assert "with noise of its own only" in told
