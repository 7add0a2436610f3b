"""The space: domains map to the unit interval and back, grids, unions, values as a person writes them."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import hpjax as hpx
from hpjax.core.format import show
from hpjax.core.intervals import RESOLUTION

DOMAINS = [
    hpx.Uniform(-2, 3),
    hpx.Uniform(0.1, 0.1001),
    hpx.LogUniform(1e-6, 1e2),
    hpx.ReverseLogUniform(0.5, 0.9999),
    hpx.Int(-3, 5),
    hpx.LogInt(1, 1000),
    hpx.Choice(16, 64, 256),
    hpx.Choice("relu", "tanh", jax.nn.gelu),
]


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@given(u=st.floats(0, 1))
def test_every_domain_maps_to_the_unit_interval_and_back(domain, u):
    value = domain.from_unit(u)
    assert domain.contains(value)
    place = domain.to_unit(value)
    assert 0 <= place <= 1
    assert domain.from_unit(place) == value
    if domain.grid() is None:
        assert abs(place - u) <= 2 * RESOLUTION


@pytest.mark.parametrize(
    ("domain", "cdf"),
    [
        (hpx.Uniform(-2, 3), stats.uniform(-2, 5).cdf),
        (hpx.LogUniform(1e-6, 1e2), stats.loguniform(1e-6, 1e2).cdf),
        (hpx.ReverseLogUniform(0.5, 0.999), lambda v: 1 - stats.loguniform(1e-3, 0.5).cdf(1 - v)),
    ],
)
def test_values_are_distributed_as_scipy_says(domain, cdf):
    values = np.array([domain.from_unit(u) for u in (np.arange(2000) + 0.5) / 2000])
    assert stats.kstest(values, cdf).statistic < 1e-3


def test_whole_numbers_are_equally_likely():
    values = [hpx.Int(1, 4).from_unit(u) for u in (np.arange(4000) + 0.5) / 4000]
    assert np.bincount(values).tolist() == [0, 1000, 1000, 1000, 1000]


@pytest.mark.parametrize(
    ("domain", "grid"),
    [
        (hpx.Uniform(0.5, 0.99, num=3), [0.5, 0.745, 0.99]),
        (hpx.LogUniform(1e-4, 1.0, num=5), [1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
        (hpx.ReverseLogUniform(0.9, 0.9999, num=4), [0.9, 0.99, 0.999, 0.9999]),
        (hpx.Int(1, 4), [1, 2, 3, 4]),
        (hpx.Int(0, 100, num=3), [0, 50, 100]),
        (hpx.LogInt(16, 256, num=5), [16, 32, 64, 128, 256]),
        (hpx.Choice("a", 2), ["a", 2]),
        (hpx.LogUniform(1e-4, 1, num=1), [0.01]),
    ],
    ids=str,
)
def test_grids(domain, grid):
    assert domain.grid() == grid


@pytest.mark.parametrize(
    "domain",
    [
        hpx.Uniform(0.123456, 0.987654, num=3),
        hpx.Uniform(-1.23456789e-7, 9.87654321e12, num=5),
        hpx.LogUniform(1.23456e-5, 0.987654, num=4),
        hpx.ReverseLogUniform(0.123456, 0.99987654, num=4),
        hpx.Int(-1234567, 7654321, num=6),
        hpx.LogInt(17, 2**31 - 1, num=7),
    ],
    ids=str,
)
def test_both_ends_of_a_grid_are_the_bounds(domain):
    grid = domain.grid()
    assert (grid[0], grid[-1], len(grid)) == (domain.low, domain.high, domain.num)
    assert (domain.from_unit(0), domain.from_unit(1)) == (domain.low, domain.high)
    assert grid == sorted(set(grid))


SCALARS = [np.float32, np.float64, np.longdouble, jnp.float32, lambda v: np.array(v), lambda v: jnp.asarray(v)]


@pytest.mark.parametrize("scalar", SCALARS)
def test_scalars_of_numpy_and_jax_are_numbers(scalar):
    """Halves and quarters, which every type of float holds exactly."""
    domain = hpx.Uniform(scalar(0.25), scalar(0.75), num=np.int64(3), default=scalar(0.5))
    assert domain == hpx.Uniform(0.25, 0.75, num=3, default=0.5)
    assert {type(v) for v in (domain.low, domain.high, domain.default)} == {float}
    assert type(domain.num) is int
    choice = hpx.Choice(scalar(0.5), (scalar(0.25), 1), default=scalar(0.5))
    assert repr(choice) == repr(hpx.Choice(0.5, (0.25, 1), default=0.5))
    space = hpx.Space(x=domain, c=choice, constant=scalar(0.5))
    point = space.canonical({"x": scalar(0.5), "c": scalar(0.5), "constant": scalar(0.5)})
    assert repr(point) == "{'x': 0.5, 'c': 0.5, 'constant': 0.5}"


@pytest.mark.parametrize("scalar", [np.int8, np.int64, np.uint16, jnp.int32])
def test_whole_scalars_are_ints(scalar):
    assert repr(hpx.Int(scalar(1), scalar(8), default=scalar(2))) == repr(hpx.Int(1, 8, default=2))
    assert repr(hpx.LogInt(scalar(1), scalar(8), num=scalar(2))) == repr(hpx.LogInt(1, 8, num=2))
    assert repr(hpx.Choice(*np.array([4, 8]), scalar(16))) == repr(hpx.Choice(4, 8, 16))
    assert repr(hpx.Choice(*np.array([True, False]))) == repr(hpx.Choice(True, False))
    assert repr(hpx.Choice(*np.array(["a", "b"]))) == repr(hpx.Choice("a", "b"))


@pytest.mark.parametrize(
    ("domain", "given", "own"),
    [
        (hpx.Choice(4, 8), 8.0, 8),
        (hpx.Choice(4, 8), np.float32(8), 8),
        (hpx.Choice(0.1, 0.2), np.float32(0.1), 0.1),
        (hpx.Choice(0.5, 1.0), 1, 1.0),
        (hpx.Choice((64, 64), "b"), (np.int64(64), 64.0), (64, 64)),
        (hpx.Choice(True, False), np.True_, True),
        (hpx.Int(1, 8), 8.0, 8),
        (hpx.LogInt(1, 8), np.float64(8), 8),
        (hpx.Uniform(0, 2), 1, 1.0),
        (hpx.Uniform(0, 0.1), np.float32(0.1), 0.1),
        (hpx.LogUniform(0.3, 1), np.float64(0.123456789) * 3, 0.123456789 * 3),
    ],
    ids=str,
)
def test_a_value_in_a_domain_is_the_domain_s_own(domain, given, own):
    assert domain.contains(given)
    found = hpx.Space(x=domain).canonical({"x": given})["x"]
    assert (type(found), found) == (type(own), own)


@pytest.mark.parametrize(
    ("domain", "given"),
    [
        (hpx.Choice(4, 8), "8"),
        (hpx.Choice(4, 8), 8.5),
        (hpx.Choice(4, 8), np.array([4, 8])),
        (hpx.Choice(True, False), "True"),
        (hpx.Int(1, 8), True),
        (hpx.Int(1, 8), 2.5),
        (hpx.Int(1, 8), "2"),
        (hpx.Uniform(0, 1), float("nan")),
        (hpx.Uniform(0, 1), 10**400),
        (hpx.Uniform(0, 1), 1j),
        (hpx.Uniform(0, 1), None),
    ],
    ids=str,
)
def test_what_is_no_value_of_a_domain(domain, given):
    with pytest.raises(hpx.InputError, match="must lie in"):
        hpx.Space(x=domain).canonical({"x": given})


def test_a_fine_grid_has_no_point_twice():
    assert len(set(hpx.Uniform(0.1, 0.1001, num=5000).grid())) == 5000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-4, "0.0001"),
        (1e-5, "1e-5"),
        (3.2e-7, "3.2e-7"),
        (256, "256"),
        (0.1, "0.1"),
        (1.0, "1"),
        (1e20, "1e20"),
        (np.float64(0.5), "0.5"),
        ("adamw", "adamw"),
        (jax.nn.relu, "relu"),
        ((64, 64), "(64, 64)"),
        (True, "True"),
    ],
)
def test_values_print_as_a_person_writes_them(value, text):
    assert show(value) == text


def test_functions_show_by_name_and_arguments():
    assert show(jax.nn.relu) == "relu"
    assert show(partial(jax.nn.leaky_relu, negative_slope=0.1)) == "leaky_relu(negative_slope=0.1)"
    assert show((partial(max, 1e-5), 3.0)) == "(max(1e-5), 3)"


def test_sampled_numbers_are_short():
    values = [hpx.LogUniform(1e-4, 1).from_unit(u) for u in np.random.default_rng(0).random(1000)]
    assert max(len(show(v)) for v in values) <= 9


SGD = hpx.Space(optimizer="sgd", momentum=hpx.Uniform(0, 0.9))
ADAMW = hpx.Space(optimizer="adamw", b2=hpx.ReverseLogUniform(0.9, 0.999, default=0.99))
UNION = hpx.Space(rate=hpx.LogUniform(1e-4, 1)) & (SGD | ADAMW)


def test_a_union_gives_each_trial_the_names_of_one_alternative():
    assert UNION.names == ("rate", "optimizer", "momentum", "b2")
    assert UNION.dimensions == (None, "rate", "momentum", "b2")
    first, second = UNION.from_unit([0.2, 0.5, 0, 0]), UNION.from_unit([0.7, 0.5, 0, 1])
    assert first == {"rate": 0.01, "optimizer": "sgd", "momentum": 0.0}
    assert second == {"rate": 0.01, "optimizer": "adamw", "b2": 0.999}
    assert UNION.to_unit(second).tolist() == pytest.approx([0.75, 0.5, 0.5, 1])


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_points_of_a_union_map_back(u):
    point = UNION.from_unit(u)
    assert UNION.from_unit(UNION.to_unit(point)) == point


def test_the_baseline_takes_defaults_and_else_the_middle():
    assert UNION.baseline() == {"rate": 0.01, "optimizer": "adamw", "b2": 0.99}
    assert SGD.baseline() is None


def test_three_alternatives_are_equally_likely():
    union = hpx.Space(a=0) | hpx.Space(a=1) | hpx.Space(a=2)
    assert union.dimensions == (None,)
    values = [union.from_unit([u])["a"] for u in (np.arange(300) + 0.5) / 300]
    assert np.bincount(values).tolist() == [100, 100, 100]


def test_kinds_of_numbers():
    space = hpx.Space(a=hpx.Int(1, 3), b=hpx.Choice(1, 0.5), c=hpx.Choice(True, False), d="x") | hpx.Space(
        a=hpx.Uniform(0, 1), b=2, c=1, d=3
    )
    assert {name: space.kind(name) for name in space.names} == {"a": float, "b": float, "c": None, "d": None}


def test_a_dict_of_hparams():
    h = hpx.Hparams({"lr": 0.1, "wd": 2}, traced=["lr"])
    assert dict(h) == {**h} == {"lr": 0.1, "wd": 2}
    with pytest.raises(hpx.InputError, match="keys"):
        hpx.Space(keys=1)


def test_hparams_are_a_pytree_of_the_traced_values():
    h = hpx.Hparams({"rate": 0.1, "hidden": 64, "act": jax.nn.relu}, traced=["rate"])
    assert jax.tree.leaves(h) == [0.1]
    doubled = jax.tree.map(lambda v: 2 * v, h)
    assert (doubled.rate, doubled.hidden, doubled["act"]) == (0.2, 64, jax.nn.relu)
    other = hpx.Hparams({"hidden": 64, "rate": 0.7, "act": jax.nn.relu}, traced=["rate"])
    assert jax.tree.structure(h) == jax.tree.structure(other)
    assert jax.tree.structure(h) != jax.tree.structure(hpx.Hparams({"rate": 0.1, "hidden": 65, "act": 1}, ["rate"]))
    assert list(h) == ["rate", "hidden", "act"]
    assert "rate" in h
    with pytest.raises(AttributeError, match="read-only"):
        h.rate = 3
    with pytest.raises(hpx.UnknownHyperparameterError, match="Did you mean 'hidden'"):
        _ = h.hiden
    assert math.isclose(jax.jit(lambda h: h.rate * h.hidden)(h), 6.4, rel_tol=1e-6)
