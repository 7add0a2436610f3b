"""Samplers: pure, deterministic, consistent under splitting, with the defaults first."""

import numpy as np
import pandas
import pytest
from scipy.stats import qmc

import hpjax as hpx
from hpjax.samplers import Observation
from tests.support.programs import quadratic

SPACE = hpx.Space(
    rate=hpx.LogUniform(1e-4, 1, num=4), momentum=hpx.Uniform(0, 0.9, num=3), size=hpx.Choice(8, 16), fixed="x"
)
WITH_DEFAULT = hpx.Space(rate=hpx.LogUniform(1e-4, 1, num=4, default=0.1), size=hpx.Choice(8, 16, default=16))
SAMPLERS = {
    "grid": hpx.Grid(),
    "random": hpx.Random(),
    "sobol": hpx.Sobol(),
    "manual": hpx.Manual([{"rate": 0.1 * i, "momentum": 0.5, "size": 8} for i in range(1, 10)]),
}


def ask_in_parts(sampler, space, parts, seed=0):
    history = []
    for n in parts:
        history += [Observation(point, (0.0,), 1) for point in sampler.ask(space, history, n, seed)]
    return [observation.point for observation in history]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("space", [SPACE, WITH_DEFAULT], ids=["plain", "default"])
def test_asking_twice_is_asking_once(name, space):
    sampler = SAMPLERS[name] if name != "manual" or space is SPACE else hpx.Manual([{"rate": 0.2}, {"rate": 0.5}])
    total = sampler.size(space) or 37
    whole = ask_in_parts(sampler, space, [total])
    assert len(whole) == total
    assert ask_in_parts(sampler, space, [total // 2, total - total // 2]) == whole
    assert ask_in_parts(sampler, space, [1] * total) == whole
    for point in whole:
        space.branch_of(point)


@pytest.mark.parametrize("sampler", [hpx.Random(), hpx.Sobol()])
def test_the_seed_decides(sampler):
    a, b, c = (ask_in_parts(sampler, SPACE, [16], seed) for seed in (1, 1, 2))
    assert a == b
    assert a != c


def test_the_defaults_come_first():
    for sampler in (hpx.Random(), hpx.Sobol(), hpx.Grid()):
        assert sampler.ask(WITH_DEFAULT, [], 2, 0)[0] == {"rate": 0.1, "size": 16}
    # Who lists the points means these.
    assert hpx.Manual([{"rate": 0.5}]).ask(WITH_DEFAULT, [], 1, 0) == [{"rate": 0.5, "size": 16}]


def test_a_default_on_the_grid_stands_there_once():
    points = ask_in_parts(hpx.Grid(), hpx.Space(a=hpx.Choice(1, 2, 3, default=2), b=hpx.Choice(0, 1, default=0)), [6])
    assert points[0] == {"a": 2, "b": 0}
    assert len({tuple(p.values()) for p in points}) == 6


def test_the_grid_is_the_product():
    points = ask_in_parts(hpx.Grid(), SPACE, [24])
    expected = [
        {"rate": r, "momentum": m, "size": s, "fixed": "x"}
        for r in np.geomspace(1e-4, 1, 4)
        for m in (0, 0.45, 0.9)
        for s in (8, 16)
    ]
    for a, b in zip(points, expected, strict=True):
        assert (a["size"], a["fixed"]) == (b["size"], b["fixed"])
        assert (a["rate"], a["momentum"]) == pytest.approx((b["rate"], b["momentum"]), rel=1e-3)


def test_the_grid_of_a_union_holds_each_alternative():
    union = hpx.Space(a=hpx.Choice(1, 2)) | hpx.Space(b=hpx.Choice(1, 2, 3))
    assert hpx.Grid().size(union) == 5
    assert ask_in_parts(hpx.Grid(), union, [5])[2:] == [{"b": 1}, {"b": 2}, {"b": 3}]


def test_sobol_is_scipys_and_more_even_than_chance():
    space = hpx.Space(x=hpx.Uniform(0, 1), y=hpx.Uniform(0, 1))
    points = np.array([[p["x"], p["y"]] for p in ask_in_parts(hpx.Sobol(), space, [64], seed=3)])
    np.testing.assert_allclose(points, qmc.Sobol(2, rng=3).random_base2(6), atol=1e-4)
    random = np.array([[p["x"], p["y"]] for p in ask_in_parts(hpx.Random(), space, [64], seed=3)])
    assert qmc.discrepancy(points) < qmc.discrepancy(random) / 2


def test_manual_fills_in_constants_and_defaults():
    space = hpx.Space(rate=hpx.Uniform(0, 1), size=hpx.Choice(8, 16, default=16), kind="mlp")
    points = ask_in_parts(hpx.Manual([{"rate": 0.25}, {"rate": 0.75, "size": 8}]), space, [2])
    assert points == [
        {"rate": 0.25, "size": 16, "kind": "mlp"},
        {"rate": 0.75, "size": 8, "kind": "mlp"},
    ]


def test_manual_takes_rows_of_a_table():
    """Pandas makes floats of the integers in a row, and NumPy scalars of all; the sweep has the domains' own values."""
    space = hpx.Space(
        rate=hpx.LogUniform(1e-3, 1), hidden=hpx.Choice(4, 8), layers=hpx.Int(1, 4), bias=hpx.Choice(True, False)
    )
    frame = pandas.DataFrame({"rate": [0.1, 0.2], "hidden": [8, 4], "layers": [1, 2], "bias": [True, False]})
    rows = [frame.drop(columns="bias").iloc[0].to_dict() | {"bias": frame.bias[0]}, frame.iloc[1].to_dict()]
    assert type(rows[0]["hidden"]) is not int
    points = hpx.Manual(rows).ask(space, [], 2, 0)
    assert repr(points) == repr(
        [{"rate": 0.1, "hidden": 8, "layers": 1, "bias": True}, {"rate": 0.2, "hidden": 4, "layers": 2, "bias": False}]
    )


class Floats(hpx.Sampler):
    """A sampler of a user's own, that gives floats and NumPy scalars for everything."""

    def propose(self, space, history, start, n, seed):
        return [{"rate": np.float64(0.25), "size": 8.0}] * n


def test_a_plan_has_the_domains_own_values_whoever_proposed_them():
    space = hpx.Space(rate=hpx.Uniform(0, 1), size=hpx.Choice(8, 16))
    sweep = hpx.Sweep(quadratic(size=lambda h: h.size), space, trials=2, sampler=Floats())
    assert repr(sweep.plan().points) == repr(({"rate": 0.25, "size": 8},) * 2)
    assert len(sweep.plan().groups) == 1
