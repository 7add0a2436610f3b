"""Transfer studies on a loss whose best rate is known for each model, and every resample of a bootstrap."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from click.testing import CliRunner
from flax import linen as nn
from matplotlib.figure import Figure

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key
from hpjax.frontends.cli import main
from hpjax.studies import Transfer, TransferResult
from hpjax.studies.plot import draw_transfer

SPACE = hpx.Space(learning_rate=hpx.LogUniform(2.0**-8, 2.0**2, num=6))
WIDTHS, REPLICATES, NOISE = (8, 16, 32), 3, 0.3


def parabolas(drift=-1.0, with_mup=True, with_depth=False, lost_above=np.inf):
    """The loss is (log₂ rate − best − a number of the seed)², where the best is −3 at width 8 and moves with the width.

    With μP it does not move. Deeper models have it half an octave lower for each doubling.
    """

    def init(key, h):
        arrays = [jnp.zeros(h.width) for _ in range(h.depth if with_depth else 1)]
        return {"arrays": arrays, "seed": NOISE * jax.random.normal(key, (), float)}

    def step(key, state, batch, h):
        return state, {"loss": jnp.where(h.learning_rate > lost_above, jnp.nan, 1.0)}

    def evaluate(key, state, split, h):
        moved = drift * np.log2(h.width / 8) * ((1 - h.mup) if with_mup else 1)
        best = -3 + moved - (0.5 * np.log2(h.depth) if with_depth else 0)
        return {"loss": (jnp.log2(h.learning_rate) - best - state["seed"]) ** 2}

    return hpx.Program(init, step, evaluate, steps=1)


def seeds():
    """The numbers of the seeds, which all trials have."""
    keys = [purpose_key(lane_key(0, replicate), "init") for replicate in range(REPLICATES)]
    return np.array([NOISE * float(jax.random.normal(key, (), float)) for key in keys])


def study(program=None, widths=WIDTHS, space=SPACE, **changes):
    return Transfer(program or parabolas(), space, widths, replicates=REPLICATES, **changes)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("transfer") / "run"
    study().run(directory, progress=False)
    return directory


@pytest.fixture(scope="module")
def answer(directory):
    return TransferResult.load(directory)


def test_all_rates_and_seeds_of_a_width_are_one_program_with_mup_and_without():
    plan = study().plan()
    assert len(plan.groups) == len(WIDTHS)
    assert plan.trials == 6 * 3 * 2
    assert plan.replicates == REPLICATES


def test_best_rates_are_the_vertices_and_intervals_those_of_all_resamples(answer):
    """The vertex of the mean over seeds is the best rate times 2 to their mean number."""
    means = [np.mean(drawn) for drawn in itertools.product(seeds(), repeat=REPLICATES)]
    ends = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    wanted = [("μP", w, -3) for w in WIDTHS] + [("standard", w, -3 - np.log2(w / 8)) for w in WIDTHS]
    assert [(p.parametrization, p.width) for p in answer.points] == [each[:2] for each in wanted]
    for point, (_, _, best) in zip(answer.points, wanted, strict=True):
        assert np.log2(point.rate.value) == pytest.approx(best + seeds().mean(), abs=1e-4)
        found = np.log2([point.rate.low, point.rate.high])
        np.testing.assert_allclose(found, best + ends, atol=1e-4, err_msg="of 27 resamples, 1 in 27 is each end")
        assert (point.edge, point.depth) == (None, None)


def test_drifts_are_in_octaves_a_doubling(answer):
    """The same seeds are drawn of all widths, so that what they move together is no drift."""
    flat, standard = answer.drifts
    assert (flat.parametrization, flat.over, flat.at) == ("μP", "width", None)
    assert tuple(flat.octaves) == pytest.approx((0, 0, 0), abs=1e-4)
    assert tuple(standard.octaves) == pytest.approx((-1, -1, -1), abs=1e-4)


def test_losses_and_curves_are_those_of_the_seeds(answer):
    point = answer.points[0]
    np.testing.assert_allclose(answer.rates, np.geomspace(2.0**-8, 2.0**2, 6), rtol=1e-3)
    curve = (np.log2(answer.rates)[:, None] + 3 - seeds()) ** 2
    np.testing.assert_allclose(point.curve, curve, rtol=1e-4, atol=1e-5)
    assert point.loss == pytest.approx(curve.mean(axis=1).min(), rel=1e-4)


def test_depths_drift_at_each_width():
    found = study(parabolas(with_mup=False, with_depth=True), widths=(8, 16), depths=(1, 2, 4)).run(progress=False)
    assert [(d.parametrization, d.over, d.at, round(d.octaves.value, 3)) for d in found.drifts] == [
        ("", "width", 1, -1),
        ("", "width", 2, -1),
        ("", "width", 4, -1),
        ("", "depth", 8, -0.5),
        ("", "depth", 16, -0.5),
    ]
    assert len(found.plot().axes) == 3


def test_depths_of_one_width_are_lines_of_one_panel():
    found = study(parabolas(with_mup=False, with_depth=True), widths=(8,), depths=(1, 2, 4)).run(progress=False)
    (panel,) = found.plot().axes
    lines = [line for line in panel.lines if str(line.get_label()).startswith("depth")]
    assert [line.get_label() for line in lines] == ["depth 1", "depth 2", "depth 4"]
    np.testing.assert_allclose(lines[1].get_ydata(), found.points[1].curve.mean(axis=1))


def test_rates_that_diverge_are_never_best_and_ends_are_told():
    found = study(parabolas(drift=3.0, lost_above=2.0**-1), widths=(8, 16, 32)).run(progress=False)
    standard = found.points[3:]
    # The best of width 32 is at 2³; of those that did not diverge, 2⁻² is the highest. Beside it is no parabola.
    assert standard[2].rate.value == pytest.approx(2.0**-2)
    assert np.isinf(standard[2].curve[-1]).all()
    assert standard[2].edge is None
    at_edge = study(parabolas(drift=3.0)).run(progress=False)
    assert (at_edge.points[5].edge, at_edge.points[5].rate.value) == ("highest", 4)
    assert any("standard width 32: the best rate is the highest that was tried" in each for each in at_edge.doubts)
    lost = study(parabolas(lost_above=0)).run(progress=False)
    assert np.isnan(lost.points[0].rate.value)
    assert any("each rate diverged" in each for each in lost.doubts)
    assert "nan" in str(lost)


def test_accuracies_are_maximized(answer):
    def evaluate(key, state, split, h):
        return {"score": -parabolas().evaluate(key, state, split, h)["loss"]}

    own = dataclasses.replace(parabolas(), evaluate=evaluate)
    found = study(own, objective=hpx.maximize("valid/score")).run(progress=False)
    for mine, wanted in zip(found.points, answer.points, strict=True):
        assert tuple(mine.rate) == pytest.approx(tuple(wanted.rate), rel=1e-5)
        assert mine.loss == pytest.approx(-wanted.loss, rel=1e-5)


def test_the_command_line_reads_it(directory, tmp_path):
    shown = CliRunner().invoke(main, ["show", str(directory)])
    assert "standard: -1.00 octaves (-1.00 to -1.00) a doubling of the width" in shown.output, shown.output
    drawn = CliRunner().invoke(main, ["plot", str(directory), "--out", str(tmp_path)])
    assert (tmp_path / "transfer.png").exists(), drawn.output


def test_the_picture_has_a_line_a_width_and_the_best_rates(answer):
    ax = draw_transfer(answer, Figure().subplots(), "standard")
    lines = [line for line in ax.lines if str(line.get_label()).startswith("width")]
    assert [line.get_label() for line in lines] == ["width 8", "width 16", "width 32"]
    np.testing.assert_allclose(lines[0].get_ydata(), answer.points[3].curve.mean(axis=1))
    assert [panel.get_title() for panel in answer.plot().axes] == ["μP", "standard"]
    assert list(answer.table()["rate"]) == [point.rate.value for point in answer.points]


def supervised(model, **changes):
    return hpx.supervised(
        model=model,
        optimizer=lambda h: optax.sgd(h.learning_rate),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=hpx.data.digits(),
        batch_size=64,
        steps=2,
        **changes,
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: study(widths=(8,)), r"Transfer.widths = \[8\]: must be two or more, or one with several depths"),
        (lambda: study(widths="8"), "Transfer.widths = '8': must be a list of whole numbers"),
        (lambda: study(widths=(0, 8)), "Transfer.widths = 0"),
        (
            lambda: dataclasses.replace(study(), replicates=2),
            "Transfer.replicates = 2: must be a whole number, 3 or more",
        ),
        (lambda: study(space=hpx.Space(rate=0.1)), "Transfer.space = 'rate': must have learning_rate"),
        (
            lambda: study(space=hpx.Space(learning_rate=hpx.Choice(0.1, 0.2))),
            "must have three or more values of learning_rate",
        ),
        (lambda: study(space=hpx.Space(learning_rate=hpx.LogUniform(0.1, 1))), "is continuous and has no num"),
        (lambda: study(space=SPACE & hpx.Space(width=8)), "Transfer.space = 'width': is what the study varies"),
        (
            lambda: study(supervised(nn.Dense(10))).plan(),
            "Transfer.program = 'width': must change the shape of an array",
        ),
        (
            lambda: study(supervised(lambda h: nn.Dense(10 + 0 * h.width)), widths=(8,), depths=(1, 2)).plan(),
            "Transfer.program = '(width|depth)': must change the shape of an array",
        ),
    ],
)
def test_what_cannot_be_asked_is_told(make, told):
    with pytest.raises(hpx.InputError, match=told):
        make()


def test_what_cannot_be_read_is_told(tmp_path):
    space = SPACE & hpx.Space(width=hpx.Choice(8, 16))
    hpx.Sweep(parabolas(with_mup=False), space, sampler=hpx.Grid()).run(tmp_path / "run", progress=False)
    with pytest.raises(hpx.InputError, match="'1 replicate': must have two or more"):
        TransferResult.read(hpx.load(tmp_path / "run"))
    with pytest.raises(hpx.RunError, match="was not run as a transfer study"):
        TransferResult.load(tmp_path / "run")
