"""The numbers behind pictures, and that each picture is of them."""

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import hpjax as hpx
from hpjax import plot
from hpjax.results import plot_data
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
    trials, steps, values = plot_data.curves(result, "valid/loss")
    assert trials.tolist() == [0] * 4 + [1] * 4
    early = np.isclose(values[:4, 0], 0.3)
    assert 0 < early.sum() < 4, "seeds of both kinds"
    np.testing.assert_allclose(values[:, 0], np.repeat([0.3, 0.2], 4) + 0.1 * ~np.tile(early, 2), rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(steps[:, 1]), np.tile(early, 2))
    lines = plot.draw_curves(result, "valid/loss", panel()).get_lines()
    assert [line.get_color() for line in lines] == [plot.GREY] * 4 + [plot.RED] * 4
    assert lines[4].get_label() == "trial 1, best at the end"


def test_curves_of_what_diverged_are_there_too(race):
    trials, *_ = plot_data.curves(race, "valid/loss")
    assert trials.tolist() == [7, *race.ranking[::-1]]
    ax = plot.draw_curves(race, "valid/loss", panel())
    assert len(ax.get_lines()) == 8


def test_rungs(race):
    found = plot_data.rungs(race)
    assert (found.steps.tolist(), found.live.tolist()) == ([5, 10], [8, 4, 2])
    ax = plot.draw_rungs(race, panel())
    assert [text.get_text().strip() for text in ax.texts] == [str(live) for live in found.live]


def star(ax):
    """Where the star of a scatter plot stands."""
    (found,) = [each.get_offsets() for each in ax.collections if each.get_facecolor()[0].tolist() == RED]
    assert len(found) == 1
    return found[0].tolist()


RED = list(to_rgba(plot.RED))


def heights(ax):
    """The values that a scatter plot shows, and whether each is grey."""
    dots = ax.collections[0]
    grey = [color[:3] == to_rgba(plot.GREY)[:3] for color in map(tuple, dots.get_facecolor())]
    return dots.get_offsets()[:, 1], grey


def test_an_axis_shows_the_end_of_training():
    # A rate above 1/2 overshoots, one above 1 moves away from the start: its best is its first evaluation.
    points = hpx.Manual([{"rate": r, "scale": 0.5} for r in (0.05, 1.01)])
    for objective in (hpx.minimize("valid/loss"), hpx.maximize("valid/loss")):
        result = hpx.Sweep(quadratic(20, 5), SPACE, sampler=points, objective=objective).run(progress=False)
        ends = [closed(0.05, 20), closed(1.01, 20)]
        np.testing.assert_allclose(plot_data.axis(result, "rate", "valid/loss").y, ends, rtol=1e-4)
        ax = plot.draw_axis(result, "rate", "valid/loss", panel())
        best = result.best
        assert star(ax) == pytest.approx([best.hparams["rate"], result.table()["valid/loss"][best.id]])
        assert star(ax)[1] == pytest.approx((max if objective.direction == "maximize" else min)(ends), rel=1e-4)


def rising(steps=20, eval_every=5):
    """A program whose loss is 1 − rate at first, and that plus t / 100 after t steps: the first evaluation is best."""
    return hpx.Program(
        lambda key, h: jnp.zeros(()),
        lambda key, t, batch, h: (t + 1, {}),
        lambda key, t, split, h: {"loss": 1 - h.rate + t / 100},
        steps=steps,
        eval_every=eval_every,
    )


@pytest.fixture(scope="module")
def overfitted():
    """Halving whose losses rise: the stopped trials ended early, and with better values than the best trial has."""
    space = hpx.Space(rate=hpx.Uniform(0, 1), scale=hpx.Uniform(0, 1))
    points = [{"rate": 0.5 + i / 50, "scale": i / 8} for i in range(8)]
    scheduler = hpx.Halving(factor=2, min_steps=5)
    return hpx.Sweep(rising(), space, sampler=hpx.Manual(points), scheduler=scheduler).run(progress=False)


def test_the_star_stands_where_the_table_says(overfitted):
    best, table = overfitted.best, overfitted.table()
    assert best.id == 7
    assert table["valid/loss"][7] == pytest.approx(1 - 0.64 + 0.20, rel=1e-5)
    ax = plot.draw_axis(overfitted, "rate", "valid/loss", panel())
    assert star(ax) == pytest.approx([0.64, 0.56], rel=1e-5)
    shown, grey = heights(ax)
    assert sorted(shown) == pytest.approx(sorted(table["valid/loss"]))
    stopped = table["status"] == "stopped"
    assert grey == stopped.tolist()
    assert star(ax)[1] == pytest.approx(table["valid/loss"][~stopped].min()), "the lowest of those that rank first"
    assert star(ax)[1] > table["valid/loss"][stopped].min(), "a stopped trial ended lower, and is grey"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"{stopped.sum()} ended earlier",
        "trial 7, best at the end",
    ]
    across = plot.draw_map(overfitted, "rate", "scale", "valid/loss", panel())
    np.testing.assert_allclose(across.collections[0].get_array(), table["valid/loss"])
    assert star(across) == pytest.approx([0.64, 7 / 8])


def test_limits_hold_what_is_drawn(overfitted):
    for draw in (lambda ax: plot.draw_curves(overfitted, "valid/loss", ax), lambda ax: plot.draw_rungs(overfitted, ax)):
        ax = draw(panel())
        low, high = ax.get_ylim()
        (best,) = [line.get_ydata() for line in ax.get_lines() if line.get_color() == plot.RED]
        np.testing.assert_allclose(best, [0.41, 0.46, 0.51, 0.56], rtol=1e-5)
        assert low < best.min() <= best.max() < high
        drawn = [line.get_ydata() for line in ax.get_lines() if len(line.get_ydata()) == 4]
        assert low < np.nanmin(drawn), "no curve is cut where it is good"
    ax = plot.draw_axis(overfitted, "rate", "valid/loss", panel())
    assert ax.get_ylim()[0] < star(ax)[1] < ax.get_ylim()[1]


def test_only_values_far_from_the_others_are_beyond_the_limits():
    values = np.linspace(1.0, 2.0, 11)
    assert plot_data.limits(values) == pytest.approx((0.95, 2.05))
    assert plot_data.limits(np.append(values, [50.0, np.nan])) == pytest.approx((0.95, 2.05), abs=0.1)
    assert plot_data.limits(np.append(values, 50.0), np.array([0.0, 50.0]))[1] > 50
    assert plot_data.limits(np.array([np.nan])) == (0, 1)
    assert plot_data.limits(np.array([3.0])) == (2.5, 3.5)


def test_a_falling_curve_is_drawn_whole():
    result = hpx.Sweep(quadratic(40, 5), SPACE, sampler=hpx.Manual([{"rate": 0.1, "scale": 0.5}])).run(progress=False)
    low, high = plot.draw_curves(result, "valid/loss", panel()).get_ylim()
    assert low < closed(0.1, 40) < closed(0.1, 5) < high


def test_the_star_of_a_population_stands_where_the_table_says():
    program = dataclasses.replace(rising(40, 5), evaluate=lambda key, t, split, h: {"loss": h.rate + jnp.sin(t)})
    sweep = hpx.Sweep(
        program,
        hpx.Space(rate=hpx.LogUniform(1e-3, 0.4)),
        sampler=rates(*np.geomspace(1e-3, 0.3, 8)),
        scheduler=hpx.PBT(every=10),
    )
    result = sweep.run(progress=False)
    best = result.best
    ax = plot.draw_axis(result, "rate", "valid/loss", panel())
    assert star(ax) == pytest.approx([best.hparams["rate"], result.table()["valid/loss"][best.id]])
    assert star(ax)[1] == pytest.approx(best.hparams["rate"] + np.sin(40), rel=1e-5)
    assert star(ax)[1] > result.curves("valid/loss")[best.id].min() + 0.1, "it was better before"


def test_replicates_combine_as_the_objective_says():
    """Four replicates of each trial, two of them worse by one: the worst of the first is better than of the second."""
    program = hpx.Program(
        lambda key, h: jax.random.bernoulli(key).astype(float),
        lambda key, state, batch, h: (state, {}),
        lambda key, state, split, h: {"loss": h.rate + state * h.spread},
        steps=1,
    )
    points = hpx.Manual([{"rate": 0.4, "spread": 0.2}, {"rate": 0.1, "spread": 0.9}])
    space = hpx.Space(rate=hpx.Uniform(0, 1), spread=hpx.Uniform(0, 1))
    objective = hpx.minimize("valid/loss", quantile=1.0)
    result = hpx.Sweep(program, space, sampler=points, replicates=4, objective=objective).run(progress=False)
    assert 0 < (result.last("valid/loss")[1] < 0.5).sum() < 4, "replicates of both kinds"
    ax = plot.draw_axis(result, "rate", "valid/loss", panel())
    np.testing.assert_allclose(heights(ax)[0], [0.6, 1.0], rtol=1e-6)
    assert star(ax) == pytest.approx([0.4, 0.6])
    assert ax.get_ylabel() == "final valid/loss, quantile 1"


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
    found = plot_data.map_of(result, "rate", "scale", "valid/loss")
    assert found.trials.tolist() == [0, 1, 2, 3]
    assert list(zip(found.x, found.y, strict=True)) == [(0.01, 0.2), (0.01, 0.8), (0.1, 0.2), (0.1, 0.8)]
    np.testing.assert_allclose(found.z, [closed(r, 40) for r in (0.01, 0.01, 0.1, 0.1)], rtol=1e-3)
    assert found.diverged.tolist() == [[9.0, 0.2], [9.0, 0.8]]
    assert found.scales == ("log", "linear")
    ax = plot.draw_map(result, "rate", "scale", "valid/loss", panel())
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("rate", "scale", "log")
    assert list(plot.pictures(result)) == ["overview", "quantiles", "cost", "isolation", "parallel", "map", "contour"]


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
        parts = plot_data.ancestry(result, trial)
        assert parts[0][1] == 0
        assert parts[-1][0] == trial
        assert parts[-1][2] == 40
        for (source, _, end), (taker, begin, _) in pairwise(parts):
            assert end == begin
            assert any(t.trial == taker and t.source == source and t.step == begin for t in result.lineage)
    ax = plot.draw_lineage(result, panel())
    assert ax.get_ylabel() == "rank at the end"
    assert {"overview", "lineage", "schedules"} <= plot.pictures(result).keys()
