"""Going on from the command line: a script of one's own, notices of preemption, resume, extend, and several hosts."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import hpjax as hpx
from hpjax.frontends.cli import main
from tests.support.compare import same_bits

FILE = """
import time
import hpjax as hpx, jax.numpy as jnp

def evaluate(key, w, split, h):
    return {"loss": (w - 1) ** 2}

def step(key, w, batch, h):
    return w - h.rate * (w - 1), {"loss": (w - 1) ** 2}

program = hpx.Program(lambda key, h: jnp.zeros(()), step, evaluate, steps=400, eval_every=1)
space = hpx.Space(rate=hpx.LogUniform(1e-3, 0.5))
sweep = hpx.Sweep(program, space, trials=4, width=2)
"""


@pytest.fixture
def here(tmp_path):
    (tmp_path / "sweep.py").write_text(FILE)
    return tmp_path


def started(here, *arguments, **environment):
    command = [sys.executable, "-m", "hpjax", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=here, env=os.environ | environment, **pipes)


def hpjax(here, *arguments):
    process = started(here, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def begun(here, monkeypatch):
    """A short run, begun in this process, which need not import JAX again."""
    command = ["run", "sweep.py", "--steps", "5", "--trials", "2", "--dir", "run", "--quiet"]
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["hpjax", *command])
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output


def refused(*arguments):
    """What is said of a command."""
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: "), done.stderr
    return done.stderr


def curves(result):
    return result.curves("valid/loss")


@pytest.mark.slow
def test_a_preempted_run_is_resumed_and_then_extended(here):
    """SIGTERM, resume, more trials, more steps: as one run that had them all."""
    options = ("--trials", 3, "--steps", 2_000, "--seed", 5)
    process = started(here, "run", "sweep.py", *options, "--dir", "run")
    written = here / "run" / "results.sqlite-wal"
    while process.poll() is None:
        if written.exists() and written.stat().st_size > 300_000:  # it trains
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert (
        f"preempted; a checkpoint is in {here / 'run'}. The same sweep with that directory goes on from there." in err
    )
    reached = hpx.load(here / "run").lane_step.max()
    assert 0 < reached < 2_000
    code, out, err = hpjax(here, "resume", "run")
    assert code == 0, err
    assert "goes on from a checkpoint" in err
    assert "3 trials: 3 complete" in out
    code, out, err = hpjax(here, "resume", "run", "--extend", "--steps", 2_100)
    assert code == 0, err
    code, out, err = hpjax(here, "run", "sweep.py", *options, "--steps", 2_100, "--dir", "run", "--quiet")
    assert code == 0, "the manifest is that of the longer run"
    spec = {}
    exec(compile(FILE, "sweep.py", "exec"), spec)
    program = dataclasses.replace(spec["program"], steps=2_100)
    sweep = hpx.Sweep(program, spec["space"], trials=3, width=2, seed=5)
    assert same_bits(curves(hpx.load(here / "run")), curves(sweep.run(progress=False)))
    manifest = hpx.load(here / "run").manifest
    assert manifest.command == ("hpjax", "run", "sweep.py", *map(str, options), "--dir", "run")
    assert manifest.extended_by == (("hpjax", "resume", "run", "--extend", "--steps", "2100"),)


def test_resume_takes_no_file_from_elsewhere(here, begun):
    manifest = here / "run" / "manifest.json"
    recorded = json.loads(manifest.read_text())
    shutil.copy(here / "sweep.py", here / "run" / "sweep.py")
    outside = here.parent / f"{here.name}.py"
    outside.write_text("raise SystemExit('executed')")
    for file in ("run/sweep.py", str(outside), f"../{outside.name}"):
        manifest.write_text(json.dumps(recorded | {"command": ["hpjax", "run", file, "--dir", "run"]}))
        err = refused("resume", "run")
        assert "executed" not in err
        assert "only files below the current folder are taken from there. If it is the sweep that you began" in err
    for command in (["python", "train.py"], ["hpjax", "run", "--bogus"], ["hpjax", "run", "--help"], []):
        manifest.write_text(json.dumps(recorded | {"command": command}))
        refused("resume", "run")
    manifest.write_text(json.dumps(recorded | {"command": ["python", "train.py"]}))
    assert "by 'python train.py'. Start that again: it goes on" in refused("resume", "run")


def test_what_changed_is_named(here, begun):
    (here / "sweep.py").write_text(FILE.replace("h.rate * (w - 1)", "h.rate * (w - 2)").replace("0.5)", "0.4)"))
    err = refused("run", "sweep.py", "--steps", 6, "--trials", 3, "--dir", "run", "--quiet")
    for name in ("space.alternative 0.rate", "trials: 2 there, 3 here", "steps: 5 there, 6 here", "the program's code"):
        assert name in err
    assert "--trials = 4: changes a run only together with --extend" in refused("resume", "run", "--trials", 4)


@pytest.mark.slow
def test_hosts_from_the_command_line(here):
    """The same command on each; the first one prints and writes."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    command = ("run", "sweep.py", "--steps", 20, "--dir", "run", "--distributed")
    hosts = [started(here, *command, **where, JAX_PROCESS_ID=str(host)) for host in (0, 1)]
    told = [host.communicate(timeout=120) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], told
    devices = 2 * len(os.sched_getaffinity(0))  # one a core, twice
    assert f"{devices} cpu devices" in told[0][0]
    assert "4 trials: 4 complete" in told[0][0]
    assert "trials" not in told[1][0]
    assert hpx.load(here / "run").manifest.devices.count == devices


@pytest.mark.slow
def test_hosts_that_cannot_be_found_out(here):
    code, _, err = hpjax(here, "run", "sweep.py", "--distributed")
    assert code == 2
    assert "distributed.initialize" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_hosts_with_different_sweeps_are_told(here):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_NUM_CPU_DEVICES": "1"}
    hosts = [
        started(
            here, "run", "sweep.py", "--seed", host, "--dir", "run", "--distributed", **where, JAX_PROCESS_ID=str(host)
        )
        for host in (0, 1)
    ]
    told = [host.communicate(timeout=120)[1] for host in hosts]
    assert all("the sweep of host 1 is not that of host 0. Give every host the same script" in err for err in told), (
        told
    )
    assert not Path(here / "run").exists()


def test_resume_tracks_only_what_it_is_told_again(here, monkeypatch):
    """A run directory is data: it names no files to write to."""
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path])
    short = ["run", "sweep.py", "--steps", "5", "--trials", "2", "--dir", "run", "--quiet"]
    assert "--track-runs = 'all': needs --track" in refused(*short, "--track-runs", "all")
    assert "Did you mean 'jsonl'?" in refused(*short, "--track", "json:first.jsonl")
    assert "must be the name of a tracker, a colon" in refused(*short, "--track", "jsonl")
    done = CliRunner().invoke(main, [*short, "--track", "jsonl:first.jsonl"])
    assert done.exit_code == 0, done.output
    first = (here / "first.jsonl").read_text()
    assert first.count('"evaluation"') == 2 * 5
    (here / "first.jsonl").unlink()
    done = CliRunner().invoke(main, ["resume", "run", "--quiet"])
    assert "not tracked as before, unless you say so again: --track jsonl:first.jsonl" in done.stderr
    assert not (here / "first.jsonl").exists()
    done = CliRunner().invoke(main, ["resume", "run", "--quiet", "--track", "jsonl:first.jsonl"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert (here / "first.jsonl").read_text() == first, "of a run that is finished, too"
