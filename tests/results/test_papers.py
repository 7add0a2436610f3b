"""What a result gives for a paper: a table of LaTeX, and the appendix on how it was found."""

import re

import matplotlib.mathtext
import numpy as np
import pytest

import hpjax as hpx
from hpjax.results.latex import escaped, power, with_deviation
from tests.support.programs import quadratic, rates


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    points = [{"rate": 0.1, "act_fn": "re_lu"}, {"rate": 1e-5, "act_fn": "50%"}, {"rate": 9e5, "act_fn": "50%"}]
    space = hpx.Space(rate=hpx.LogUniform(1e-6, 1e6), act_fn=hpx.Choice("re_lu", "50%"))
    sweep = hpx.Sweep(quadratic(20, 5), space, sampler=hpx.Manual(points), replicates=3, devices=1)
    return sweep.run(tmp_path_factory.mktemp("paper") / "run", progress=False)


def test_the_table_is_what_a_paper_takes(result):
    # The loss after 20 steps is (1 − 2 · rate)⁴⁰, the same for all replicates.
    assert result.latex() == (
        "\\begin{tabular}{rlr}\n"
        "\\toprule\n"
        "rate & act\\_fn & valid/loss \\\\\n"
        "\\midrule\n"
        "$0.1$ & re\\_lu & $\\mathbf{1.329 \\times 10^{-4}}$ \\\\\n"
        "$1 \\times 10^{-5}$ & 50\\% & $0.9992$ \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )
    np.testing.assert_allclose((1 - 2 * 0.1) ** 40, 1.329e-4, rtol=1e-3)
    chosen = result.latex(["trial", "status", "step", "train/loss"], top=1, best=None)
    assert "0 & complete & 20 & $" in chosen
    assert "mathbf" not in chosen
    parser = matplotlib.mathtext.MathTextParser("agg")
    for cell in re.findall(r"\$.*?\$", result.latex() + chosen):
        parser.parse(cell)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.1234, 0.1256], r"0.1245 \pm 0.0016"),
        ([0.5], "0.5000"),
        ([0.0, 0.0], "0"),
        ([97.0, 98.0, 99.0], r"98.0 \pm 1.0"),
        ([-1.5, 1.5], r"0.0 \pm 2.1"),
        ([0.000123456], r"1.235 \times 10^{-4}"),
        ([1e-6, 3e-6], r"(2.0 \pm 1.4) \times 10^{-6}"),
        ([123456.0, 123458.0], r"(1.234570 \pm 0.000014) \times 10^{5}"),
        ([float("nan"), 1.0], r"\mathrm{nan}"),
    ],
)
def test_means_are_rounded_to_their_deviation(values, text):
    assert with_deviation(values) == text
    if r"\pm" in text:
        mean, spread, factor = re.fullmatch(
            r"\(?(-?[\d.]+) \\pm ([\d.]+)\)?(?: \\times 10\^\{(-?\d+)\})?", text
        ).groups()
        scale = 10.0 ** int(factor or 0)
        deviation = np.std(values, ddof=1)
        assert float(spread) * scale == pytest.approx(deviation, rel=0.05)
        assert float(mean) * scale == pytest.approx(np.mean(values), abs=0.051 * deviation)


def test_no_character_is_left_that_latex_reads_otherwise():
    assert escaped(r"a_b {c} 5% & #1 $x$ ~^\ ") == (
        r"a\_b \{c\} 5\% \& \#1 \$x\$ \textasciitilde{}\textasciicircum{}\textbackslash{} "
    )
    assert power("1e-5") == r"1 \times 10^{-5}"
    assert power("elu") == "elu"


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"columns": ["learning_rat"]}, r"latex\.columns = 'learning_rat'"),
        ({"columns": []}, r"latex\.columns"),
        ({"best": "italic"}, r"latex\.best = 'italic'"),
        ({"top": 0}, r"latex\.top = 0"),
    ],
)
def test_columns_that_are_not_there_are_named(result, asked, named):
    with pytest.raises(hpx.InputError, match=named):
        result.latex(**asked)


def test_the_appendix_has_what_conferences_ask_for(result):
    text = result.reproducibility()
    manifest = result.manifest
    for found in (
        "| rate | LogUniform(1e-6, 1000000) | log |",
        "3 trials in 1 round: 2 complete, 1 diverged",
        "replicates of each trial: 3",
        "Seed of the sweep: 0",
        "20 optimizer steps a trial",
        f"jax {manifest.versions['jax']}",
        f"1 × {manifest.devices.kind}",
        manifest.sweep.code,
        "device-hours",
    ):
        assert found in text, found
    assert f"{int(result.lane_step.sum()):,} of all lanes together" in text
    loaded = hpx.load(result._store.directory)
    assert loaded.reproducibility() == text


def test_a_run_in_memory_or_without_an_end_has_an_appendix_too(tmp_path):
    sweep = hpx.Sweep(quadratic(20, 5), hpx.Space(rate=hpx.Uniform(0, 0.4)), sampler=rates(0.1), devices=1)
    assert "device-hours" in sweep.run(progress=False).reproducibility()
    events = sweep.events(tmp_path)
    next(event for event in events if event.kind == "segment")
    text = hpx.load(tmp_path).reproducibility()
    events.close()
    assert "Time: not finished." in text
    assert "1 running" in text
