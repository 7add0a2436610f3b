"""Sweeps in rounds: a sampler is asked several times, and told what came of it."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import optuna
import pytest

import hpjax as hpx
from hpjax.samplers import Observation
from tests.support.compare import same_bits
from tests.support.counting import OF_A_GROUP, compilations
from tests.support.programs import RATES, quadratic


@dataclass(frozen=True)
class Closing(hpx.Sampler):
    """Rates ever closer to the best one so far; remembers nothing."""

    def propose(self, space, history, start, n, seed):
        assert start == len(history)
        best = min(history, key=lambda seen: seen.score).point["rate"] if history else 0.01
        return [{"rate": float(np.float32(best * (1 + i / (1 + start))))} for i in range(n)]


def test_each_round_knows_those_before():
    told = []

    class Telling(Closing):
        def propose(self, space, history, start, n, seed):
            told.append(list(history))
            return super().propose(space, history, start, n, seed)

    sweep = hpx.Sweep(quadratic(), RATES, trials=14, rounds=3, sampler=Telling(), width=4, replicates=2)
    with compilations() as programs:
        result = sweep.run(progress=False)
    assert sorted(programs) == OF_A_GROUP
    assert result.rounds.tolist() == [0] * 5 + [1] * 5 + [2] * 4
    assert result.table()["round"].tolist() == result.rounds.tolist()
    assert [len(history) for history in told] == [0, 5, 10]
    losses = result.last("valid/loss")
    assert told[2] == [
        Observation({"rate": result.hparams[t]["rate"]}, tuple(map(float, losses[t])), 10, t // 5) for t in range(10)
    ]
    for trial, h in enumerate(result.hparams):
        np.testing.assert_allclose(losses[trial], (1 - 2 * h["rate"]) ** 20, rtol=1e-4)


def test_rounds_of_a_sampler_that_does_not_learn_change_no_bit():
    whole, parts = (
        hpx.Sweep(quadratic(), hpx.Space(rate=hpx.Uniform(0, 1)), trials=16, rounds=rounds, width=4).run(progress=False)
        for rounds in (1, 4)
    )
    assert whole.hparams == parts.hparams
    assert same_bits(whole.curves("valid/loss"), parts.curves("valid/loss"))


def test_groups_are_those_of_all_rounds(capsys):
    """A size that only a later round tries compiles one more program, those known before none."""

    class Sizes(hpx.Sampler):
        def propose(self, space, history, start, n, seed):
            sizes = {0: [2, 2, 2], 3: [2, 3, 2], 6: [3, 2, 2], 9: [2, 2, 2]}[start]
            return [{"rate": 0.01 * (1 + start + i), "size": size} for i, size in enumerate(sizes)]

    program = quadratic(4, 2, size=lambda h: h.size, data=hpx.Data(*[np.zeros(3)] * 3))
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1), size=hpx.Choice(2, 3, static=True))
    sweep = hpx.Sweep(program, space, trials=12, rounds=4, sampler=Sizes(), width=2)
    with compilations() as programs:
        result = sweep.run()
    assert sum("advance_lanes" in name for name in programs) == 2
    assert "group 1, 2 of 2: compiled" in capsys.readouterr().err
    assert result.groups.tolist() == [0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]
    listed = hpx.Sweep(program, space, sampler=hpx.Manual(result.hparams), width=2)
    alone = listed.run(progress=False)
    assert same_bits(alone.curves("valid/loss"), result.curves("valid/loss"))
    # Also of a trial that the first plan does not know.
    assert result[11].hparams["rate"] == 0.12
    assert set(sweep.models(result).test_metrics(11)) == {"test/loss"}
    assert sweep.models(result).test_metrics(11) == listed.models(alone).test_metrics(11)


def test_every_round_is_a_race_of_its_own():
    sweep = hpx.Sweep(
        quadratic(20, 5),
        hpx.Space(rate=hpx.LogUniform(1e-3, 0.4)),
        trials=24,
        rounds=2,
        scheduler=hpx.Halving(2, 5),
        width=4,
        replicates=2,
    )
    result = sweep.run(progress=False)
    for number in (0, 1):
        steps = np.sort(result.lane_step[result.rounds == number, 0])
        assert steps.tolist() == [5] * 6 + [10] * 3 + [20] * 3
    kinds = [(e.kind, e.round) for e in sweep.events() if e.kind == "decision"]
    assert kinds == [("decision", 0)] * 2 + [("decision", 1)] * 2


def test_a_diverged_trial_is_bad_news():
    told = []

    class Telling(hpx.Sampler):
        def propose(self, space, history, start, n, seed):
            told.extend(history)
            return [{"rate": 1e5 if start == 0 else 0.1}] * n

    hpx.Sweep(quadratic(), RATES, trials=2, rounds=2, sampler=Telling(), replicates=2).run(progress=False)
    assert told == [Observation({"rate": 1e5}, (np.inf, np.inf), 0)]
    assert told[0].score == np.inf


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        (5, "Sweep.rounds = 5: must be at most 4, the trials"),
        (0, "Sweep.rounds = 0: must be a whole number, 1 or more"),
        (None, "Sweep.rounds = None: must be a whole number"),
    ],
)
def test_rounds_that_cannot_be(rounds, message):
    with pytest.raises(hpx.InputError, match=message):
        hpx.Sweep(quadratic(), RATES, trials=4, rounds=rounds).plan()


def test_the_plan_says_that_there_are_more_rounds():
    plan = hpx.Sweep(quadratic(), RATES, trials=10, rounds=3).plan()
    assert plan.rounds == (4, 3, 3)
    assert "10 trials in 3 rounds, of which the first is planned here, × 1 replicate = 10 lanes" in str(plan)
    assert plan.lane_steps == 100


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: hpx.Refine(0.5), lambda: hpx.Refine(0.25)),
        (
            lambda: hpx.Optuna(optuna.samplers.TPESampler()),
            lambda: hpx.Optuna(optuna.samplers.TPESampler(n_startup_trials=3)),
        ),
    ],
)
def test_a_directory_knows_its_sampler(tmp_path, one, other):
    """Also what a later round depends on; and a sampler that has been used is the same as a new one."""

    def sweep(sampler):
        return hpx.Sweep(quadratic(), hpx.Space(rate=hpx.Uniform(0, 1)), trials=8, rounds=2, sampler=sampler)

    used = one()
    first = sweep(used).run(tmp_path / "run", progress=False)
    for sampler in (used, one()):
        with compilations() as programs:
            again = sweep(sampler).run(tmp_path / "run", progress=False)
        assert programs == []
        assert again.hparams == first.hparams
    with pytest.raises(hpx.RunError, match="sampler: "):
        sweep(other()).run(tmp_path / "run", progress=False)


def test_every_round_must_fill_the_brackets_and_evaluate_alike():
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 0.4))
    scheduler = hpx.Hyperband(factor=3, min_steps=6)
    with pytest.raises(hpx.InputError, match=r"Sweep.trials = 34: makes rounds of 11, each of which must fill"):
        hpx.Sweep(quadratic(54, 6), space, trials=34, rounds=3, scheduler=scheduler).plan()
    assert hpx.Sweep(quadratic(54, 6), space, trials=34, rounds=2, scheduler=scheduler).plan().rounds == (17, 17)
    # With a sampler that learns.
    sweep = hpx.Sweep(
        quadratic(54, 6), space, trials=34, rounds=2, scheduler=scheduler, sampler=hpx.Bayes(initial=8), width=4
    )
    found = sweep.run(progress=False)
    steps = found.lane_step[:, 0].reshape(2, 17)
    assert np.array_equal(np.sort(steps[0]), np.sort(steps[1])), "both rounds fill the brackets"
    assert found.last("valid/loss")[17:].min() <= found.last("valid/loss")[:17].min()

    class Later(hpx.Sampler):
        def propose(self, space, history, start, n, seed):
            return [{"rate": 0.3 if history else 0.1}] * n

    program = dataclasses.replace(quadratic(54, 6), eval_every=lambda h: 6 if h.rate < 0.2 else 3)
    sweep = hpx.Sweep(program, space, trials=8, rounds=2, sampler=Later(), scheduler=hpx.Halving(2, 6))
    with pytest.raises(hpx.InputError, match=r"eval_every = \[3, 6\]: must be one number under a scheduler"):
        sweep.run(progress=False)
