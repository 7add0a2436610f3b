"""Schedulers: published tables and rules by hand, and what the engine makes of their decisions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.engine import sharding
from tests.support.compare import same_bits
from tests.support.counting import ran
from tests.support.marks import slow
from tests.support.programs import RATES, quadratic, rates


def survivors(scheduler, scores, budget):
    """How many trials of which id range run beyond each decision, where a trial's score never changes."""
    live, step, counts = set(range(len(scores))), 0, {}
    while step < budget:
        step = scheduler.next(step)
        if step >= budget:
            break
        live -= set(
            scheduler.decide(hpx.Race(step, budget, tuple(sorted(live)), {t: (s,) for t, s in enumerate(scores)}))
        )
        counts[step] = sorted(live)
    return counts


def test_hyperband_is_the_table_of_the_paper():
    """L. Li et al., JMLR 2018, algorithm 1 for R = 81 and η = 3: trials that reach each number of steps, by bracket."""
    table = [
        (81, {1: 81, 3: 27, 9: 9, 27: 3, 81: 1}),
        (34, {3: 34, 9: 11, 27: 3, 81: 1}),
        (15, {9: 15, 27: 5, 81: 1}),
        (8, {27: 8, 81: 2}),
        (5, {81: 5}),
    ]
    scheduler = hpx.Hyperband(factor=3, min_steps=1)
    assert [(b.trials, b.steps) for b in scheduler.brackets(81)] == [(n, min(rungs)) for n, rungs in table]
    scores = np.random.default_rng(0).permutation(143).tolist()
    after = survivors(scheduler, scores, 81)
    assert list(after) == [1, 3, 9, 27]
    first = 0
    for trials, rungs in table:
        mine = range(first, first + trials)
        for step, live in after.items():
            best = sorted(mine, key=lambda trial: scores[trial])
            # Those that reach the next rung, which are the best of the bracket; before its first all of them.
            assert [t for t in live if t in mine] == sorted(best[: rungs.get(3 * step, trials)])
        first += trials


def test_hyperband_twice_is_every_bracket_twice_as_wide():
    scores = np.random.default_rng(0).permutation(286).tolist()
    after = survivors(hpx.Hyperband(factor=3, min_steps=1), scores, 81)
    assert [len(live) for live in after.values()] == [54 + 124, 18 + 22 + 56, 6 + 7 + 10 + 26, 2 + 2 + 3 + 5 + 10]


def test_halving_keeps_one_in_factor_from_each_rung():
    scores = np.random.default_rng(1).permutation(256).tolist()
    after = survivors(hpx.Halving(factor=4, min_steps=5), scores, 320)
    order = np.argsort(scores)
    assert {step: set(live) for step, live in after.items()} == {
        step: set(order[:kept].tolist()) for step, kept in ((5, 64), (20, 16), (80, 4))
    }
    assert [len(live) for live in survivors(hpx.Halving(3, 1), list(range(5)), 81).values()] == [1, 1, 1, 1]


def test_ties_go_to_the_lower_id():
    race = hpx.Race(1, 9, (0, 1, 2, 3), dict.fromkeys(range(4), (0.5,)))
    assert hpx.Halving(2, 1).decide(race) == [2, 3]


def test_median_stop_compares_the_best_so_far_with_the_median_of_averages():
    """By hand. Averages: 0.5, 0.4, 0.9, 0.3 and 0.8, the last of a trial that was stopped; their median is 0.5."""
    curves = {0: (0.6, 0.4), 1: (0.2, 0.6), 2: (1.0, 0.8), 3: (0.3, 0.3), 4: (0.8,)}
    assert hpx.MedianStop().decide(hpx.Race(2, 9, (0, 1, 2, 3), curves)) == [2]
    assert hpx.MedianStop(min_steps=7).next(2) == 7


def test_early_stop_waits_for_an_improvement():
    curves = {0: (0.5, 0.4, 0.41, 0.42), 1: (0.5, 0.4, 0.3, 0.31), 2: (0.5, 0.495, 0.49, 0.485)}
    race = hpx.Race(4, 9, (0, 1, 2), curves)
    assert hpx.EarlyStop(2).decide(race) == [0]
    assert hpx.EarlyStop(2, min_delta=0.05).decide(race) == [0, 2]


# What the engine makes of them.

SAMPLER = rates(*np.random.default_rng(3).permutation(np.geomspace(1e-3, 0.4, 27)))
HALVING = hpx.Halving(factor=3, min_steps=6)


@pytest.fixture(scope="module")
def program():
    return quadratic(54, 6)


@pytest.fixture(scope="module")
def halved(program):
    return ran(hpx.Sweep(program, RATES, sampler=SAMPLER, width=4, devices=2, scheduler=HALVING))


def test_survivors_train_on_and_keep_their_bits(program, halved):
    whole = ran(hpx.Sweep(program, RATES, sampler=SAMPLER, width=4, devices=2), programs=0)
    ends = sorted(halved.lane_step[:, 0].tolist())
    assert ends == [6] * 18 + [18] * 6 + [54] * 3, "rungs 6 and 18; the last decision is at 54, the end"
    for trial in range(27):
        evaluations = halved.lane_step[trial, 0] // 6
        mine = halved.curves("valid/loss")[trial, 0]
        assert same_bits(mine[:evaluations], whole.curves("valid/loss")[trial, 0, :evaluations])
        assert np.isnan(mine[evaluations:]).all()
    # The best at each rung go on.
    first = whole.curves("valid/loss")[:, 0, 0]
    assert set(np.flatnonzero(halved.lane_step[:, 0] > 6)) == set(np.argsort(first, kind="stable")[:9])


def grouped(**more):
    """Three groups whose trials have nothing else in common than the race."""
    program = quadratic(54, 6, size=lambda h: h.size)
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1.0), size=hpx.Choice(1, 2, 3))
    points = [point | {"size": 1 + i % 3} for i, point in enumerate(SAMPLER.points)]
    return hpx.Sweep(program, space, sampler=hpx.Manual(points), width=4, scheduler=HALVING, **more)


def test_all_groups_are_in_one_race(halved):
    """Trials of three programs are stopped as those of one would be."""
    sweep = grouped()
    assert len(sweep.plan().groups) == 3
    assert np.array_equal(ran(sweep, programs=3).lane_step, halved.lane_step)


@pytest.mark.parametrize(("memory", "waves"), [slow(40, [2, 2, 2]), (100, [1, 2, 2])])
def test_waves_decide_as_all_at_once(halved, monkeypatch, memory, waves):
    """With little memory a group's trials are on the devices in turn, and wait on the host."""
    monkeypatch.setattr(sharding, "memory", lambda: memory)
    sweep = grouped(devices=2)
    plan = sweep.plan()
    assert plan.offloads
    assert [len(each.waves) for each in plan.arrangements] == waves
    both = zip(plan.arrangements, plan.groups, strict=True)
    assert all(sorted(t for wave in each.waves for t in wave) == list(g.trials) for each, g in both)
    result = ran(sweep, programs=3)
    monkeypatch.undo()
    assert np.array_equal(result.lane_step, halved.lane_step)
    whole = grouped(devices=2).run(progress=False)
    assert same_bits(result.curves("valid/loss"), whole.curves("valid/loss"))
    for trial in range(27):
        assert same_bits(result[trial].restore()["w"], whole[trial].restore()["w"])


def test_hyperband_trains_its_brackets_side_by_side(program):
    scheduler = hpx.Hyperband(factor=3, min_steps=6)
    brackets = scheduler.brackets(54)
    assert [tuple(b) for b in brackets] == [(9, 6), (5, 18), (3, 54)]
    result = ran(hpx.Sweep(program, hpx.Space(rate=hpx.LogUniform(1e-3, 0.4)), trials=17, width=4, scheduler=scheduler))
    steps = result.lane_step[:, 0].tolist()
    assert sorted(steps[:9]) == [6] * 6 + [18] * 2 + [54]
    assert sorted(steps[9:14]) == [18] * 4 + [54]
    assert steps[14:] == [54] * 3


def test_a_diverged_replicate_loses_its_trial_the_race():
    def step(key, w, batch, h):
        return w + 1, {"loss": jnp.where((h.rate > 0.3) & (jax.random.uniform(key) < 0.5), jnp.nan, h.rate)}

    program = hpx.Program(lambda k, h: jnp.zeros(()), step, lambda k, w, v, h: {"loss": -h.rate}, steps=8, eval_every=2)
    sampler = rates(0.35, 0.2, 0.1)
    result = hpx.Sweep(program, RATES, sampler=sampler, replicates=4, scheduler=hpx.Halving(3, 2)).run(progress=False)
    assert result.statuses.tolist() == ["diverged", "complete", "stopped"]


BAD = {
    "factor": (lambda: hpx.Halving(1.5), "Halving.factor = 1.5: must be a number, 2 or more"),
    "hyperband's factor": (lambda: hpx.Hyperband(True), "Hyperband.factor = True: must be a number, 2 or more"),
    "min_steps above the budget": (lambda: hpx.Halving(3, 54), "Halving.min_steps = 54: must be below the budget, 54"),
    "min_steps of zero": (lambda: hpx.Halving(3, 0), "Halving.min_steps = 0: must be a whole number, 1 or more"),
    "min_steps before the first evaluation": (
        lambda: hpx.Hyperband(3, 2),
        "Hyperband.min_steps = 2: must be 6 or more",
    ),
    "brackets": (
        lambda: hpx.Hyperband(3, 6),
        "must fill the brackets of Hyperband, 9 + 5 + 3 = 17 trials. Write trials=34.",
    ),
    "patience": (lambda: hpx.EarlyStop(0), "EarlyStop.patience = 0: must be a whole number, 1 or more"),
    "min_delta": (lambda: hpx.EarlyStop(1, float("nan")), "EarlyStop.min_delta = nan: must be a number, 0 or more"),
    "median": (lambda: hpx.MedianStop(0), "MedianStop.min_steps = 0: must be a whole number, 1 or more"),
    "a function": (lambda: lambda race: [], "must be a Scheduler"),
    "a class": (lambda: hpx.Halving, "must be a Scheduler"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_schedulers_are_named_before_anything_compiles(name, program):
    make, message = BAD[name]
    with pytest.raises(hpx.InputError) as caught:
        hpx.Sweep(program, RATES, trials=27, scheduler=make()).plan()
    assert message in str(caught.value)


def test_a_scheduler_wants_one_eval_every():
    program = quadratic(54, 6)
    program = dataclasses.replace(program, eval_every=lambda h: 6 if h.rate < 0.1 else 3)
    with pytest.raises(hpx.InputError, match=r"eval_every = \[3, 6\]: must be one number under a scheduler"):
        hpx.Sweep(program, RATES, sampler=SAMPLER, scheduler=HALVING).plan()
