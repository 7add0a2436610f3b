"""Pictures for papers: the numbers of each kind against NumPy, SciPy and closed forms; that nothing overlaps or is cut.

Where things lie is asked of the renderer, in pixels.
"""

import itertools

import matplotlib.text
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.tri import LinearTriInterpolator, Triangulation
from scipy.interpolate import griddata

import hpjax as hpx
from hpjax import plot
from hpjax.core.objective import Objective
from hpjax.results import plot_data
from hpjax.results.importance import importance
from hpjax.results.picture_file import content_of
from hpjax.results.store.rows import STATUS_DTYPE
from hpjax.results.table import Alternative, CloneRecord, TrialTable

NAN = np.nan


def table_of(curves, hparams=None, scales=None, **changes):
    """A table of trials with one replicate, evaluated every 10 steps; their losses are (trials, evaluations)."""
    curves = np.asarray(curves, float)
    trials, evaluations = curves.shape
    hparams = [{"rate": 10.0 ** (-1 - t)} for t in range(trials)] if hparams is None else hparams
    names = tuple(dict.fromkeys(name for each in hparams for name in each))
    step = np.where(np.isfinite(curves), 10.0 * np.arange(1, evaluations + 1), NAN)
    numbers = np.zeros(trials, np.int32)
    values = {
        "names": names,
        "metrics": ("valid/loss",),
        "objective": Objective("valid/loss", "minimize"),
        "scales": dict.fromkeys(names, "log") | (scales or {}),
        "alternatives": (Alternative(frozenset(names), {}, {}),),
        "hparams": hparams,
        "first_hparams": hparams,
        "lineage": [],
        "rounds": numbers,
        "groups": numbers,
        "waves": numbers,
        "widths": numbers + 2,
        "lane_status": np.full((trials, 1), "complete", STATUS_DTYPE),
        "lane_step": np.full((trials, 1), 10 * evaluations),
        "recorded": {"step": step[:, None], "seconds": step[:, None] / 4, "valid/loss": curves[:, None]},
        "tested": {},
    }
    return TrialTable(**(values | changes))


def statuses(*each):
    return np.array(each, STATUS_DTYPE)[:, None]


def panel():
    return Figure().subplots()


# The numbers.


def test_quantiles_are_those_of_numpy():
    curves = np.random.default_rng(0).lognormal(size=(21, 4))
    found = plot_data.quantiles(table_of(curves), "valid/loss")
    assert found.steps.tolist() == [10, 20, 30, 40]
    assert found.counts.tolist() == [21] * 4
    np.testing.assert_allclose(found.values, np.quantile(curves, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0))
    best_first = table_of(curves, objective=Objective("valid/loss", "maximize"))
    above = plot_data.quantiles(best_first, "valid/loss").values
    np.testing.assert_allclose(above, np.quantile(curves, [0.95, 0.75, 0.5, 0.25, 0.05], axis=0))


def test_trials_that_diverged_are_worse_than_any_and_stopped_ones_no_more_counted():
    curves = [[5, 5, 5], [4, 4, 4], [3, NAN, NAN], [2, 2, NAN], [1, 1, 1]]
    state = statuses("complete", "complete", "diverged", "stopped", "complete")
    ended = np.array([30, 30, 15, 20, 30])[:, None]
    found = plot_data.quantiles(table_of(curves, lane_status=state, lane_step=ended), "valid/loss")
    assert found.counts.tolist() == [5, 5, 4]
    # The medians of 1 … 5; of 1, 2, 4, 5 and the diverged one; of 1, 4, 5 and the diverged one.
    assert found.values[2].tolist() == [3, 4, 4.5]
    assert found.values[4].tolist() == [pytest.approx(4.8), np.inf, np.inf]


def test_bands_are_drawn_where_the_quantiles_are():
    curves = np.sort(np.random.default_rng(1).uniform(1, 2, (41, 3)), axis=0)
    ax = plot.draw_quantiles(table_of(curves), "valid/loss", panel())
    wide, narrow = (band.get_paths()[0].vertices for band in ax.collections)
    for band, ends in ((wide, (0.05, 0.95)), (narrow, (0.25, 0.75))):
        at_first = band[band[:, 0] == 10][:, 1]
        assert (at_first.min(), at_first.max()) == pytest.approx(tuple(np.quantile(curves[:, 0], ends)))
    median, best = ax.get_lines()
    np.testing.assert_allclose(median.get_ydata(), np.median(curves, axis=0))
    np.testing.assert_allclose(best.get_ydata(), curves[0])


def test_what_the_best_value_cost():
    """Two rounds of two trials; one diverges at step 15, one is stopped at 10."""
    curves = [[9, 4], [8, NAN], [7, NAN], [3, 5]]
    state = statuses("complete", "diverged", "stopped", "complete")
    ended = np.array([20, 15, 10, 20])[:, None]
    rounds = np.array([0, 0, 1, 1], np.int32)
    mine = table_of(curves, lane_status=state, lane_step=ended, rounds=rounds)
    found = plot_data.cost(mine)
    assert found.spent.tolist() == [20, 35, 55, 65]
    assert found.values.tolist() == [8, 4, 3, 3]
    assert found.rounds.tolist() == [0, 35]
    ax = plot.draw_cost(mine, panel())
    assert ax.get_lines()[0].get_xydata().tolist() == [[20, 8], [35, 4], [55, 3], [65, 3]]
    assert mine.ranking[0] == 0, "ranks by 4 at its end, though trial 3 once had 3"
    assert ax.get_ylabel() == "best valid/loss so far"


def test_how_long_the_best_value_took():
    """Two rounds of two trials, whose evaluations were recorded at other times; one trial diverged."""
    curves = [[9, 4], [8, NAN], [7, 6], [3, 5]]
    seconds = np.array([[2.5, 6.0], [3.0, NAN], [8.0, 9.5], [7.0, 9.5]])[:, None]
    state = statuses("complete", "diverged", "complete", "complete")
    mine = table_of(curves, lane_status=state, rounds=np.array([0, 0, 1, 1], np.int32))
    mine.recorded["seconds"][:] = seconds
    found = plot_data.cost(mine, "seconds")
    assert found.spent.tolist() == [2.5, 3, 6, 7, 8, 9.5]
    assert found.values.tolist() == [9, 8, 4, 3, 3, 3]
    assert found.rounds.tolist() == [0, 6]
    ax = plot.draw_cost(mine, panel(), "seconds")
    assert (ax.get_xlabel(), ax.get_xlim()[0]) == ("seconds of the run", 0)
    with pytest.raises(hpx.InputError, match="must be one of steps, seconds"):
        plot.draw_cost(mine, panel(), "hours")


@pytest.fixture(scope="module")
def scattered():
    """Forty trials whose loss is exp of a plane over log rate and momentum; corners of the domain are empty."""
    rng = np.random.default_rng(3)
    points = [{"rate": 10 ** rng.uniform(-4, 0), "momentum": rng.uniform(0, 0.9)} for _ in range(40)]
    losses = [[np.exp(2 + np.log10(p["rate"]) - p["momentum"])] for p in points]
    return table_of(losses, points, {"momentum": "linear"})


def test_a_contour_is_linear_between_trials_and_nothing_beyond(scattered):
    found = plot_data.contour(scattered, plot_data.map_of(scattered, "rate", "momentum", "valid/loss"), True)
    rng = np.random.default_rng(4)
    x, y = rng.uniform(-4, 0, 500), rng.uniform(0, 0.9, 500)
    value = LinearTriInterpolator(Triangulation(found.x, found.y, found.triangles), found.z)(x, y).filled(NAN)
    inside = np.isfinite(value)
    assert 50 < inside.sum() < 490, "places of both kinds"
    np.testing.assert_allclose(value[inside], (2 + x - y)[inside], atol=1e-9)
    plain = plot_data.contour(scattered, plot_data.map_of(scattered, "rate", "momentum", "valid/loss"))
    value = LinearTriInterpolator(Triangulation(plain.x, plain.y, plain.triangles), plain.z)(x, y).filled(NAN)
    places = [(np.log10(p["rate"]), p["momentum"]) for p in scattered.hparams]
    other = griddata(places, scattered.last("valid/loss")[:, 0], (x, y), rescale=True)
    np.testing.assert_allclose(value, other, atol=1e-9)


def test_the_shades_of_a_contour_stay_within_the_trials(scattered):
    ax = plot.draw_contour(scattered, "rate", "momentum", "valid/loss", panel())
    (shades,) = [each for each in ax.collections if hasattr(each, "levels")]
    drawn = np.concatenate([path.vertices for path in shades.get_paths()])
    places = [(np.log10(p["rate"]), p["momentum"]) for p in scattered.hparams]
    hull = griddata(places, np.ones(40), drawn * (1 - 1e-9) + 1e-9 * np.mean(places, axis=0))
    assert np.isfinite(hull).all()
    # On the screen, too: the corners of shades are where the axes have trials.
    at = ax.transData.transform([(p["rate"], p["momentum"]) for p in scattered.hparams])
    corners = shades.get_transform().transform(drawn)
    assert (corners.min(axis=0), corners.max(axis=0)) == (
        pytest.approx(at.min(axis=0), abs=1e-6),
        pytest.approx(at.max(axis=0), abs=1e-6),
    )
    dots = ax.collections[0].get_offsets()
    np.testing.assert_allclose(dots, [(p["rate"], p["momentum"]) for p in scattered.hparams])


def test_trials_on_a_line_have_dots_and_no_contour():
    points = [{"rate": 10.0**-t, "momentum": 0.1 * t} for t in range(5)]
    mine = table_of(np.arange(1.0, 6)[:, None], points, {"momentum": "linear"})
    assert plot_data.contour(mine, plot_data.map_of(mine, "rate", "momentum", "valid/loss")) is None
    ax = plot.draw_contour(mine, "rate", "momentum", "valid/loss", panel())
    assert not any(hasattr(each, "levels") for each in ax.collections)
    assert len(ax.collections[0].get_offsets()) == 5


def test_parallel_axes_have_the_scales_of_their_domains():
    points = [
        {"rate": 1e-4, "decay": 0.9, "kind": "sgd"},
        {"rate": 1e-2, "decay": 0.99, "kind": "adam"},
        {"rate": 1.0, "decay": 0.999, "kind": "lion"},
        {"rate": 1e-3, "kind": "lion"},
    ]
    mine = table_of([[4.0], [1.0], [3.0], [2.0]], points, {"decay": "reverse log", "kind": "category"})
    found = plot_data.parallel(mine, mine.varied)
    assert found.names == ("rate", "decay", "kind")
    np.testing.assert_allclose(found.places[:, 0], [0, 0.5, 1, 0.25])
    np.testing.assert_allclose(found.places[:, 1], [0, 0.5, 1, NAN], atol=1e-12)
    np.testing.assert_allclose(found.places[:, 2], [0, 0.5, 1, 1])
    assert found.ticks[0] == ((0.0, "0.0001"), (1.0, "1"))
    assert found.ticks[2] == ((0.0, "sgd"), (0.5, "adam"), (1.0, "lion"))
    ax = plot.draw_parallel(mine, "valid/loss", panel())
    lines = [line.get_ydata() for line in ax.get_lines() if len(line.get_ydata()) == 3]
    np.testing.assert_allclose(lines, found.places[[0, 2, 3, 1]], err_msg="the best in front")
    assert plot.draw_parallel(mine, "valid/loss", panel(), ["kind"]).get_xticklabels()[0].get_text() == "kind"
    with pytest.raises(hpx.InputError, match="'kid'"):
        plot.draw_parallel(mine, "valid/loss", panel(), ["kid"])


@pytest.fixture(scope="module")
def population():
    """Three trials: 1 takes over from 0 at step 10, 2 from 1 at 20; 2 ends best, 0 worst."""
    first = [{"rate": 0.1}, {"rate": 0.01}, {"rate": 0.001}]
    lineage = [CloneRecord(1, 10, 0, {"rate": 0.2}), CloneRecord(2, 20, 1, {"rate": 0.3})]
    curves = [[5, 5, 5, 5], [6, 5, 4, 4], [9, 9, 4, 3]]
    last = [{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}]
    return table_of(curves, last, first_hparams=first, lineage=lineage)


def test_schedules_of_a_population(population):
    trials, best, categories = plot_data.schedules(population, "rate")
    assert categories == ()
    assert [(s.tolist(), v.tolist()) for s, v in trials] == [
        ([0, 40], [0.1, 0.1]),
        ([0, 10, 40], [0.01, 0.2, 0.2]),
        ([0, 20, 40], [0.001, 0.3, 0.3]),
    ]
    # The weights of trial 2 were trained by 0 up to step 10, by 1 up to 20.
    assert (best.steps.tolist(), best.values.tolist()) == ([0, 10, 20, 40], [0.1, 0.2, 0.3, 0.3])
    ax = plot.draw_schedules(population, "rate", panel())
    assert ax.get_lines()[-1].get_xydata().tolist() == [[0, 0.1], [10, 0.2], [20, 0.3], [40, 0.3]]
    assert ax.get_yscale() == "log"


def test_arrows_of_a_lineage_lead_from_the_source_to_its_clone(population):
    ax = plot.draw_lineage(population, panel())
    every, mine = (each for each in ax.collections if hasattr(each, "U"))
    # Trials 2, 1, 0 are on rows 1, 2, 3.
    for arrows in (every, mine):
        assert [(x, y, y + v) for (x, y), v in zip(arrows.XY, arrows.V, strict=True)] == [(10, 3, 2), (20, 2, 1)]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["a trial trains", "cloned into", "ancestry of the best"]


def test_bars_are_the_importances(scattered):
    ax = plot.draw_importance(scattered, panel(), resamples=3)
    found = importance(scattered, None, "ped-anova", 3, 0)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([each.value for each in found])
    assert [label.get_text() for label in ax.get_yticklabels()] == [each.name for each in found]
    (whiskers,) = ax.collections
    ends = [(segment[0, 0], segment[1, 0]) for segment in whiskers.get_segments()]
    np.testing.assert_allclose(ends, [(each.low, each.high) for each in found])


# Scales.


def test_good_trials_are_not_squeezed():
    """Half of the losses lie within a hundredth of the axis, were it linear."""
    losses = np.append(np.geomspace(0.001, 0.01, 10), np.linspace(0.5, 1, 10))
    for scale, changes in {
        "log": {},
        "linear": {"objective": Objective("valid/loss", "maximize")},
    }.items():
        mine = table_of(losses[:, None] * [2, 1], **changes)
        assert plot.draw_axis(mine, "rate", "valid/loss", panel()).get_yscale() == scale
        assert plot.draw_curves(mine, "valid/loss", panel()).get_yscale() == scale
    for shift in (-0.001, 1.0):  # zero has no place on a logarithmic axis, and 1 … 2 is read better on a linear one
        mine = table_of(losses[:, None] + shift)
        assert plot.draw_axis(mine, "rate", "valid/loss", panel()).get_yscale() == "linear"


def test_the_best_curve_is_within_the_axes():
    """It falls over four decades, beginning above all that the others end with."""
    steps = np.arange(1, 9)
    curves = [100 * 0.3**steps, *(0.5 + 0.1 * t + 0 * steps for t in range(6)), 1e6 * np.ones(8)]
    for draw in (plot.draw_curves, plot.draw_quantiles):
        ax = draw(table_of(curves), "valid/loss", panel())
        low, high = ax.get_ylim()
        (best,) = [line.get_ydata() for line in ax.get_lines() if line.get_label() == "trial 0, best at the end"]
        np.testing.assert_allclose(best, curves[0])
        assert low < best.min() <= best.max() < high < 1e6
        assert ax.get_yscale() == "log"


@pytest.mark.parametrize(
    ("low", "high", "room", "ticks"),
    [
        (7e-4, 2.0, 5, [0.001, 0.01, 0.1, 1]),
        (7e-4, 2.0, 2, [0.001, 0.1]),
        (0.05, 3.5, 4, [0.1, 0.3, 1, 3]),
        (0.05, 3.5, 3, [0.1, 1]),
        (0.12, 0.45, 5, [0.2, 0.3, 0.4]),
        (2e-5, 7e-5, 3, [2e-5, 4e-5]),
        (0.9, 1.1, 5, [0.9, 1.0, 1.1]),
        (5.0, 60.0, 5, [5, 10, 20, 50]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low, high, room, ticks):
    from hpjax.results.ticks import ticks_between

    assert ticks_between(low, high, room) == pytest.approx(ticks)


def test_numbers_on_a_logarithmic_axis():
    from hpjax.results.ticks import labels_of

    assert labels_of([0.001, 0.1, 10]) == ["0.001", "0.1", "10"]
    assert labels_of([1e-5, 2e-5]) == ["$10^{-5}$", r"$2{\times}10^{-5}$"]


# Where things lie.

RANGES = [(0.12, 0.45), (0.27, 0.94), (1e-3, 3.0), (1e-6, 0.1), (2e-5, 7e-5), (0.9, 1.1), (1e-12, 1e3), (5.0, 60.0)]


def of_ranges(ranges, trials=16):
    """A table with a hyperparameter on each range, and losses over two decades; one trial diverged, one was stopped."""
    rng = np.random.default_rng(0)
    points = [
        {f"of_{i}": low * (high / low) ** share for i, (low, high) in enumerate(ranges) for share in [rng.random()]}
        for _ in range(trials)
    ]
    curves = np.geomspace(0.02, 5, trials)[:, None] * np.array([[3, 2, 1]])
    state = statuses(*["complete"] * (trials - 2), "stopped", "diverged")
    ended = np.array([30] * (trials - 2) + [10, 20])[:, None]
    curves[-2, 1:] = curves[-1, 1:] = NAN
    return table_of(curves, points, lane_status=state, lane_step=ended)


def boxes(artists, renderer):
    shown = [each for each in artists if each.get_visible() and (not hasattr(each, "get_text") or each.get_text())]
    return [each.get_window_extent(renderer) for each in shown]


def drawn(figure):
    """Lays a figure out; returns the renderer that knows where things lie."""
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    return canvas.get_renderer()


def tick_labels(axis):
    low, high = sorted(axis.get_view_interval())
    return [
        tick.label1
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        if low * (1 - 1e-9) <= tick.get_loc() <= high * (1 + 1e-9)
    ]


@pytest.fixture(scope="module", params=["single", "double"])
def figures(request):
    """All figures of a race over many ranges, and of a population."""
    first = [{"rate": 10.0**-t, "scale": 0.1 + t / 20} for t in range(8)]
    lineage = [CloneRecord(7 - t, 10, t, {"rate": 0.3, "scale": 0.5}) for t in range(3)]
    curves = np.geomspace(0.1, 9, 8)[:, None] * np.array([[4, 1, 2]])
    family = table_of(curves, first, {"scale": "linear"}, first_hparams=first, lineage=lineage)
    races = {f"{name} of a race": figure for name, figure in plot.pictures(of_ranges(RANGES), request.param).items()}
    every = races | plot.pictures(family, request.param)
    of_race = {f"{name} of a race" for name in ("overview", "quantiles", "map", "contour", "rungs")}
    assert of_race | {"lineage", "schedules", "importance", "cost", "parallel"} <= every.keys()
    inches = {"single": 3.3, "double": 6.8}[request.param]
    return inches, {name: (figure, drawn(figure)) for name, figure in every.items()}


def test_labels_do_not_overlap(figures):
    for name, (figure, renderer) in figures[1].items():
        for ax in figure.axes:
            for axis in (ax.xaxis, ax.yaxis):
                labels = tick_labels(axis)
                if any(label.get_rotation() % 90 for label in labels):
                    continue  # boxes around turned labels overlap where letters do not
                for one, other in itertools.combinations(boxes(labels, renderer), 2):
                    assert not one.overlaps(other), (name, ax.get_xlabel(), [label.get_text() for label in labels])


def test_axes_have_two_numbers_or_more(figures):
    for name, (figure, _) in figures[1].items():
        for ax in figure.axes:
            for axis in (ax.xaxis, ax.yaxis):
                if axis.get_scale() == "log":
                    labels = [label for label in tick_labels(axis) if label.get_text()]
                    assert len(labels) >= 2, (name, axis.get_label_text())


def test_legends_are_beside_the_axes(figures):
    seen = 0
    for name, (figure, renderer) in figures[1].items():
        for legend in figure.findobj(Legend):
            (box,) = boxes([legend], renderer)
            assert box.x0 >= -1, name
            assert box.x1 <= figure.bbox.x1 + 1, name
            for ax in figure.axes:
                inside = ax.get_window_extent(renderer)
                assert min(box.x1, inside.x1) <= max(box.x0, inside.x0) or box.y0 >= inside.y1 - 1, name
            seen += 1
    assert seen > 10


def test_nothing_is_cut_at_the_edge_of_a_figure(figures):
    for name, (figure, renderer) in figures[1].items():
        for ax in figure.axes:
            for box in boxes([ax.xaxis.label, ax.yaxis.label], renderer):
                assert box.x0 >= -1, (name, ax.get_ylabel())
                assert box.y0 >= -1, (name, ax.get_xlabel())
                assert box.y1 <= figure.bbox.y1 + 1, (name, ax.get_ylabel())


def test_figures_are_as_wide_as_a_column_and_text_is_readable(figures):
    inches, every = figures
    for name, (figure, _) in every.items():
        assert figure.get_size_inches()[0] == pytest.approx(inches)
        sizes = {text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()}
        assert 6 <= min(sizes) <= max(sizes) <= 9, (name, sizes)


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize("count", range(1, 9))
def test_no_panel_is_empty(count, width):
    figure = plot.overview(of_ranges([(0.1, 1.0)] * count, trials=4), width=width)
    covered = np.zeros((20, 3), int)
    for panel in figure.axes:
        assert panel.has_data()
        spec = panel.get_subplotspec()
        covered[spec.rowspan.start : spec.rowspan.stop, spec.colspan.start : spec.colspan.stop] += 1
    rows, columns = spec.get_gridspec().get_geometry()
    assert (covered[:rows, :columns] == 1).all()
    assert len(figure.axes) == count + 1


def test_other_widths_are_refused():
    with pytest.raises(hpx.InputError, match=r"plot\.width = 'half'.*single, double"):
        plot.overview(table_of([[1.0]]), width="half")


# Files.


def test_fonts_are_embedded_as_truetype_and_letters_of_svg_are_paths():
    figure = plot.overview(of_ranges([(1e-3, 1.0)], trials=4), width="single")
    pdf = content_of(figure, "pdf")
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    svg = content_of(figure, "svg")
    assert b"<text" not in svg
    assert b"DejaVuSans-" in svg, "the outlines of letters"


@pytest.mark.parametrize(
    ("curves", "state"),
    [
        ([[1.0]], ["complete"]),
        ([[NAN], [NAN]], ["diverged", "diverged"]),
        ([[NAN, NAN], [2.0, NAN]], ["diverged", "running"]),
        ([[0.0, 0.0], [0.0, 0.0]], ["complete", "complete"]),
    ],
    ids=["one trial", "all diverged", "none complete", "all equal"],
)
def test_whatever_a_sweep_ended_with_is_drawn(curves, state):
    mine = table_of(curves, lane_status=statuses(*state))
    for figure in plot.pictures(mine, "single").values():
        drawn(figure)
    for draw in (plot.draw_curves, plot.draw_quantiles, plot.draw_parallel):
        ax = panel()
        assert draw(mine, "valid/loss", ax) is ax
    assert plot.draw_cost(mine, panel()).get_ylabel() == "best valid/loss so far"


def test_letters_that_a_font_lacks_are_told_of_once():
    mine = table_of([[1.0], [2.0]], [{"学習率": 0.1}, {"学習率": 0.2}])
    with pytest.warns(UserWarning, match="the font has no letters") as caught:
        content_of(plot.overview(mine), "png")
    assert [str(each.message).split(",")[0] for each in caught] == ["the font has no letters '学習率'"]


def test_an_isolation_plot_shows_the_best_of_each_value():
    """Of two optimizers with three trials of one and two of the other, in values worked out by hand."""
    optimizers = ["sgd", "sgd", "sgd", "adam", "adam"]
    table = table_of(
        [[1.0], [2.0], [6.0], [3.0], [4.0]],
        [{"optimizer": each, "rate": rate} for each, rate in zip(optimizers, (0.1, 0.2, 0.3, 0.1, 0.2), strict=True)],
        {"optimizer": "category", "rate": "log"},
    )
    ax = hpx.plot.draw_isolation(table, "optimizer", panel())
    best, expected = (dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in ax.lines)
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert {names[int(x)]: y for x, y in best.items()} == {"sgd": 1.0, "adam": 3.0}
    # Of two of the three: the lower of 1 and 2, of 1 and 6, of 2 and 6.
    assert {names[int(x)]: y for x, y in expected.items()} == {"sgd": pytest.approx((1 + 1 + 2) / 3), "adam": 3.0}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "trials",
        "best of each",
        "expected best of equally many",
    ]
    held = hpx.plot.draw_isolation(table, "rate", panel(), fixed={"optimizer": "adam"})
    assert len(held.collections[0].get_offsets()) == 2
    assert held.get_xscale() == "log"
