"""Paths are absolute from the start: whoever changes the current folder finds what a run has written all the same."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

import hpjax as hpx
from hpjax.engine.machine import folder
from hpjax.frontends.cli import main
from hpjax.results.store.run_store import STATES
from tests.support.programs import RATES, quadratic, rates

SWEEP = hpx.Sweep(quadratic(4, 2), RATES, sampler=rates(0.1, 0.2))


def expected(rate):
    """The state after four steps: w = 1 − (1 − 2 rate)⁴."""
    return np.full(3, 1 - (1 - 2 * rate) ** 4)


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """The result of a run in a relative directory, after which the current folder changed."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    result = SWEEP.run("runs/a", progress=False)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return result


def test_states_are_found_after_a_change_of_folder(moved):
    np.testing.assert_allclose(moved[1].restore()["w"], expected(0.2), rtol=1e-6)
    np.testing.assert_allclose(SWEEP.models(moved).points()[0]["rate"], 0.1)


def test_a_loaded_result_and_a_merged_one_are_absolute_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for shard in (1, 2):
        hpx.Sweep(quadratic(4, 2), RATES, sampler=rates(0.1, 0.2), shard=(shard, 2)).run(f"{shard}", progress=False)
    whole = hpx.merge(["1", "2"], "whole")
    loaded = hpx.load("whole")
    monkeypatch.chdir("/")
    for result in (whole, loaded):
        np.testing.assert_allclose(result[1].restore()["w"], expected(0.2), rtol=1e-6)


def test_what_is_missing_is_called_missing(moved, tmp_path):
    shutil.rmtree(tmp_path / "runs" / "a" / STATES)
    for result in (moved, hpx.load(tmp_path / "runs" / "a")):
        with pytest.raises(
            hpx.RunError, match=r"state of trial 1 is missing: there is no .*/runs/a/states/wave-0\. Res"
        ):
            result[1].restore()
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(
        hpx.RunError, match=r"trial 1 is missing.* where the run directory was moved, load it from there"
    ):
        moved[1].restore()


def test_a_run_goes_on_where_it_began(tmp_path, monkeypatch):
    """The program changes the current folder while it is traced, as training scripts with a folder of their own do."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def init(key, h):
        monkeypatch.chdir(tmp_path / "elsewhere")
        return jnp.zeros(3)

    program = hpx.Program(init, lambda key, s, b, h: (s + h.rate, {}), lambda key, s, d, h: {"loss": h.rate}, steps=2)
    events = hpx.Sweep(program, RATES, sampler=rates(0.1)).events("a", checkpoint_seconds=0)
    assert len(list(events)) > 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
    np.testing.assert_allclose(hpx.load(tmp_path / "a")[0].restore(), 0.2, rtol=1e-6)


SCRIPT = """
import os
import jax.numpy as jnp
import hpjax as hpx
os.chdir("elsewhere")
program = hpx.Program(
    lambda key, h: jnp.zeros(()), lambda key, s, b, h: (s, {}), lambda key, s, d, h: {"loss": h.rate}, steps=1
)
sweep = hpx.Sweep(program, hpx.Space(rate=hpx.Uniform(0, 1)), trials=2)
"""


@pytest.mark.parametrize("options", [["--dir", "a"], []])
def test_a_script_may_change_the_folder(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sweep.py").write_text(SCRIPT)
    done = CliRunner().invoke(main, ["run", "sweep.py", "--quiet", *options])
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (directory,) = [tmp_path / "a"] if options else (tmp_path / "runs").iterdir()
    assert options or directory.name.startswith(tmp_path.name)
    assert len(hpx.load(directory)) == 2


def test_a_relative_cache_folder_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert folder() == Path.home() / ".cache" / "hpjax"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert folder() == Path("/caches/hpjax")
