"""Looking at runs from the command line: as wide as the terminal, for scripts, in lists, and into pipes."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

import hpjax as hpx
from hpjax.frontends import cli
from hpjax.frontends.printing import draw
from hpjax.results.runs import runs_below
from tests.support.programs import quadratic

WIDE = {f"setting_{i}": 1.0 * i for i in range(40)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a finished run of 42 hyperparameters, an interrupted, a diverged and a damaged one."""
    folder = tmp_path_factory.mktemp("runs")
    space = hpx.Space(rate=hpx.Uniform(0.1, 0.4), kind=hpx.Choice("[red]a[/red]", "b"), **WIDE)
    hpx.Sweep(quadratic(10, 5), space, trials=6, devices=1).run(folder / "a" / "wide", progress=False)
    events = hpx.Sweep(quadratic(10, 5), hpx.Space(rate=hpx.Uniform(0.1, 0.4)), trials=3).events(folder / "begun")
    next(event for event in events if event.kind == "segment")
    events.close()
    hpx.Sweep(quadratic(20, 5), hpx.Space(rate=9.0), trials=1).run(folder / "lost", progress=False)
    shutil.copytree(folder / "lost", folder / "torn")
    (folder / "torn" / "manifest.json").write_text("{")
    return folder


def hpjax(*arguments):
    return CliRunner().invoke(cli.main, [str(each) for each in arguments])


def drawn(table, width):
    console = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    draw(console, table.fitting(width, ["trial", "valid/loss", "rate", "kind", "status", "step"]))
    return console.file.getvalue().splitlines()


def test_a_table_is_as_wide_as_the_terminal(runs):
    result = hpx.load(runs / "a" / "wide")
    table = result.rows(3)
    lines = drawn(table, 80)
    assert max(map(len, lines[:4])) <= 80
    head = lines[0].split()
    assert {"trial", "rate", "kind", "valid/loss", "status", "step"} <= {*head}
    assert [line.split()[0] for line in lines[1:4]] == [str(trial) for trial in result.ranking[:3]]
    assert "[red]a[/red]" in "\n".join(drawn(result.rows(6), 80)), "text, and no markup"
    left = next(line for line in lines if line.startswith("left out for width: "))
    assert {*left.partition(": ")[2].split(", ")} == {*table.header} - {*head}
    assert drawn(table, 5)[0].split() == []
    assert str(table.fitting(10_000, [])) == str(table)


def test_into_a_pipe_all_columns_are_printed(runs):
    done = hpjax("show", runs / "a" / "wide")
    assert len(done.stdout.splitlines()[0].split()) == 1 + 42 + 2 + 2
    done = hpjax("show", runs / "a" / "wide", "--columns", "trial, valid/loss")
    assert done.stdout.splitlines()[0].split() == ["trial", "valid/loss"]
    done = hpjax("show", runs / "a" / "wide", "--columns", "valid/los")
    assert (done.exit_code, "Did you mean 'valid/loss'?" in done.stderr) == (2, True)


def test_json_is_for_scripts(runs):
    found = json.loads(hpjax("show", runs / "a" / "wide", "--json", "--top", 2).stdout)
    result = hpx.load(runs / "a" / "wide")
    assert found["statuses"] == {"complete": 6}
    assert [each["trial"] for each in found["best"]] == result.ranking[:2]
    assert found["best"][0]["hparams"] == result.best.hparams
    assert found["best"][0]["metrics"] == result.best.metrics
    assert json.loads(hpjax("show", runs / "lost", "--json").stdout)["best"] == []


def test_runs_are_listed_with_how_far_they_are(runs):
    lines = hpjax("ls", runs).stdout.splitlines()
    cells = {line.split()[0]: line.split() for line in lines[1:5]}
    best = hpx.load(runs / "a" / "wide").best
    assert cells["a/wide"][1:6] == ["finished", "6", "6", f"{best.metrics['valid/loss']:.4g}", str(best.id)]
    assert cells["begun"][1:4] == ["interrupted", "3", "0"]
    assert cells["lost"][1:6] == ["finished", "1", "0", "-", "-"]
    assert cells["torn"][1] == "damaged"
    assert lines[5] == f"4 runs in {runs}"
    assert str(runs / "torn" / "manifest.json") in lines[6]
    assert hpjax("ls", runs / "a" / "wide").stdout.splitlines()[1].split()[0] == "."
    assert hpjax("ls", runs / "nothing").exit_code == 2


def test_a_run_that_trains_is_listed_as_running(tmp_path):
    events = hpx.Sweep(quadratic(10, 5), hpx.Space(rate=hpx.Uniform(0.1, 0.4)), trials=3).events(tmp_path / "run")
    next(event for event in events if event.kind == "segment")
    assert runs_below(tmp_path).rows[0][:2] == ["run", "running"]
    assert [event.kind for event in events] == ["segment"], "listing it does not disturb it"
    assert runs_below(tmp_path).rows[0][1] == "finished"


@pytest.mark.parametrize("command", [["show", "a/wide", "--top", "6"], ["ls", "."], ["show", "a/wide", "--json"]])
def test_a_pipe_that_is_closed_is_no_error(runs, command):
    """As by ``| head``: the reader is gone before the first line is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hpjax", *command],
        cwd=runs,
        env=os.environ | {"PYTHONPATH": str(Path(hpx.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == cli.EXIT_CLOSED


def test_progress_keeps_the_best_value_at_80_columns(capsys):
    from hpjax.sweep.running.progress import Progress

    sweep = hpx.Sweep(quadratic(10, 5), hpx.Space(rate=hpx.Uniform(0.1, 0.4)), trials=3)
    progress = Progress(sweep.plan(), enabled=True)
    event = [event for event in sweep.events() if event.kind == "segment"][-1]
    for width in (60, 80, 200):
        line = progress.line(event, width)
        assert len(line) <= width
        assert f"best {event.best[1]:.4g} (trial {event.best[0]})" in line
    assert "steps/s" in line
    assert np.isfinite(event.best[1])
