"""The numbers behind pictures, and that each picture is of them."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import hpjax as hpx
from hpjax import plot
from hpjax.results import analysis
from tests.support.programs import quadratic, rates

SPACE = hpx.Space(rate=hpx.LogUniform(1e-3, 10), size=2, scale=hpx.Uniform(0, 1))


def panel():
    return Figure().subplots()


def closed(rate, step):
    return (1 - 2 * rate) ** (2 * step)


@pytest.fixture(scope="module")
def race():
    """Halving of eight, of which two diverge: one in two goes on at 5 and 10."""
    values = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 30.0, 5e5)
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1e6))
    sweep = hpx.Sweep(quadratic(20, 5), space, sampler=rates(*values), scheduler=hpx.Halving(factor=2, min_steps=5))
    return sweep.run(progress=False)


def test_curves_are_of_all_lanes():
    """Two replicates of each trial, whose values are apart by a tenth, and one of which ends early."""

    def evaluate(key, state, split, h):
        return {"loss": h.rate + 0.1 * state["replicate"]}

    program = hpx.Program(
        lambda key, h: {"replicate": jax.random.bernoulli(key).astype(float), "t": jnp.int32(0)},
        lambda key, state, batch, h: ({**state, "t": state["t"] + 1}, {}),
        evaluate,
        react=lambda state, metrics, h: (state, (state["t"] >= 2) & (state["replicate"] == 0)),
        steps=4,
        eval_every=2,
    )
    listed = hpx.Manual([{"rate": 0.3}, {"rate": 0.2}])
    result = hpx.Sweep(program, hpx.Space(rate=hpx.Uniform(0, 1)), sampler=listed, replicates=4).run(progress=False)
    trials, steps, values = analysis.curves(result, "valid/loss")
    assert trials.tolist() == [0] * 4 + [1] * 4
    early = np.isclose(values[:4, 0], 0.3)
    assert 0 < early.sum() < 4, "seeds of both kinds"
    np.testing.assert_allclose(values[:, 0], np.repeat([0.3, 0.2], 4) + 0.1 * ~np.tile(early, 2), rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(steps[:, 1]), np.tile(early, 2))
    lines = plot.draw_curves(result, "valid/loss", panel()).get_lines()
    assert [line.get_color() for line in lines] == [plot.GREY] * 4 + [plot.RED] * 4
    assert lines[4].get_label() == "trial 1, the best"


def test_curves_of_what_diverged_are_there_too(race):
    trials, *_ = analysis.curves(race, "valid/loss")
    assert trials.tolist() == [7, *race.ranking[::-1]]
    ax = plot.draw_curves(race, "valid/loss", panel())
    assert len(ax.get_lines()) == 8


def test_rungs(race):
    found = analysis.rungs(race)
    assert (found.steps.tolist(), found.live.tolist()) == ([5, 10], [8, 4, 2])
    ax = plot.draw_rungs(race, panel())
    assert [text.get_text().strip() for text in ax.texts] == [str(live) for live in found.live]


def test_an_axis_shows_the_best_over_training():
    # A rate above 1/2 overshoots, one above 1 moves away from the start: its best is its first evaluation.
    result = hpx.Sweep(quadratic(20, 5), SPACE, sampler=hpx.Manual([{"rate": r, "scale": 0.5} for r in (0.05, 1.01)]))
    result = result.run(progress=False)
    found = analysis.axis(result, "rate", "valid/loss")
    np.testing.assert_allclose(found.y, [closed(0.05, 20), closed(1.01, 5)], rtol=1e-4)
    np.testing.assert_allclose(result.last("valid/loss")[:, 0], [closed(0.05, 20), closed(1.01, 20)], rtol=1e-4)
    higher = hpx.Sweep(
        quadratic(20, 5),
        SPACE,
        sampler=hpx.Manual([{"rate": 0.05, "scale": 0.5}]),
        objective=hpx.maximize("valid/loss"),
    ).run(progress=False)
    np.testing.assert_allclose(analysis.axis(higher, "rate", "valid/loss").y, [closed(0.05, 5)], rtol=1e-4)


def test_what_matters_by_its_distance_to_1_is_drawn_by_it():
    space = hpx.Space(rate=hpx.ReverseLogUniform(0.1, 0.999), scale=hpx.ReverseLogUniform(0.5, 0.99))
    points = [{"rate": 0.1, "scale": 0.9}, {"rate": 0.5, "scale": 0.8}, {"rate": 0.9, "scale": 0.6}]
    result = hpx.Sweep(quadratic(20, 5), space, sampler=hpx.Manual(points)).run(progress=False)
    ax = plot.draw_axis(result, "rate", "valid/loss", panel())
    assert (ax.get_xlabel(), ax.get_xscale(), ax.xaxis_inverted()) == ("1 − rate", "log", True)
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], [0.9, 0.5, 0.1])
    ax = plot.draw_map(result, "rate", "scale", "valid/loss", panel())
    assert (ax.get_ylabel(), ax.get_yscale(), ax.yaxis_inverted()) == ("1 − scale", "log", True)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[0.9, 0.1], [0.5, 0.2], [0.1, 0.4]])


def test_a_map():
    points = [{"rate": rate, "scale": scale} for rate in (0.01, 0.1, 9.0) for scale in (0.2, 0.8)]
    result = hpx.Sweep(quadratic(40, 5), SPACE, sampler=hpx.Manual(points)).run(progress=False)
    assert result.statuses.tolist() == ["complete"] * 4 + ["diverged"] * 2
    found = analysis.map_of(result, "rate", "scale", "valid/loss")
    assert found.trials.tolist() == [0, 1, 2, 3]
    assert list(zip(found.x, found.y, strict=True)) == [(0.01, 0.2), (0.01, 0.8), (0.1, 0.2), (0.1, 0.8)]
    np.testing.assert_allclose(found.z, [closed(r, 40) for r in (0.01, 0.01, 0.1, 0.1)], rtol=1e-3)
    assert found.diverged.tolist() == [[9.0, 0.2], [9.0, 0.8]]
    assert found.scales == ("log", "linear")
    ax = plot.draw_map(result, "rate", "scale", "valid/loss", panel())
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("rate", "scale", "log")
    assert sorted(plot.pictures(result)) == ["map", "overview"]


def test_the_ancestry_of_a_population():
    sweep = hpx.Sweep(
        quadratic(40, 5),
        hpx.Space(rate=hpx.LogUniform(1e-3, 0.4)),
        sampler=rates(*np.geomspace(1e-3, 0.3, 8)),
        scheduler=hpx.PBT(every=10),
    )
    result = sweep.run(progress=False)
    assert result.lineage
    for trial in range(len(result)):
        parts = analysis.ancestry(result, trial)
        assert parts[0][1] == 0
        assert parts[-1][0] == trial
        assert parts[-1][2] == 40
        for (source, _, end), (taker, begin, _) in pairwise(parts):
            assert end == begin
            assert any(t.trial == taker and t.source == source and t.step == begin for t in result.lineage)
    ax = plot.draw_lineage(result, panel())
    assert ax.get_ylabel() == "trials, by rank"
    assert {"overview", "lineage"} <= plot.pictures(result).keys()
