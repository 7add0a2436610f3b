"""Schedulers: published tables and rules by hand, and what the engine makes of their decisions."""

import dataclasses
import math
from fractions import Fraction

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
    live, step, counts, scheduler = set(range(len(scores))), 0, {}, scheduler.within(budget)
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


def algorithm_1(budget, unit, factor):
    """The paper's pseudocode, with exact numbers: per bracket a list of (steps, trials that train so long)."""
    eta, total = Fraction(factor), Fraction(budget, unit)
    most = max(s for s in range(99) if eta**s <= total)
    brackets = []
    for s in range(most, -1, -1):
        n, r = math.ceil(Fraction(most + 1, s + 1) * eta**s), total / eta**s
        trained = n
        rungs = []
        for i in range(s + 1):
            rungs.append((r * eta**i * unit, trained))
            trained = max(math.floor(math.floor(n / eta**i) / eta), 1)
        brackets.append(rungs)
    return brackets


@pytest.mark.parametrize(
    ("budget", "unit", "factor"),
    [(2000, 100, 3), (81, 1, 3), (100, 1, 3), (80, 1, 3), (1000, 7, 4), (500, 3, 2.5), (999, 10, 2), (50, 10, 9)],
)
def test_hyperband_is_algorithm_1_for_any_budget(budget, unit, factor):
    brackets = algorithm_1(budget, unit, factor)
    scheduler = hpx.Hyperband(factor=factor, min_steps=unit)
    assert [b.trials for b in scheduler.brackets(budget)] == [rungs[0][1] for rungs in brackets]
    assert all(abs(b.steps - rungs[0][0]) <= 0.5 for b, rungs in zip(scheduler.brackets(budget), brackets, strict=True))
    assert all(rungs[-1][0] == budget for rungs in brackets), "the last rung of every bracket is the whole budget"
    trials = sum(rungs[0][1] for rungs in brackets)
    scores = np.random.default_rng(0).permutation(trials).tolist()
    after, first = survivors(scheduler, scores, budget), 0
    for rungs in brackets:
        mine = sorted(range(first, first + rungs[0][1]), key=lambda trial: scores[trial])
        for step, live in after.items():
            # Those that train longer than to here.
            longer = max(n for steps, n in rungs if steps > step + 0.5)
            assert [t for t in live if t in mine] == sorted(mine[:longer])
        first += rungs[0][1]


def test_the_last_bracket_runs_to_the_end_where_the_budget_is_no_power():
    """F07: 20 times ``min_steps`` is no power of 3. Rungs at 2000/9 and 2000/3, seen at 300 and 700."""
    program = hpx.Program(
        lambda key, h: jnp.zeros(()),
        lambda key, s, b, h: (s, {}),
        lambda key, s, split, h: {"loss": h.x},
        steps=2000,
        eval_every=100,
    )
    scheduler = hpx.Hyperband(factor=3, min_steps=100)
    sweep = hpx.Sweep(program, hpx.Space(x=hpx.Uniform(0, 1)), trials=17, scheduler=scheduler)
    (told,) = [hint for hint in sweep.plan().hints if "Hyperband" in hint]
    assert told == "Hyperband decides at evaluations, which come every 100 steps: at 300 for 222, at 700 for 667."
    steps = sweep.run(progress=False).lane_step[:, 0].tolist()
    assert sorted(steps[:9]) == [300] * 6 + [700] * 2 + [2000]
    assert sorted(steps[9:14]) == [700] * 4 + [2000]
    assert steps[14:] == [2000] * 3


def test_decisions_between_evaluations_are_told(program):
    def told(scheduler):
        hints = hpx.Sweep(program, RATES, sampler=SAMPLER, scheduler=scheduler).plan().hints
        return [hint for hint in hints if "decides" in hint]

    for scheduler in (HALVING, hpx.PBT(every=12), hpx.MedianStop(), hpx.EarlyStop(2)):
        assert not told(scheduler)
    every = "decides at evaluations, which come every 6 steps: at 12 for 10, at 24 for 20, at 42 for 40, never for 50."
    assert told(hpx.PBT(every=10)) == [f"PBT {every}"]
    assert told(hpx.PBT(every=7))[0].endswith("at 12 for 7, at 18 for 14, at 24 for 21, at 30 for 28, ….")


@pytest.mark.parametrize("number", [np.int64, np.int8, np.float64, jnp.int32])
def test_numbers_of_numpy_and_jax_are_settings(number):
    assert repr(hpx.PBT(number(8), share=np.float32(0.25))) == repr(hpx.PBT(8, share=0.25))
    assert repr(hpx.EarlyStop(number(2), number(0))) == repr(hpx.EarlyStop(2, 0.0))
    assert repr(hpx.MedianStop(number(2))) == repr(hpx.MedianStop(2))
    for kind in (hpx.Halving, hpx.Hyperband):
        made = kind(number(4), number(8))
        assert made == kind(4, 8)
        assert {type(made.factor), type(made.min_steps)} <= {int, float}


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
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1.0), size=hpx.Choice(1, 2, 3, static=True))
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
    "min_steps before the first of two evaluations": (
        lambda: hpx.Halving(3, 2),
        "Halving.min_steps = 2: must be 6 or more, the steps between evaluations. Write min_steps=6",
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


@pytest.mark.parametrize("scheduler", [hpx.Halving(), hpx.Hyperband(), hpx.PBT(every=1)])
@pytest.mark.parametrize(("steps", "remedy"), [(1, "Train longer, or remove scheduler=."), (54, "Write eval_every=6.")])
def test_a_scheduler_that_could_never_decide_says_what_to_type(scheduler, steps, remedy):
    name, allowed = type(scheduler).__name__, "needs evaluations before the end, and the only one is at step"
    with pytest.raises(hpx.InputError) as caught:
        hpx.Sweep(quadratic(steps, steps), RATES, trials=27, scheduler=scheduler).plan()
    assert str(caught.value) == f"Sweep.scheduler = '{name}': {allowed} {steps}. {remedy}"


def test_a_scheduler_wants_one_eval_every():
    program = quadratic(54, 6)
    program = dataclasses.replace(program, eval_every=lambda h: 6 if h.rate < 0.1 else 3)
    with pytest.raises(hpx.InputError, match=r"eval_every = \[3, 6\]: must be one number under a scheduler"):
        hpx.Sweep(program, RATES, sampler=SAMPLER, scheduler=HALVING).plan()
