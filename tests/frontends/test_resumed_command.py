"""The manifest records the command as it was typed; scripts read the ``sys.argv`` of the command that began the run."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

import hpjax as hpx
from hpjax.frontends.cli import main

# A script that writes down what it reads of sys.argv, and a sweep of a few steps on one number.
FILE = """
import pathlib, sys
import jax.numpy as jnp
import hpjax as hpx

pathlib.Path("seen").write_text(" ".join(sys.argv[1:]))
program = hpx.Program(
    init=lambda key, h: {"w": jnp.zeros(())},
    step=lambda key, state, batch, h: ({"w": state["w"] - h.rate * (state["w"] - 1)}, {"loss": state["w"] ** 2}),
    evaluate=lambda key, state, data, h: {"loss": (state["w"] - 1) ** 2},
    steps=4, eval_every=2,
)
sweep = hpx.Sweep(program, hpx.Space(rate=hpx.LogUniform(0.01, 0.5)), trials=2, width=2)
"""
TYPED = ("run", "sweep.py", "--trials", "3", "--dir", "a run", "--quiet")


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "sweep.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def command(folder):
    return list(hpx.load(folder / "a run").manifest.command)


def call(*words):
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_in_a_process_of_its_own(here):
    done = subprocess.run([sys.executable, "-m", "hpjax", *TYPED], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    assert command(here) == ["hpjax", *TYPED]
    assert (here / "seen").read_text() == " ".join(TYPED)


def test_called_by_a_program_with_another_command(here, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["notebook", "--port", "8888"])
    call(*TYPED)
    assert command(here) == ["hpjax", *TYPED]
    assert (here / "seen").read_text() == "--port 8888"


def test_a_resumed_and_extended_run(here, monkeypatch):
    """Each command is recorded as typed; the script is shown that which began the run, with what was added since."""
    monkeypatch.setattr(sys, "argv", ["hpjax", *TYPED])
    call(*TYPED)
    longer, more = ("resume", "a run", "--steps", "6", "--extend"), ("resume", "a run", "--extend", "--trials", "4")
    call(*longer)
    assert (here / "seen").read_text() == " ".join([*TYPED, "--steps", "6", "--extend"])
    call("resume", "a run")
    assert (here / "seen").read_text() == " ".join([*TYPED, "--steps", "6", "--extend"])
    call(*more)
    result = hpx.load(here / "a run")
    assert result.lane_step.tolist() == [[6]] * 4
    assert list(result.manifest.command) == ["hpjax", *TYPED]
    assert result.manifest.extended_by == (("hpjax", *longer), ("hpjax", *more))
    assert sys.argv == ["hpjax", *TYPED], "as it was"


def test_of_a_script_of_ones_own(here, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["somewhere/train.py", "--fast"])
    spec = {}
    exec(compile(FILE, "sweep.py", "exec"), spec)
    spec["sweep"].run(here / "a run", progress=False)
    assert command(here) == ["train.py", "--fast"]
