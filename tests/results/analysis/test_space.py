"""Isolation and boundaries, against pandas and against the best values, which are known."""

import itertools

import numpy as np
import pytest

import hpjax as hpx
from hpjax.core.domains import Range
from tests.support.programs import quadratic

TUNED = {"rate": hpx.LogUniform(0.001, 0.9), "kind": hpx.Choice("a", "b", "c"), "many": hpx.Uniform(0, 1)}


@pytest.fixture(scope="module")
def result():
    return hpx.Sweep(quadratic(20, 20), hpx.Space(**TUNED), sampler=hpx.Random(), trials=50).run(progress=False)


def test_the_best_of_each_value_is_that_of_pandas(result):
    frame = result.to_pandas()
    found = hpx.analysis.isolate(result, "kind")
    groups = frame.groupby("kind")["valid/loss"]
    assert {each.value: each.reached for each in found} == groups.min().to_dict()
    assert {each.value: each.trials for each in found} == groups.size().to_dict()
    assert [result.hparams[each.best]["kind"] for each in found] == [each.value for each in found]
    fewest = groups.size().min()
    some = next(each for each in found if each.trials > fewest)
    values = frame["valid/loss"][frame["kind"] == some.value].tolist()
    subsets = [min(kept) for kept in itertools.combinations(values, fewest)]
    assert some.expected == pytest.approx(np.mean(subsets), rel=1e-9)
    assert some.expected > some.reached
    assert all(each.expected == each.reached for each in found if each.trials == fewest)


def test_numbers_of_many_values_come_in_buckets_even_on_their_scale(result):
    found = hpx.analysis.isolate(result, "rate", buckets=4, fixed={"kind": "b"})
    frame = result.to_pandas()
    frame = frame[frame["kind"] == "b"]
    edges = np.geomspace(0.001, 0.9, 5)
    for each, low, high in zip(found, edges[:-1], edges[1:], strict=True):
        own = frame[(frame["rate"] >= low) & (frame["rate"] < high)]["valid/loss"]
        assert (each.trials, each.reached) == (len(own), own.min())
        assert low <= each.value < high
    few = hpx.Sweep(quadratic(4, 4), hpx.Space(rate=hpx.LogUniform(0.1, 0.4, num=3)), sampler=hpx.Grid())
    found = hpx.analysis.isolate(few.run(progress=False), "rate")
    assert [(each.value, each.trials) for each in found] == [(0.1, 1), (0.2, 1), (0.4, 1)]
    assert all(each.expected == each.reached for each in found)


def test_what_is_fixed_may_be_of_a_table(result):
    """Whose values are those of NumPy."""
    first, many = np.str_(result.hparams[0]["kind"]), result.table()["many"][0]
    own = hpx.analysis.isolate(result, "rate", fixed={"kind": first})
    assert own == hpx.analysis.isolate(result, "rate", fixed={"kind": str(first)})
    assert [each.best for each in hpx.analysis.isolate(result, "rate", fixed={"many": many})] == [0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "rat"}, "Did you mean 'rate'"),
        ({"fixed": {"rat": 1}}, "Did you mean 'rate'"),
        ({"fixed": {"rate": 1}}, "must not be the scientific"),
        ({"fixed": {"kind": "d"}}, "must be values that trials with rate have"),
        ({"fixed": {"kind": np.array(["a", "b"])}}, r"isolate.fixed\['kind'\] = .*: must be a value as result.table"),
        ({"buckets": 0}, "buckets"),
    ],
)
def test_what_cannot_be_isolated_is_named(result, changes, told):
    with pytest.raises(hpx.InputError, match=told):
        hpx.analysis.isolate(**({"table": result, "name": "rate"} | changes))


def test_the_best_trials_are_at_an_end_where_better_ones_are_beyond_it():
    """The loss falls with the rate up to 1; nothing else matters."""
    space = hpx.Space(rate=hpx.LogUniform(0.001, 0.2), many=hpx.Uniform(0, 1), kind=hpx.Choice(1, 2), held=3.0)
    result = hpx.Sweep(quadratic(20, 20), space, trials=64).run(progress=False)
    at_end, inside = hpx.analysis.boundaries(result)
    rates = sorted((hparams["rate"] for hparams in result.hparams), reverse=True)
    assert (at_end.name, at_end.at, at_end.low, at_end.high) == ("rate", "highest", 0.001, 0.2)
    assert at_end.median == rates[2]
    assert at_end.place == pytest.approx(np.log(rates[2] / 0.001) / np.log(200))
    assert (inside.name, inside.at) == ("many", None)
    assert [each.at for each in hpx.analysis.boundaries(result, near=0.0)] == [None, None]
    assert hpx.analysis.boundaries(result, trials=65) == []
    found = hpx.Sweep(quadratic(20, 20), hpx.Space(rate=hpx.LogUniform(1.0, 1.9)), trials=32).run(progress=False)
    assert [each.at for each in hpx.analysis.boundaries(found)] == ["lowest"]


def test_places_are_on_the_scale_of_the_range():
    assert Range(1e-4, 1.0, "log").place(0.01) == pytest.approx(0.5)
    assert Range(0.9, 0.999, "reverse log").place(0.99) == pytest.approx(0.5)
    assert Range(2, 4, "linear").place(3) == 0.5
    assert Range(2, 2, "category").place(2) == 0.5


def test_alternatives_of_other_ranges_share_their_buckets():
    both = hpx.Space(rate=hpx.LogUniform(0.3, 0.5)) | hpx.Space(rate=hpx.Uniform(-0.1, 0.1))
    result = hpx.Sweep(quadratic(4, 4), both, trials=40).run(progress=False)
    found = hpx.analysis.isolate(result, "rate", buckets=4)
    assert sum(each.trials for each in found) == 40
    # Even between -0.1 and 0.5: one bucket has no trial.
    rates = np.array([hparams["rate"] for hparams in result.hparams])
    counts, _ = np.histogram(rates, np.linspace(-0.1, 0.5, 5))
    assert [each.trials for each in found] == [many for many in counts if many]
    assert len({result.ranges(trial)["rate"] for trial in result.ranking}) == 2
    assert hpx.analysis.boundaries(result, trials=40) == [], "of two ranges there is no one place"
    assert [each.name for each in hpx.analysis.boundaries(result)] == ["rate"], "the best five are of one"
