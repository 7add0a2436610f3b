"""The command line as a user calls it, and its pictures."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open

import hpjax as hpx
from hpjax.frontends.cli import main
from hpjax.results import plot_data

DIGITS = Path(__file__).parents[2] / "experiments" / "digits" / "sweep.py"


SMALL = ("--trials", 8, "--steps", 20, "--eval-every", 10, "--seed", 1)


def hpjax(*arguments):
    """What a command printed, and its exit code, in this process, which need not import JAX again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def ran():
    """What `hpjax run` printed."""
    return []


@pytest.fixture(scope="module")
def directory(tmp_path_factory, ran):
    directory = tmp_path_factory.mktemp("runs") / "run"
    ran.append(hpjax("run", DIGITS, *SMALL, "--dir", directory, "--test", "--top", 3))
    return directory


def check_run(out, err):
    assert "8 trials × 1 replicate = 8 lanes" in out
    assert "8 trials: 8 complete; best by minimize valid/loss" in out
    assert "on the test split: test/accuracy 0." in out
    assert "sweep.py:" in out
    assert "compiled in" in err
    assert "0/3 lanes" in err or "0/2 lanes" in err
    assert "\r" not in err, "plain lines where there is no terminal"


def test_run_prints_the_plan_the_best_trials_and_the_test(directory, ran):
    (done,) = ran
    assert done.exit_code == 0, done.output
    check_run(done.stdout, done.stderr)
    result = hpx.load(directory)
    assert result.manifest.sweep.seed == 1
    assert result.curves("valid/loss").shape == (8, 1, 2)
    assert result.tested.keys() == {result.best.id}


@pytest.mark.slow
def test_in_a_process_of_its_own(tmp_path):
    """With a device a core; and what it found is replayed by another, to the bit."""

    def call(*arguments):
        command = [sys.executable, "-m", "hpjax", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done

    done = call("run", DIGITS, *SMALL, "--dir", "run", "--test", "--top", 3)
    assert f"{len(os.sched_getaffinity(0))} cpu device" in done.stdout
    check_run(done.stdout, done.stderr)
    again = call("replay", DIGITS, "run", *SMALL, "--trial", 3)
    assert again.stderr == ""
    assert again.stdout.startswith("trial 3: every bit agrees: 1 replicate × 2 evaluations of 4 metrics, ")


def test_plan_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = hpjax("plan", DIGITS, "--trials", 5)
    assert "5 trials × 1 replicate = 5 lanes, 10,000 lane-steps" in done.stdout
    assert list(tmp_path.iterdir()) == []


ARTIFACTS = """
import hpjax as hpx
program = hpx.Program(
    lambda key, h: 0.0, lambda key, w, batch, h: (w + h.rate, {}), lambda key, w, split, h: {"loss": (w - 1) ** 2},
    steps=2, artifacts=lambda key, w, split, h: {"w": w})
sweep = hpx.Sweep(program, hpx.Space(rate=hpx.LogUniform(0.01, 0.5)), trials=8)
"""


def test_lanes_span_devices(tmp_path):
    (tmp_path / "sweep.py").write_text(ARTIFACTS, encoding="utf-8")
    asked = ["plan", tmp_path / "sweep.py", "--devices", 4, "--devices-per-lane", 2, "--partition", "fsdp"]
    assert "a mesh of 2 × 2 devices, lanes × data" in hpjax(*asked).stdout
    assert "'zero' is not 'fsdp'" in hpjax(*asked[:-1], "zero").stderr


def test_artifacts_are_chosen(tmp_path):
    (tmp_path / "sweep.py").write_text(ARTIFACTS, encoding="utf-8")
    done = hpjax("run", tmp_path / "sweep.py", "--dir", tmp_path / "run", "--artifacts", "6,2", "--quiet")
    assert done.exit_code == 0, done.output
    result = hpx.load(tmp_path / "run")
    assert [trial.id for trial in result if trial.artifacts] == [2, 6]
    assert result[6].artifacts["w"] == [(2, np.float32(result[6].restore()))]
    refused = hpjax("plan", tmp_path / "sweep.py", "--artifacts", "8")
    assert refused.exit_code == 2
    assert "Sweep.artifacts = [8]: must be ids of trials, which are 0 … 7" in refused.stderr


def test_show(directory):
    done = hpjax("show", directory, "--top", 2, "--sort", "valid/accuracy")
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    accuracies = hpx.load(directory).table()["valid/accuracy"]
    assert f"{accuracies.max():.4g}" in lines[1]
    assert "Did you mean 'valid/accuracy'" in hpjax("show", directory, "--sort", "valid/accurac").stderr


def test_export(directory, tmp_path):
    assert hpjax("export", directory, "--csv", "--out", tmp_path / "a.csv").exit_code == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 9


def test_what_cannot_be_written_says_where_to_name_another_place(directory, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "overview.png").mkdir()
    nowhere = tmp_path / "file" / "a.msgpack"
    for arguments, path, instead in (
        (("export", directory, "--out", nowhere), nowhere, "hpjax export DIR --out FILE."),
        (("export", directory, "--optuna", "--out", nowhere), nowhere, "hpjax export DIR --optuna --out FILE."),
        (("export", directory, "--params", nowhere), nowhere, "hpjax export DIR --params FILE."),
        (("plot", directory, "--out", nowhere), nowhere, "hpjax plot DIR --out FOLDER."),
        (("plot", directory, "--out", tmp_path), tmp_path / "overview.png", "hpjax plot DIR --out FOLDER."),
    ):
        done = hpjax(*arguments)
        why = "Is a directory" if path.is_dir() else "Not a directory"
        assert done.exit_code == 2
        assert done.stderr.startswith(
            f"error: {str(path)!r} cannot be written: {why}. Name a place where you may write"
        )
        assert done.stderr.endswith(f"{instead}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "overview.png"], "nothing half written stays"


def test_export_of_parameters(directory, tmp_path):
    for arguments, trial in (((), hpx.load(directory).best.id), (("--trial", 5), 5)):
        done = hpjax("export", directory, "--params", tmp_path / "a.safetensors", *arguments)
        assert done.stdout == f"{tmp_path / 'a.safetensors'}\n"
        with safe_open(tmp_path / "a.safetensors", "numpy") as file:
            assert file.metadata()["trial"] == str(trial)
    alone = hpjax("export", directory, "--trial", 5)
    assert alone.exit_code == 2
    assert alone.stderr.startswith("error: --trial = 5: needs --params")


def test_a_trial_that_is_not_there_points_to_show(directory, tmp_path):
    for arguments in (("replay", DIGITS, directory), ("export", directory, "--params", tmp_path / "a.msgpack")):
        done = hpjax(*arguments, "--trial", 99)
        assert done.exit_code == 2
        there = "must lie in 0 … 7. Look up its id: hpjax show"
        assert done.stderr == f"error: --trial = 99: {there} {directory}.\n"


@pytest.mark.slow
def test_replay(directory, tmp_path):
    done = hpjax("replay", DIGITS, directory, *SMALL, "--trial", 3)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("trial 3: every bit agrees: 1 replicate × 2 evaluations of 4 metrics, ")
    shutil.copytree(directory, tmp_path / "run")
    for states in (tmp_path / "run" / "states").glob("wave-*/0.npy"):
        np.save(states, -np.load(states))
    best = hpjax("replay", DIGITS, tmp_path / "run", *SMALL)
    assert best.exit_code == 1
    assert best.stdout.startswith(f"trial {hpx.load(directory).best.id}: does not agree, of 1 replicate")
    other = hpjax("replay", DIGITS, directory, "--trial", 3)
    assert other.exit_code == 2
    assert "trials: 8 there, 256 here" in other.stderr


def test_plot(directory, tmp_path):
    assert hpjax("plot", directory, "--out", tmp_path / "a").exit_code == 0
    written = sorted(path.stem for path in (tmp_path / "a").iterdir())
    assert written == ["contour", "cost", "importance", "isolation", "map", "overview", "parallel", "quantiles"]
    for name in written:
        image = Image.open(tmp_path / "a" / f"{name}.png").convert("L")
        assert image.width == 6.8 * 300
        assert np.asarray(image).min() < 60, "something is drawn"
    done = hpjax("plot", directory, "--out", tmp_path / "b", "--format", "pdf", "--format", "svg")
    assert sorted(map(Path, done.stdout.split())) == sorted((tmp_path / "b").iterdir())
    assert (tmp_path / "b" / "overview.pdf").read_bytes().startswith(b"%PDF-")
    assert "<svg" in (tmp_path / "b" / "overview.svg").read_text()
    assert hpjax("plot", directory, "--out", tmp_path / "c", "--width", "single").exit_code == 0
    with Image.open(tmp_path / "c" / "map.png") as image:
        assert image.width == 3.3 * 300
    assert "'triple' is not one of" in hpjax("plot", directory, "--width", "triple").stderr
    assert "'gif' is not one of" in hpjax("plot", directory, "--format", "gif").stderr


def test_the_numbers_behind_the_picture(directory):
    result = hpx.load(directory)
    curves = plot_data.curves(result, "valid/loss")
    assert curves.trials.tolist() == result.ranking[::-1]
    assert curves.values.shape == (8, 2)
    assert curves.values[-1, -1] == result.table()["valid/loss"].min()
    axis = plot_data.axis(result, "hidden", "valid/loss")
    assert axis.categories == ("32", "64", "128")
    assert plot_data.axis(result, "learning_rate", "valid/loss").scale == "log"
    assert plot_data.axis(result, "momentum", "valid/loss").categories == ()
    assert result.varied == ["learning_rate", "momentum", "weight_decay", "hidden"]
    figure = result.plot("learning_rate")
    assert [panel.get_xlabel() for panel in figure.axes] == ["step", "learning_rate"]
    with pytest.raises(hpx.InputError, match="Did you mean 'momentum'"):
        result.plot("momentun")


def test_help_does_not_wait_for_jax():
    code = (
        "import sys, hpjax.frontends.cli\n"
        "try: hpjax.frontends.cli.main(['--help'])\n"
        "finally: assert not {'jax', 'numpy', 'flax', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout


def test_a_file_that_is_none_of_python_or_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.sh").write_text("hpjax plan sweep.py\n")
    done = hpjax("plan", "run.sh")
    allowed = (
        "must be a Python file, whose name ends in .py. Name the file that defines your sweep: hpjax plan sweep.py."
    )
    assert (done.exit_code, done.stderr) == (2, f"error: FILE = 'run.sh': {allowed}\n")
    for command, shown in (("plan", "nofile.py"), ("run", str(tmp_path / "nofile.py"))):
        done = hpjax(command, "nofile.py")
        why = f"there is no such file. Name a file that exists, by its path from {tmp_path}."
        assert (done.exit_code, done.stderr) == (2, f"error: FILE = {shown!r}: {why}\n")


def test_a_bug_in_the_users_file_shows_their_lines_alone(tmp_path):
    (tmp_path / "sweep.py").write_text("import hpjax\n\nsweep = undefined\n")
    done = hpjax("plan", tmp_path / "sweep.py")
    assert done.exit_code == 2
    assert "sweep = undefined" in done.stderr
    assert "hpjax/cli.py" not in done.stderr


UNGUARDED = """
import jax.numpy as jnp
import hpjax as hpx

program = hpx.Program(
    init=lambda key, h: jnp.zeros(()),
    step=lambda key, w, batch, h: (w + h.rate, {}),
    evaluate=lambda key, w, split, h: {"loss": w},
    steps=2,
)
sweep = hpx.Sweep(program, hpx.Space(rate=hpx.Uniform(0.1, 0.4)), trials=2)
sweep.run(progress=False)
"""


def test_a_file_that_trains_while_it_is_executed_is_told_of(tmp_path):
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    with pytest.warns(
        RuntimeWarning, match=r'^unguarded.py runs a sweep .* Write sweep.run\(\) under if __name__ == "__main__"'
    ):
        done = hpjax("plan", tmp_path / "unguarded.py")
    assert done.exit_code == 0, done.output


def test_not_a_directory_of_a_run(tmp_path):
    for command in (["show"], ["plot"], ["export", "--csv"]):
        done = hpjax(command[0], tmp_path, *command[1:])
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert "is no run directory" in done.stderr


FAILING = """
import os
import jax, jax.numpy as jnp, numpy as np
import hpjax as hpx

def called_back(w):
    if os.environ.get("BROKEN"):
        raise LookupError("no such file")
    return w

def step(key, w, batch, h):
    if h.kind == 2:
        w = jax.pure_callback(called_back, jax.ShapeDtypeStruct((), jnp.float32), w, vmap_method="sequential")
    return w + h.rate, {}

program = hpx.Program(lambda key, h: jnp.zeros(()), step, lambda key, w, split, h: {"loss": (w - 1) ** 2}, steps=2)
space = hpx.Space(rate=hpx.Uniform(0.1, 0.4), kind=hpx.Choice(1, 2, static=True))
sweep = hpx.Sweep(program, space, sampler=hpx.Manual([{"rate": 0.1 * i, "kind": 1 + i % 2} for i in (1, 2, 3)]))
"""


@pytest.mark.filterwarnings("ignore:group . failed:RuntimeWarning")
def test_a_run_of_which_a_group_failed_has_a_code_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "sweep.py").write_text(FAILING)
    monkeypatch.setenv("BROKEN", "1")
    done = hpjax("run", tmp_path / "sweep.py", "--dir", tmp_path / "run", "--quiet")
    assert done.exit_code == 3
    assert "3 trials: 1 complete, 2 failed" in done.stdout
    assert "failed: trials 0, 2: a function that the program of group" in done.stdout
    assert "error: 2 trials failed, for the reasons above. To try again what failed: hpjax resume" in done.stderr
    shown = hpjax("show", tmp_path / "run")
    assert shown.exit_code == 0
    assert "LookupError: no such file" in shown.stdout
    monkeypatch.delenv("BROKEN")
    done = hpjax("resume", tmp_path / "run", "--file", tmp_path / "sweep.py", "--quiet")
    assert done.exit_code == 0, done.output
    assert "3 trials: 3 complete" in done.stdout
