"""Reports in a real browser: what they show is what the result has, whatever a run is like."""

import json
import re
import shutil
import threading
import time
import urllib.error
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

import hpjax as hpx
from hpjax.frontends import cli
from hpjax.results.doubts import doubts
from hpjax.results.report import content as contents
from hpjax.results.report.server import ReportServer
from tests.support import browser
from tests.support.programs import quadratic

EVIL = "<img src=x onerror=alert(1)>"


def quick(**changes):
    asked = {"trials": 12, "devices": 1} | changes
    space = asked.pop("space", hpx.Space(rate=hpx.LogUniform(0.01, 0.4), kind=hpx.Choice(EVIL, "plain")))
    return hpx.Sweep(asked.pop("program", quadratic(20, 2)), space, **asked)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run in a directory whose name is HTML, and its page."""
    directory = tmp_path_factory.mktemp("report") / "<b>run & co"
    result = quick().run(directory, progress=False)
    done = CliRunner().invoke(cli.main, ["report", str(directory)])
    assert done.exit_code == 0, done.output
    return directory, result


@pytest.fixture
def shown(chrome, ran):
    found = browser.opened(chrome, (ran[0] / "report.html").as_uri())
    yield found
    assert found.errors == []
    assert [address for address in found.requests if not address.startswith(("file:", "blob:", "data:"))] == []
    found.page.context.close()


DRAWN = "document.getElementById('chart-curves').data"


def rows(shown):
    return [line.split("\t") for line in shown.texts("#trials tbody tr")]


def test_the_table_is_that_of_the_result_sorts_and_filters(shown, ran):
    _, result = ran
    assert [int(row[0]) for row in rows(shown)] == result.ranking
    header = shown.texts("#trials th")
    assert header == ["trial", "valid/loss", "train/loss", "rate", "kind", "status", "step"]
    for row, trial in zip(rows(shown), result.ranking, strict=True):
        assert float(row[1]) == pytest.approx(result[trial].metrics["valid/loss"], rel=1e-3)
        assert row[4] == result.hparams[trial]["kind"], "as text"
    rate = shown.page.get_by_role("button", name="rate")
    rate.click()
    found = [float(row[3]) for row in rows(shown)]
    assert found == sorted(found)
    assert shown.page.locator("#trials th").nth(3).get_attribute("aria-sort") == "ascending"
    rate.click()
    assert [float(row[3]) for row in rows(shown)] == found[::-1]
    shown.page.fill("#filter", "plain complete")
    assert {row[4] for row in rows(shown)} == {"plain"}
    assert len(rows(shown)) == [h["kind"] for h in result.hparams].count("plain")
    shown.page.fill("#filter", "nothing has this")
    assert rows(shown) == []


def test_no_name_becomes_html(shown, ran):
    shown.scroll_to_end()
    assert shown.texts("#title") == [ran[0].name]
    assert shown.page.locator("main img, header b").count() == 0
    assert shown.page.title() == ran[0].name


def traces(shown, chart):
    """The traces of a chart, as Plotly has them."""
    return json.loads(
        shown.page.evaluate(f"JSON.stringify(document.getElementById('chart-{chart}').data, (k, v) => v)")
    )


def lanes(trace):
    """How many lanes are in a trace of curves."""
    return sum(value is None for value in trace["x"])


def test_curves_are_those_of_the_result_and_a_brush_fades_the_rest(shown, ran):
    _, result = ran
    shown.page.wait_for_function(DRAWN)
    faded, others, best = traces(shown, "curves")
    assert (lanes(faded), lanes(others), lanes(best)) == (0, 11, 1)
    found = [value for value in best["y"] if value is not None]
    np.testing.assert_allclose(found, result.curves("valid/loss")[result.best.id, 0], rtol=1e-5)
    assert set(best["text"]) == {f"trial {result.best.id}", ""}
    shown.page.select_option("#brushed", "rate")
    shown.page.locator("#to").fill("500")
    faded, others, best = traces(shown, "curves")
    rates = np.log([hparams["rate"] for hparams in result.hparams])
    middle = (rates.min() + rates.max()) / 2
    kept = sum(rates[t] <= middle for t in range(12) if t != result.best.id)
    assert (lanes(faded), lanes(others)) == (11 - kept, kept)
    last = result.ranking[-1]
    shown.page.locator("#trials tbody tr").last.click()
    assert set(traces(shown, "curves")[2]["text"]) == {f"trial {last}", ""}, "who is clicked is in front"
    shown.page.keyboard.press("Shift+Tab")
    shown.page.keyboard.press("Enter")
    assert set(traces(shown, "curves")[2]["text"]) == {f"trial {result.ranking[-2]}", ""}, "by keyboard, too"
    assert shown.page.locator("#trials [aria-selected=true]").count() == 1


def test_charts_are_drawn_when_they_are_looked_at(shown, ran):
    _, result = ran
    assert shown.page.evaluate("document.getElementById('chart-parallel').data === undefined")
    shown.scroll_to_end()
    rates, best, expected, kinds, best_kinds, _ = traces(shown, "slices")
    order = result.ranking
    np.testing.assert_allclose(rates["x"], [result.hparams[t]["rate"] for t in order], rtol=1e-5)
    found = hpx.analysis.isolate(result, "rate")
    np.testing.assert_allclose(best["x"], [each.value for each in found], rtol=1e-5)
    np.testing.assert_allclose(best["y"], [each.reached for each in found], rtol=1e-5)
    np.testing.assert_allclose(expected["y"], [each.expected for each in found], rtol=1e-5)
    for option, reached in enumerate(best_kinds["y"]):
        own = [y for x, y in zip(kinds["x"], kinds["y"], strict=True) if round(x) == option]
        assert reached == pytest.approx(min(own), rel=1e-5)
    parallel = traces(shown, "parallel")[0]["dimensions"]
    assert [d["label"] for d in parallel] == ["rate", "kind", "final valid/loss"]
    assert EVIL in shown.page.locator("#chart-parallel .axis text").all_text_contents(), "as text"
    shares = traces(shown, "importance")[0]
    wanted = {each.name: each.value for each in result.importance(resamples=0)}
    assert dict(zip(shares["y"], shares["x"], strict=True)) == pytest.approx(wanted)
    assert not shown.page.locator("#rungs").is_visible()


def test_a_telephone_shows_all_without_scrolling_sideways(chrome, ran):
    shown = browser.opened(chrome, (ran[0] / "report.html").as_uri(), 390, 844, dark=True)
    shown.scroll_to_end()
    assert shown.page.evaluate("document.documentElement.scrollWidth") == 390
    shown.page.set_viewport_size({"width": 1200, "height": 900})
    shown.scroll_to_end()  # charts are drawn anew once they are looked at
    shown.page.wait_for_function("document.querySelector('#chart-parallel .main-svg').clientWidth > 1000")
    for chart in ("curves", "slices", "parallel", "contour", "importance"):
        if shown.page.locator(f"#chart-{chart}").is_visible():
            box = shown.page.locator(f"#chart-{chart} .main-svg").first.bounding_box()
            assert box["x"] >= 0, chart
            assert 1000 < box["width"] <= 1200, chart
    assert shown.errors == []


def test_a_live_page_sees_what_comes(chrome, tmp_path):
    sweep = quick(space=hpx.Space(rate=hpx.LogUniform(0.01, 0.4)))  # one program
    events = sweep.events(tmp_path / "run", checkpoint_seconds=1e6)

    def segment():
        return next(event for event in events if event.kind == "segment")

    segment()
    with ReportServer(lambda: hpx.load(tmp_path / "run").report()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shown = browser.opened(chrome, server.address)
        count = "document.getElementById('chart-curves').data.flatMap((t) => t.y).filter((v) => v !== null).length"
        shown.page.wait_for_function(DRAWN)
        before = shown.page.evaluate(count)
        assert before == 12
        segment()
        shown.page.wait_for_function(f"{count} === 24", timeout=20_000)
        assert "live, at" in shown.texts("#state")[0]
        list(events)
        shown.page.wait_for_function("document.getElementById('state').textContent === 'finished'", timeout=20_000)
        assert {row[4] for row in rows(shown)} == {"complete"}
        assert shown.errors == []
        assert {address.split("/")[2] for address in shown.requests if address.startswith("http")} == {server.host}
        server.shutdown()


def test_a_server_gives_the_report_and_nothing_else(ran):
    with ReportServer(lambda: hpx.load(ran[0]).report()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://{server.host}"
        token = server.address.split("/")[3]
        assert len(token) >= 20

        def asked(path, **headers):
            with urllib.request.urlopen(urllib.request.Request(home + path, **headers), timeout=30) as answer:
                return answer.read().decode()

        assert json.loads(asked(f"/{token}/content.json"))["title"] == ran[0].name
        for path in ("/", f"/{token}", f"/{token}/../manifest.json", f"/{token}/manifest.json", "/x/content.json"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                asked(path)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            asked(f"/{token}/", headers={"Host": "example.com"})
        with pytest.raises(urllib.error.HTTPError, match="501"):
            asked(f"/{token}/", data=b"x")
        assert server.server_address[0] == "127.0.0.1"
        server.shutdown()
    with ReportServer(lambda: hpx.load(ran[0]).report()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shutil.move(ran[0] / "manifest.json", ran[0].parent / "kept.json")
        with urllib.request.urlopen(f"{server.address}content.json", timeout=30) as answer:
            assert "manifest" in json.loads(answer.read())["error"], "said, not silent"
        shutil.move(ran[0].parent / "kept.json", ran[0] / "manifest.json")
        server.shutdown()
    shutil.copytree(ran[0], ran[0].parent / "torn")
    (ran[0].parent / "torn" / "manifest.json").write_text("{")
    done = CliRunner().invoke(cli.main, ["report", str(ran[0].parent / "torn")])
    assert (done.exit_code, "error: " in done.stderr) == (2, True)


MANY = {f"setting_{i}": hpx.Uniform(0, 1) for i in range(40)}
ODD = {
    "one trial": quick(trials=1),
    "all diverged": quick(program=quadratic(40, 2), space=hpx.Space(rate=hpx.Uniform(8, 9)), trials=3),
    "constants": quick(space=hpx.Space(rate=0.1, other=2.0), trials=3),
    "evaluated once": quick(program=quadratic(4, 4)),
    "alternatives": quick(
        space=(hpx.Space(rate=hpx.Uniform(0.1, 0.2)) & hpx.Space(x=hpx.Uniform(0, 1))) | hpx.Space(rate=0.3)
    ),
    "40 hyperparameters": quick(space=hpx.Space(rate=hpx.Uniform(0.1, 0.4), **MANY), trials=30),
    "halving": quick(scheduler=hpx.Halving(factor=2, min_steps=4)),
    "a population": quick(scheduler=hpx.PBT(every=4), space=hpx.Space(rate=hpx.Uniform(0.01, 0.4))),
    "replicates": quick(replicates=3),
}


@pytest.mark.parametrize("name", ODD)
def test_runs_of_all_kinds_are_shown(name, chrome, tmp_path):
    result = ODD[name].run(tmp_path / "run", progress=False)
    result.report(tmp_path / "page.html")
    shown = browser.opened(chrome, (tmp_path / "page.html").as_uri())
    shown.scroll_to_end()
    assert shown.errors == []
    assert shown.page.locator("#rungs").is_visible() == (name == "halving")
    assert shown.page.locator("#lineage").is_visible() == (name == "a population")
    assert shown.page.locator("#parallel").is_visible() == (name not in ("all diverged", "constants", "one trial"))
    assert shown.page.locator("#chart-schedules").is_visible() == (name == "a population")
    if name == "evaluated once":
        points = [trace for trace in traces(shown, "curves") if trace["mode"] == "markers"]
        assert sum(map(lanes, points)) == 12, "one evaluation is no line"
    if name == "alternatives":
        drawn = {d["label"]: d for d in traces(shown, "parallel")[0]["dimensions"]}
        lacking = [i for i, trial in enumerate(result.ranking) if "x" not in result.hparams[trial]]
        assert {i for i, x in enumerate(drawn["x"]["values"]) if x == drawn["x"]["tickvals"][0]} == set(lacking)
        assert drawn["x"]["ticktext"][0] == "–"
    if name == "halving":
        stopped = [str(status) != "complete" for status in result.statuses[result.ranking]]
        colors = traces(shown, "slices")[0]["marker"]["color"]
        assert [color == "#9A9A9A" for color in colors] == stopped
    if name == "all diverged":
        assert shown.page.locator("#trials tr.best").count() == 0
        assert "No trial has a final value" in shown.texts("#doubts li")[0]
    if name == "a population":
        drawn = traces(shown, "schedules")
        schedules = {f"trial {trial}": result[trial].schedule for trial in result.ranking}
        assert {trace["text"] for trace in drawn} == schedules.keys()
        for trace in drawn:
            wanted = schedules[trace["text"]]
            assert trace["x"] == [*(step for step, _ in wanted), 20]
            assert trace["y"][:-1] == pytest.approx([hparams["rate"] for _, hparams in wanted], rel=1e-5)
        assert drawn[-1]["text"] == f"trial {result.best.id}", "in front"
    assert len(rows(shown)) == min(len(result), 12)
    shown.page.context.close()


def test_a_run_without_an_evaluation_is_shown(chrome, tmp_path):
    events = quick().events(tmp_path / "run")
    next(event for event in events if event.kind == "compile")
    hpx.load(tmp_path / "run").report(tmp_path / "page.html")
    events.close()
    shown = browser.opened(chrome, (tmp_path / "page.html").as_uri())
    shown.scroll_to_end()
    assert shown.errors == []
    assert "Not all trials have ended here" in shown.texts("#doubts li")[0]
    assert "not finished" in shown.texts("#state")[0]


def axis(shown, chart, which):
    """An axis of a chart, as Plotly drew it: its type, and the labels of its ticks."""
    drawn = shown.page.evaluate(f"document.getElementById('chart-{chart}')._fullLayout.{which}.type")
    return drawn, shown.page.locator(f"#chart-{chart} .{which[0]}tick text").all_text_contents()


def test_final_values_are_those_by_which_trials_rank(chrome, tmp_path):
    """The highest of the replicates, not their mean; an accuracy-like metric has a linear axis."""

    def init(key, h):
        return jax.random.normal(key)

    def step(key, w, batch, h):
        return w - h.rate * w, {"loss": w**2}

    def evaluate(key, w, split, h):
        return {"loss": w**2, "close": jnp.exp(-(w**2))}

    program = hpx.Program(init, step, evaluate, None, steps=8, eval_every=4)
    space = hpx.Space(rate=hpx.LogUniform(0.12, 0.45), size=hpx.Int(1_234_560, 1_234_599), clip=hpx.Choice(None, 1.0))
    asked = {"replicates": 4, "objective": hpx.minimize("valid/loss", quantile=1.0)}
    result = quick(program=program, space=space, **asked).run(progress=False)
    result.report(tmp_path / "page.html")
    shown = browser.opened(chrome, (tmp_path / "page.html").as_uri())
    worst = result.last("valid/loss").max(axis=1)
    for row, trial in zip(rows(shown), result.ranking, strict=True):
        line = dict(zip(shown.texts("#trials th"), row, strict=True))
        assert float(line["valid/loss"]) == pytest.approx(worst[trial], rel=1e-3)
        assert float(line["valid/close"]) == pytest.approx(result.last("valid/close")[trial].mean(), rel=1e-3)
        assert (int(line["size"]), line["clip"]) == (
            result.hparams[trial]["size"],
            {None: "None", 1.0: "1"}[result.hparams[trial]["clip"]],
        )
    shown.scroll_to_end()
    drawn = traces(shown, "slices")[::3]  # after each are two of the isolation
    np.testing.assert_allclose(drawn[0]["y"], worst[result.ranking], rtol=1e-5)
    assert len(drawn) == 3, "None is an option"
    kind, labels = axis(shown, "slices", "xaxis")
    assert (kind, len(labels) >= 2) == ("log", True)
    assert shown.errors == []


def test_accuracies_have_a_linear_axis(chrome, tmp_path):
    def step(key, w, batch, h):
        return w - h.rate * (w - 1), {"loss": w}

    program = hpx.Program(lambda key, h: 0.01, step, lambda key, w, split, h: {"close": w}, None, steps=8, eval_every=2)
    asked = {"space": hpx.Space(rate=hpx.LogUniform(0.001, 0.9)), "objective": hpx.maximize("valid/close")}
    quick(program=program, **asked).run(progress=False).report(tmp_path / "page.html")
    shown = browser.opened(chrome, (tmp_path / "page.html").as_uri())
    shown.scroll_to_end()
    assert axis(shown, "curves", "yaxis")[0] == axis(shown, "slices", "yaxis")[0] == "linear"


def test_a_far_value_does_not_press_the_others_into_a_line(chrome, tmp_path):
    """Of two curves that grow without end the picture shows the beginning; the best is whole in it."""
    fixed = [{"rate": rate} for rate in (*np.linspace(0.1, 0.4, 60), 2.6)]
    space = hpx.Space(rate=hpx.Uniform(0.05, 3.0))
    result = quick(space=space, sampler=hpx.Manual(fixed), trials=None).run(tmp_path / "run", progress=False)
    result.report(tmp_path / "page.html")
    shown = browser.opened(chrome, (tmp_path / "page.html").as_uri())
    shown.page.wait_for_function(DRAWN)
    low, high = shown.page.evaluate("document.getElementById('chart-curves')._fullLayout.yaxis.range")
    best = result.curves("valid/loss")[result.best.id]
    scale = shown.page.evaluate("document.getElementById('chart-curves')._fullLayout.yaxis.type")
    low, high = (10**low, 10**high) if scale == "log" else (low, high)
    assert low < np.nanmin(best)
    assert np.nanmax(best) < high < np.nanmax(result.curves("valid/loss")) / 100
    title = shown.page.evaluate("document.getElementById('chart-curves')._fullLayout.yaxis.title.text")
    assert title == "valid/loss, without the farthest"


def test_a_large_run_is_thinned_and_says_so(ran, monkeypatch):
    _, result = ran
    whole = result.report()
    assert whole.content.left_out is None
    for name, value in (("LANES", 5), ("EVALUATIONS", 20), ("ROWS", 8)):
        monkeypatch.setattr(contents, name, value)
    thin = result.report()
    assert thin.content.left_out == (
        "8 of 12 trials are in the table; curves are of the best 5 trials; of the curves one evaluation in 3 is drawn"
    )
    assert [lane.trial for lane in thin.content.lanes] == result.ranking[:5]
    assert thin.content.lanes[0].steps == [2, 8, 14, 20], "the last one, too"
    assert len(thin.html()) < len(whole.html()) < 15e6


@pytest.mark.slow
def test_ten_thousand_trials_are_thinned_and_open(chrome, tmp_path, counted):
    sweep = quick(program=quadratic(20, 5), space=hpx.Space(rate=hpx.LogUniform(0.001, 0.5)), trials=10_000)
    result = sweep.run(progress=False)
    result.report(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 15e6
    shown = browser.opened(chrome, (tmp_path / "page.html").as_uri())
    assert "5,000 of 10,000 trials are in the table" in shown.texts("#subtitle")[0]
    assert [int(row[0]) for row in rows(shown)] == result.ranking[:12]
    shown.page.wait_for_function(DRAWN)
    shown.scroll_to_end()
    assert shown.errors == []
    counted(f"10,000 trials: {(tmp_path / 'page.html').stat().st_size / 1e6:.1f} MB")


def test_best_values_at_the_end_of_a_range_are_doubted():
    # The loss falls with the rate up to 0.5, and with the scale of nothing.
    space = hpx.Space(rate=hpx.LogUniform(0.001, 0.2), other=hpx.Uniform(0, 1))
    result = quick(space=space, trials=64).run(progress=False)
    told = doubts(result)
    assert any(
        re.match(r"rate: most of the best 5 trials are at the highest end of its range, around 0\.\d+", d) for d in told
    )
    assert any("One seed a trial" in doubt for doubt in told)
    few = quick(space=hpx.Space(rate=hpx.Uniform(0.1, 0.9)), trials=4, replicates=2).run(progress=False)
    assert any("4 trials with a final value for 1 varied hyperparameter" in doubt for doubt in doubts(few))
    lost = quick(program=quadratic(40, 2), space=hpx.Space(rate=hpx.Uniform(0.5, 9)), trials=8).run(progress=False)
    assert any("of 8 trials diverged" in doubt for doubt in doubts(lost))


def test_bad_options_are_named(ran):
    for options, told in (
        (["--port", "8000"], "--port = 8000: needs --live"),
        (["--live", "--out", "x.html"], "--out = 'x.html': is for a file"),
    ):
        done = CliRunner().invoke(cli.main, ["report", str(ran[0]), *options])
        assert (done.exit_code, told in done.stderr) == (2, True), done.stderr
    with ReportServer(lambda: hpx.load(ran[0]).report()) as server:
        done = CliRunner().invoke(cli.main, ["report", str(ran[0]), "--live", "--port", str(server.server_port)])
        assert "must be free" in done.stderr


@pytest.mark.slow
def test_a_thousand_trials_open_in_seconds(chrome, tmp_path, counted):
    """The table can be read in less than the three seconds that a reader waits; the curves follow."""
    spaces = {f"x{i}": hpx.Uniform(0, 1) for i in range(4)}
    sweep = quick(program=quadratic(500, 10), space=hpx.Space(rate=hpx.LogUniform(0.001, 0.5), **spaces), trials=1000)
    sweep.run(progress=False).report(tmp_path / "page.html")
    size = (tmp_path / "page.html").stat().st_size
    assert size < 15e6
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        shown = browser.opened(chrome, (tmp_path / "page.html").as_uri())
        table = time.perf_counter() - begun
        shown.page.wait_for_function(DRAWN)
        seconds.append((table, time.perf_counter() - begun))
        assert sum(map(lanes, traces(shown, "curves"))) == 1000
        shown.page.context.close()
    table, curves = min(seconds)
    assert table < 3
    counted(f"1,000 trials × 50 evaluations, {size / 1e6:.1f} MB: table in {table:.1f} s, curves in {curves:.1f} s")
