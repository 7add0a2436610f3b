"""Population based training: its decisions by hand, its states by the recorded lineage, and the toy of the paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.engine import sharding
from hpjax.engine.device_lanes import DeviceLanes
from hpjax.schedulers import Race
from tests.support.compare import same_bits
from tests.support.counting import ran
from tests.support.programs import example

SPACE = hpx.Space(
    rate=hpx.LogUniform(1e-3, 1.0),
    momentum=hpx.ReverseLogUniform(0.5, 0.99),
    layers=hpx.Int(1, 9),
    act=hpx.Choice(nn.relu, nn.tanh, nn.gelu, select=True),
    width=hpx.Choice(8, 16),
)
POINT = {"rate": 0.1, "momentum": 0.9, "layers": 5, "act": nn.tanh, "width": 8}


def race(scores, **more):
    live = tuple(t for t, score in enumerate(scores) if np.isfinite(score))
    given = {
        "population": tuple(range(len(scores))),
        "points": {t: POINT | {"layers": 1 + t % 9} for t in range(len(scores))},
        "groups": dict.fromkeys(range(len(scores)), 0),
        "free": frozenset({"rate", "momentum", "layers", "act"}),
        "space": SPACE,
    }
    return Race(100, 1000, live, {t: (0.0, score) for t, score in enumerate(scores)}, **(given | more))


def test_truncation_replaces_the_worst_fifth_by_the_best():
    scores = np.random.default_rng(0).permutation(20).tolist()
    clones = hpx.PBT(every=100).replace(race(scores))
    assert {scores[trial] for trial in clones} == {16, 17, 18, 19}
    assert {scores[clone.source] for clone in clones.values()} <= {0, 1, 2, 3}


def test_a_tournament_is_won_by_the_better():
    scores = np.random.default_rng(0).permutation(40).tolist()
    clones = hpx.PBT(every=100, exploit="tournament").replace(race(scores))
    assert all(scores[clone.source] < scores[trial] for trial, clone in clones.items())
    assert 10 < len(clones) < 30, "half of the population on average"
    assert scores.index(0) not in clones


def test_perturbation_is_the_paper_s_on_the_scale_of_each_domain():
    clones = hpx.PBT(every=100, share=0.5).replace(race(list(range(40))))
    assert len(clones) == 20
    points = [clone.point for clone in clones.values()]
    assert {point["rate"] for point in points} == {0.08, 0.12}
    assert {round(1 - point["momentum"], 6) for point in points} == {0.08, 0.12}
    assert {point["act"] for point in points} == {nn.relu, nn.gelu}, "neighbours of the choice"
    assert {point["width"] for point in points} == {8}, "static"
    # Small integers, of which a factor makes the same number, move by one.
    moved = {1: {2}, 2: {1, 3}, 3: {2, 4}, 4: {3, 5}, 5: {4, 6}, 6: {5, 7}, 7: {6, 8}, 8: {6, 9}, 9: {7}}
    for clone in clones.values():
        assert clone.point["layers"] in moved[1 + clone.source % 9]


@pytest.mark.parametrize(
    ("domain", "value", "near"),
    [
        (hpx.Int(1, 8), 1, {2}),
        (hpx.Int(0, 8), 0, {1}),
        (hpx.LogInt(1, 1000), 2, {1, 3}),
        (hpx.LogInt(1, 1000), 1000, {800}),
        (hpx.Uniform(0, 1), 0.0, {0.1}),
        (hpx.Uniform(0, 1), 1.0, {0.8}),
        (hpx.Uniform(-1, 1), 0.05, {-0.15, 0.25}),
        (hpx.Uniform(-5, -1), -2.5, {-2, -3}),
        (hpx.Uniform(0, 1000), 0.3, {0.2, 0.4}),
        (hpx.LogUniform(1e-3, 1), 1.0, {0.8}),
        (hpx.ReverseLogUniform(0.5, 0.99), 0.99, {0.988}),
        (hpx.Choice(0.1, 0.2, 0.3), 0.1, {0.2}),
        (hpx.Choice(0.1, 0.2, 0.3), 0.2, {0.1, 0.3}),
        (hpx.Choice(True, False), True, {False}),
        (hpx.Choice(7), 7, {7}),
    ],
    ids=str,
)
def test_a_perturbed_value_is_another_one_in_the_domain(domain, value, near):
    space = hpx.Space(x=domain, y=hpx.Uniform(0, 1))
    points = {t: {"x": value, "y": 0.5} for t in range(40)}
    more = {"points": points, "space": space, "free": frozenset({"x"})}
    clones = hpx.PBT(every=100, share=0.5).replace(race(list(range(40)), **more))
    assert {clone.point["x"] for clone in clones.values()} == near
    assert all(type(clone.point["x"]) is type(domain.canonical(value)) for clone in clones.values())


@pytest.mark.parametrize(
    "domain",
    [
        hpx.Int(-3, 5),
        hpx.LogInt(1, 2),
        hpx.Uniform(0.1, 0.1001),
        hpx.Uniform(0, 1e300),
        hpx.Uniform(-1e9, 1),
        hpx.LogUniform(1e-9, 1e9),
        hpx.ReverseLogUniform(-3, 0.9999),
        hpx.Choice("a", "b", "c"),
    ],
    ids=str,
)
def test_a_walk_of_perturbations_moves_each_time_and_stays_inside(domain):
    space, value = hpx.Space(x=domain), domain.from_unit(0.5)
    for step in range(100):
        more = {"points": {t: {"x": value} for t in range(4)}, "space": space, "free": frozenset({"x"})}
        (clone,) = hpx.PBT(every=100).replace(race(list(range(4)), **more)._replace(step=step)).values()
        assert domain.contains(clone.point["x"])
        assert clone.point["x"] != value
        value = clone.point["x"]


def test_a_crossover_of_two_alternatives_stays_in_the_domain():
    space = hpx.Space(x=hpx.Uniform(0, 1)) | hpx.Space(x=hpx.Uniform(2, 3))
    points = {t: {"x": 0.5 if t % 2 else 2.5} for t in range(40)}
    more = {"points": points, "space": space, "free": frozenset({"x"})}
    clones = hpx.PBT(every=100, share=0.5, explore="crossover").replace(race(list(range(40)), **more))
    for clone in clones.values():
        assert space.branch_of(clone.point) == space.branch_of(points[clone.source])


def test_resampling_and_crossover():
    drawn = hpx.PBT(every=100, share=0.5, explore="resample").replace(race(list(range(40))))
    rates = [clone.point["rate"] for clone in drawn.values()]
    assert len(set(rates)) == 20
    assert np.median(np.log10(rates)) == pytest.approx(-1.5, abs=0.6)
    points = {t: POINT | {"rate": 0.01 if t % 2 else 0.1, "momentum": 0.6 if t % 2 else 0.9} for t in range(40)}
    crossed = hpx.PBT(every=100, share=0.5, explore="crossover").replace(race(list(range(40)), points=points))
    kinds = {(clone.point["rate"] > 0.05, clone.point["momentum"] > 0.8) for clone in crossed.values()}
    assert len(kinds) == 4, "of either parent"
    some = hpx.PBT(every=100, share=0.5, resample=0.5).replace(race(list(range(40))))
    assert 0 < sum(clone.point["rate"] in (0.08, 0.12) for clone in some.values()) < 20


def test_groups_and_diverged_members():
    scores = [*range(10), *range(10, 20)]
    clones = hpx.PBT(every=100).replace(race(scores, groups={t: t // 10 for t in range(20)}))
    assert {trial: clone.source // 10 for trial, clone in clones.items()} == {8: 0, 9: 0, 18: 1, 19: 1}
    lost = hpx.PBT(every=100).replace(race([np.inf, 0.3, np.inf, 0.2, 0.1]))
    assert {trial: clone.source for trial, clone in lost.items()} == {0: 4, 2: 4}
    assert hpx.PBT(every=100).replace(race([np.inf] * 5)) == {}


def test_the_seed_and_the_step_decide():
    first, again, other, later = (
        hpx.PBT(every=100).replace(race(list(range(40)), seed=seed)._replace(step=step))
        for seed, step in ((1, 100), (1, 100), (2, 100), (1, 200))
    )
    assert first == again
    assert first != other
    assert first != later


# What the engine makes of it.


def quadratic(h, w):
    return w - h.rate * 2 * (w - 1)


def program(**changes):
    """Gradient descent on (w − 1)²: after t steps 1 − w is (1 − 2·rate)ᵗ; above rate 1 it diverges."""

    def step(key, w, batch, h):
        return quadratic(h, w), {"loss": (w - 1) ** 2}

    made = hpx.Program(
        lambda key, h: jnp.zeros(()), step, lambda key, w, split, h: {"loss": (w - 1) ** 2}, steps=40, eval_every=5
    )
    return dataclasses.replace(made, **changes)


SIZES = hpx.Space(size=hpx.Choice(0, 1, 2, 3, static=True))
RATES = hpx.Space(rate=hpx.LogUniform(1e-4, 1e3))
POINTS = hpx.Manual([{"rate": rate} for rate in np.geomspace(1e-4, 0.05, 12).round(5).tolist()])


def sweep(**changes):
    arguments = {"sampler": POINTS, "scheduler": hpx.PBT(every=10, share=0.25), "width": 4, "replicates": 2}
    return hpx.Sweep(changes.pop("program", program()), changes.pop("space", RATES), **(arguments | changes))


@pytest.fixture(scope="module")
def result():
    return ran(sweep(devices=2))


def test_states_are_those_of_the_lineage(result):
    """Of every trial the weights that its recorded ancestors' rates make, one after the other."""
    assert len(result.lineage) >= 3 * 3, "a quarter of twelve, at steps 10, 20 and 30"
    assert {clone.step for clone in result.lineage} == {10, 20, 30}
    assert (result.statuses == "complete").all()
    longest = 0
    for trial in result:
        schedule = trial.schedule
        longest = max(longest, len(schedule))
        steps = np.diff([*(step for step, _ in schedule), 40])
        far = np.prod([(1 - 2 * h["rate"]) ** count for count, (_, h) in zip(steps, schedule, strict=True)])
        for replicate in range(2):
            np.testing.assert_allclose(1 - trial.restore(replicate), far, rtol=1e-4)
        assert trial.hparams == schedule[-1][1]
    assert longest > 2


def test_packing_changes_no_bit_of_a_population(result):
    for changes in ({"devices": 1}, {"devices": 4, "segment": 3}):
        other = sweep(**changes).run(progress=False)
        assert other.lineage == result.lineage
        assert same_bits(other.curves("valid/loss"), result.curves("valid/loss"))
        assert all(same_bits(a.restore(1), b.restore(1)) for a, b in zip(result, other, strict=True))


@pytest.mark.parametrize(("memory", "waves"), [(200, 2), (60, 12)])
def test_waves_are_one_population(result, monkeypatch, memory, waves):
    """Where memory is short, members clone the states of members that wait on the host."""
    monkeypatch.setattr(sharding, "memory", lambda: memory)
    small = sweep(devices=1)
    assert len(small.plan().arrangements[0].waves) == waves
    other = ran(small)
    home = {t: w for w, trials in enumerate(small.plan().arrangements[0].waves) for t in trials}
    assert any(home[clone.trial] != home[clone.source] for clone in other.lineage)
    assert other.lineage == result.lineage
    assert same_bits(other.curves("valid/loss"), result.curves("valid/loss"))
    assert all(same_bits(a.restore(1), b.restore(1)) for a, b in zip(result, other, strict=True))


@pytest.mark.parametrize("every", [10, 20])  # at 20 they are lost evaluations before it is decided
def test_a_wave_of_which_all_diverged_runs_again(monkeypatch, every):
    points = hpx.Manual([{"rate": rate} for rate in (0.01, 0.02, 0.03, 0.04, 500.0, 600.0, 700.0, 800.0)])
    arguments = {"sampler": points, "replicates": 1, "devices": 1, "scheduler": hpx.PBT(every, share=0.25)}
    whole = sweep(**arguments).run(progress=False)
    monkeypatch.setattr(sharding, "memory", lambda: 60)
    small = sweep(**arguments)
    assert [list(trials) for trials in small.plan().arrangements[0].waves] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    parts = small.run(progress=False)
    assert (parts.statuses == "complete").all()
    assert parts.lineage == whole.lineage
    for metric in ("step", "valid/loss"):
        assert same_bits(parts.curves(metric), whole.curves(metric))


def test_states_are_taken_over_on_the_devices(monkeypatch):
    """By the one program that also moves survivors; nothing is fetched to the host or put back."""
    moved, clone = [], DeviceLanes.clone

    def watched(lanes, sources, points):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "device_get", None)
            clone(lanes, sources, points)
        moved.append(len(sources))

    monkeypatch.setattr(DeviceLanes, "clone", watched)
    result = sweep(replicates=1).run(progress=False)
    assert sum(moved) == len(result.lineage) > 0


def test_a_population_is_recorded(result, tmp_path):
    sweep(devices=2).run(tmp_path / "run", progress=False)
    loaded = hpx.load(tmp_path / "run")
    assert loaded.lineage == result.lineage
    assert loaded.hparams == result.hparams
    assert loaded.first_hparams == POINTS.points


def test_a_diverged_member_begins_again_from_a_better_one():
    points = hpx.Manual([{"rate": rate} for rate in (0.01, 0.02, 0.03, 0.04, 500.0)])
    found = sweep(sampler=points, replicates=1).run(progress=False)
    assert (found.statuses == "complete").all()
    first = next(clone for clone in found.lineage if clone.trial == 4)
    assert (first.step, first.source) == (10, 3)
    curve = found.curves("valid/loss")[4, 0]
    assert np.flatnonzero(np.isnan(curve)).tolist() == [1], "the evaluation at which it was lost"
    assert found.last("valid/loss")[4, 0] == curve[-1]


def test_the_toy_of_the_paper():
    """Figure 2: Q = 1.2 − (θ₀² + θ₁²), of which a surrogate with weights h is followed, from θ = (0.9, 0.9)."""

    toy = example("search_quality/pbt")
    fixed = dataclasses.replace(toy.sweep, scheduler=None).run(progress=False)
    assert fixed.last("valid/Q").max() < 0.4
    for name in ("PBT, perturb", "PBT, resample", "PBT, crossover"):
        trained = dataclasses.replace(toy.sweep, scheduler=toy.schedulers[name]).run(progress=False)
        assert trained.best.metrics["valid/Q"] >= 1.19


BAD = {
    "population": (
        {"sampler": hpx.Manual([{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}])},
        "Sweep.trials = 3: must be 4 or more, a population",
    ),
    "never fires": ({"scheduler": lambda: hpx.PBT(every=40)}, "PBT.every = 40: must be below the budget, 40 steps"),
    "fires at the end": (
        {"scheduler": lambda: hpx.PBT(every=36)},
        "PBT.every = 36: must be below the budget, 40 steps",
    ),
    "zero": ({"scheduler": lambda: hpx.PBT(every=0)}, "PBT.every = 0: must be a whole number, 1 or more"),
    "exploit": ({"scheduler": lambda: hpx.PBT(9, exploit="best")}, "PBT.exploit = 'best': must be one of"),
    "explore": ({"scheduler": lambda: hpx.PBT(9, explore="none")}, "PBT.explore = 'none': must be one of"),
    "share": ({"scheduler": lambda: hpx.PBT(9, share=0.6)}, "PBT.share = 0.6: must lie between 0.01 and 0.5"),
    "no share": ({"scheduler": lambda: hpx.PBT(9, share=0)}, "PBT.share = 0: must lie between 0.01 and 0.5"),
    "lonely": (
        {"sampler": hpx.Manual([{"rate": 0.1, "size": i} for i in range(4)]), "space": RATES & SIZES},
        "PBT = 1: must be 4 or more in a group",
    ),
    "resample": ({"scheduler": lambda: hpx.PBT(9, resample=2)}, "PBT.resample = 2: must lie between 0 and 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_populations_are_named(name):
    changes, message = BAD[name]
    with pytest.raises(hpx.InputError) as caught:
        sweep(**{key: value() if callable(value) else value for key, value in changes.items()}).plan()
    assert message in str(caught.value)


class Replacing(hpx.Scheduler):
    def __init__(self, clones):
        self.clones = clones

    def decide(self, race):
        return [3] if race.step == 5 else []

    def replace(self, race):
        return self.clones if race.step == 10 else {}


@pytest.mark.parametrize(
    ("clones", "message"),
    [
        ({0: hpx.Clone(3, {"rate": 0.1})}, "must clone a live trial of the same group"),
        ({3: hpx.Clone(0, {"rate": 0.1})}, "must clone a live trial of the same group"),
        ({0: hpx.Clone(1, {"rate": 1e9})}, r"point\['rate'\] = 1e\+09|point\['rate'\] = 1000000000.0"),
        ({0: hpx.Clone(1, {"speed": 0.1})}, "is no hyperparameter of the space"),
    ],
)
def test_replacements_that_cannot_be(clones, message):
    with pytest.raises(hpx.InputError, match=message):
        sweep(scheduler=Replacing(clones)).run(progress=False)


def test_what_decides_how_long_a_trial_takes_cannot_change():
    made = program(steps=lambda h: 40 if h.rate < 0.2 else 35)
    with pytest.raises(hpx.InputError, match="decides how long a trial takes"):
        sweep(program=made, scheduler=Replacing({0: hpx.Clone(1, {"rate": 0.3})})).run(progress=False)


def test_the_test_split_is_seen_through_what_a_member_ended_with():
    """Functions chosen by selection too, which a result knows by name only."""

    def one(x):
        return 1.0 * x

    def ten(x):
        return 10.0 * x

    def evaluate(key, w, split, h):
        return {"loss": h.scale(h.rate) + 0 * w}

    made = hpx.Program(
        lambda key, h: jnp.zeros(()),
        lambda key, w, batch, h: (w, {}),
        evaluate,
        hpx.Data(*[np.zeros(3)] * 3),
        steps=20,
        eval_every=5,
    )
    space = hpx.Space(rate=hpx.Uniform(0, 1), scale=hpx.Choice(one, ten, select=True))
    points = hpx.Manual([{"rate": 0.1 * i, "scale": ten} for i in range(1, 6)])
    scheduler = hpx.PBT(every=5, exploit="tournament")
    found = hpx.Sweep(made, space, sampler=points, scheduler=scheduler, seed=1).run(progress=False)
    assert any(clone.hparams["scale"] == "one" for clone in found.lineage)
    assert found.best.hparams["scale"] == "one"
    assert found.test()["test/loss"] == found.best.metrics["valid/loss"]
