"""After ``import hpjax as hpx`` every public module and name is there: at run time, for checkers, in editors."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hpjax as hpx

PUBLIC_MODULES = {
    *("analysis", "cluster", "data", "distributed", "keys", "losses", "metrics", "mup", "nn"),
    *("optim", "plot", "samplers", "schedulers", "sklearn", "studies", "testing", "trackers"),
}

# What a user's script may hold: one name of each public module, and what a checker must say of it.
SCRIPT = """
from typing import assert_type

import hpjax as hpx
import numpy as np
import pandas
from matplotlib.figure import Figure

assert_type(hpx.analysis.variances(np.zeros((3, 2))), hpx.analysis.Variances)
board: hpx.trackers.Tracker = hpx.trackers.TensorBoard("logs", runs="all")
space = hpx.Space(rate=hpx.LogUniform(1e-4, 1.0))
data = hpx.data.from_arrays(np.zeros((8, 2)), np.zeros(8))
assert_type(data, hpx.Data)
hpx.distributed.initialize
hpx.keys.purpose_key(hpx.keys.lane_key(seed=0, replicate=0), "init")
hpx.losses.cross_entropy(smoothing=0.1)
hpx.metrics.accuracy
hpx.mup.MuP({"width": 64})
hpx.nn.Dense(8)
hpx.optim.sgd(0.1, 0.9)
hpx.plot.overview
sobol = hpx.samplers.Sobol()
assert_type(sobol, hpx.Sobol)
halving = hpx.schedulers.Halving(factor=4, min_steps=10)
assert_type(halving, hpx.Halving)
hpx.studies.noise_scale
hpx.testing.check_sampler(sobol)
hpx.sklearn.SweepCV
assert_type(hpx.cluster.Job("sweep.py", "runs/a"), hpx.cluster.Job)


def train(program: hpx.Program) -> hpx.Result:
    sweep = hpx.Sweep(program, space, trials=4, sampler=sobol, scheduler=halving, objective=hpx.minimize("valid/loss"))
    return sweep.run(trackers=[board], on_event=print)


def look(result: hpx.Result) -> None:
    assert_type(result.to_pandas(), pandas.DataFrame)
    assert_type(result.plot(), Figure)
    assert_type(result.latex(), str)
    state = {"w": np.zeros(3)}
    assert_type(result.best.restore(like=state), dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]])


def watch(sweep: hpx.Sweep, trial: hpx.Trial) -> list[float]:
    assert_type(sweep.plan(), hpx.Plan)
    assert_type(sweep.plan().verdicts[0], hpx.Verdict)
    assert_type(sweep.replay(trial), hpx.Replay)
    assert_type(sweep.models(trial.result), hpx.TrainedModels)
    seconds = []
    for event in sweep.events():
        if event.kind == "segment":
            assert_type(event, hpx.SegmentFinished)
            seconds.append(event.seconds)
    return seconds
"""


def test_the_public_modules_are_these():
    assert set(hpx._MODULES) == PUBLIC_MODULES


def test_each_resolves_after_the_import_alone():
    use = "\n".join(f"assert hpx.{name}.__name__ in sys.modules" for name in sorted(PUBLIC_MODULES))
    subprocess.run([sys.executable, "-c", f"import sys, hpjax as hpx\n{use}"], check=True)


def test_dir_lists_what_there_is():
    assert PUBLIC_MODULES | set(hpx.__all__) <= set(dir(hpx))
    assert all(hasattr(hpx, name) for name in dir(hpx))


def test_checkers_and_the_interpreter_read_the_same_names():
    tree = ast.parse(Path(hpx.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING")
    read = {}
    for line in block.body:
        if isinstance(line, ast.Assign):  # what is imported under another name is public for checkers only so
            read[line.targets[0].id] = read.pop(line.value.id)
        else:
            read |= {alias.asname: (line.module, alias.name) for alias in line.names}
    modules = {name: tuple(home.rsplit(".", 1)) for name, home in hpx._MODULES.items()}
    assert read == modules | {name: (home, name) for home, names in hpx._HOME.items() for name in names}


def test_a_name_that_is_not_there_suggests_one_that_is():
    with pytest.raises(AttributeError, match=r"'sampler'\. Did you mean 'samplers'"):
        hpx.sampler  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean 'sklearn'"):
        hpx.sklern  # noqa: B018


@pytest.mark.parametrize(
    ("name", "hint"), [("IntUniform", "Did you mean 'Uniform'?"), ("qqqqqqq", "Type dir(hpjax) to see all names.")]
)
def test_what_is_printed_has_one_suggestion_and_no_list(name, hint):
    """As Python prints it, which would add a suggestion of its own."""
    code = f"import hpjax as hpx; hpx.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == f"AttributeError: module 'hpjax' has no attribute {name!r}. {hint}"


CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--untyped-calls-exclude=jax"],
    "pyright": [shutil.which("pyright", path=Path(sys.executable).parent) or "pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", [pytest.param("mypy", marks=pytest.mark.slow), "pyright"])
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
def test_checkers_accept_a_users_script(checker, wrong, tmp_path, tmp_path_factory):
    program, *_ = command = CHECKERS[checker]
    if shutil.which(program) is None:
        pytest.skip("pyright is not installed: make leaves it out, for its first run downloads it from npm")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "\nhpx.samplers.Sobl()\nhpx.Swep\n" * wrong)
    cache = {"MYPY_CACHE_DIR": str(tmp_path_factory.getbasetemp() / "mypy")}
    here = Path(hpx.__file__).parents[1]  # where checkers look for hpjax first
    done = subprocess.run([*command, str(script)], cwd=here, env=os.environ | cache, capture_output=True, text=True)
    assert done.returncode == int(wrong), done.stdout + done.stderr
    for name in ('"Sobl"', '"Swep"'):
        assert (name in done.stdout) == wrong, done.stdout
