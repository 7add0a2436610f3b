"""Shards: independent jobs train parts of a sweep, and what they find is merged to the bits of one."""

import dataclasses
import json
import os
import pickle
import shutil
import sqlite3
import sys

import click
import jax
import numpy as np
import optuna
import pytest
import submitit
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import hpjax as hpx
from hpjax.frontends import cli
from hpjax.results import merge as merging
from hpjax.sweep.shard import Shard
from tests.support.compare import same_bits
from tests.support.counting import compilations
from tests.support.killed import program

SPACE = hpx.Space(rate=hpx.LogUniform(1e-3, 1e3), size=hpx.Choice(2, 3, static=True))
# Each trial has noise of its own, which derives from its id.
SWEEP = hpx.Sweep(program(lambda h: h.size), SPACE, trials=13, replicates=2, randomness="independent", seed=3)
# What two programs and the default width make of 13 trials, of which 3 jobs train some.
SIZES = [5, 4, 4]


def shard(number, of=3, sweep=SWEEP):
    return dataclasses.replace(sweep, shard=(number, of))


@pytest.fixture(scope="module")
def whole():
    return SWEEP.run(progress=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run directories of the three shards."""
    folder = tmp_path_factory.mktemp("shards")
    paths = [folder / str(number) for number in (1, 2, 3)]
    for number, path in enumerate(paths, start=1):
        shard(number).run(path, progress=False)
    return paths


def same(found, expected, trials):
    """Whether two results agree in every bit of these trials."""
    for trial in trials:
        assert found.hparams[trial] == expected.hparams[trial]
        assert found.groups[trial] == expected.groups[trial]
        assert found.lane_status[trial].tolist() == expected.lane_status[trial].tolist()
        assert found.lane_step[trial].tolist() == expected.lane_step[trial].tolist()
        for metric in ("step", *expected.metrics):
            assert same_bits(found.curves(metric)[trial], expected.curves(metric)[trial])
        for replicate in np.flatnonzero(expected.lane_status[trial] != "diverged").tolist():
            a, b = (jax.tree.leaves(each[trial].restore(replicate)) for each in (found, expected))
            assert len(a) == 3
            assert all(map(same_bits, a, b))


def own(result):
    return np.flatnonzero(result.statuses != "other_shard").tolist()


# What belongs to which shard.


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_every_trial_is_in_one_shard_and_every_shard_has_its_share_of_each_group(group_of, data):
    n = data.draw(st.integers(1, len(group_of)))
    budgets = data.draw(st.lists(st.integers(1, 9), min_size=len(group_of), max_size=len(group_of)))
    groups = [[t for t, own in enumerate(group_of) if own == g] for g in range(4)]
    shards = [Shard(number, n).trials(groups, budgets) for number in range(1, n + 1)]
    assert sorted(trial for each in shards for trial in each) == list(range(len(group_of)))
    for members in [range(len(group_of)), *groups]:
        sizes = [len(each & set(members)) for each in shards]
        assert max(sizes) - min(sizes) <= 1
    for members in groups:
        work = [sum(budgets[t] for t in each & set(members)) for each in shards]
        assert max(work) - min(work) <= 9


def test_the_period_of_a_grid_does_not_decide():
    grid = hpx.Space(rate=hpx.LogUniform(1e-3, 0.5, num=4), size=hpx.Choice(2, 3, static=True))
    for number in (1, 2):
        plan = shard(number, 2, hpx.Sweep(SWEEP.program, grid, sampler=hpx.Grid())).plan()
        assert [len(wave) for each in plan.arrangements for wave in each.waves] == [2, 2]


# What a shard is.


def test_a_shard_has_all_trials_and_knows_which_are_in_others(runs):
    results = [hpx.load(path) for path in runs]
    assert [len(result) for result in results] == [13, 13, 13]
    assert [len(own(result)) for result in results] == SIZES
    assert sorted(trial for result in results for trial in own(result)) == list(range(13))
    first = results[0]
    there = next(trial for trial in range(13) if trial not in own(first))
    assert set(first.ranking) <= set(own(first))
    assert first.best.id in own(first)
    assert first.summary().splitlines()[-1].startswith("13 trials: ")
    assert "8 in other shards" in first.summary()
    assert first[there].status == "other_shard"
    assert first[there].step == 0
    assert np.isnan(first.curves("valid/loss")[there]).all()
    assert first.table()["status"].tolist().count("other_shard") == 8
    with pytest.raises(hpx.RunError, match=rf"trial {there} is in another shard: this run is shard 1/3 .* hpjax merge"):
        first[there].restore()
    with pytest.raises(hpx.RunError, match="8 trials are in other shards, and one of them may be better"):
        first.test()
    assert all(finding.trial in own(first) for finding in hpx.diagnose(first))
    with sqlite3.connect(runs[0] / "results.sqlite") as database:
        waves = database.execute("SELECT wave FROM trials ORDER BY trial").fetchall()
    database.close()
    assert [trial for trial, (wave,) in enumerate(waves) if wave >= 0] == own(first)
    assert {wave for (wave,) in waves} == {-1, 0, 1}


def test_in_optuna_trials_of_other_shards_wait(runs, tmp_path):
    first = hpx.load(runs[0])
    first.to_optuna(tmp_path / "a.log")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "a.log")))
    study = optuna.load_study(study_name="hpjax", storage=storage)
    assert [trial.number for trial in study.trials if trial.state.name != "WAITING"] == own(first)
    assert study.trials[12].params == first.hparams[12]


def test_a_trial_has_the_bits_that_it_has_in_the_whole_sweep(runs, whole):
    assert "diverged" in whole.statuses
    for path in runs:
        result = hpx.load(path)
        same(result, whole, own(result))


def test_the_width_is_that_of_the_whole_sweep(whole):
    """Alone five trials would get another."""
    assert SWEEP.plan().widths == whole.manifest.sweep.width == (4, 3)
    assert dataclasses.replace(SWEEP, trials=5).plan().widths == (2, 1)
    assert {shard(number).plan().widths for number in (1, 2, 3)} == {(4, 3)}


def test_a_width_that_a_shard_does_not_fill_is_hinted_at():
    sweep = hpx.Sweep(program(), hpx.Space(rate=hpx.Uniform(0, 1)), trials=32, devices=1)
    assert sweep.plan().widths == (8,)
    assert "this machine makes the width 8" in str(shard(1, 4, sweep).plan())
    assert "of the time of the whole sweep" not in str(shard(1, 4, sweep).plan())
    assert "about 25% of the time of the whole sweep" in str(shard(1, 16, sweep).plan())
    assert not any("width" in hint for hint in shard(1, 16, dataclasses.replace(sweep, width=8)).plan().hints)


def test_the_plan_tells_of_the_shard_and_the_progress_ends_with_it(capsys):
    plan = shard(1).plan()
    assert plan.lane_steps == 5 * 2 * 24
    assert "13 trials × 2 replicates = 26 lanes\nshard 1/3: 5 of 13 trials, 240 lane-steps" in str(plan)
    assert "2 compiled programs" in str(plan)
    events = list(shard(1).events())
    assert sum(event.lane_steps + event.spared for event in events if event.kind == "segment") == 240


def test_a_group_of_other_shards_is_not_compiled(capsys):
    points = [{"rate": 0.1, "size": 2}, {"rate": 0.1, "size": 3}, {"rate": 0.2, "size": 3}]
    sweep = dataclasses.replace(SWEEP, trials=None, sampler=hpx.Manual(points), replicates=1)
    with compilations() as names:
        result = shard(2, 2, sweep).run()
    assert sum("advance_lanes" in name for name in names) == 1
    assert result.statuses.tolist() == ["other_shard", "complete", "other_shard"]
    assert "group 1 (size=3), 1 of 1: compiled" in capsys.readouterr().err
    assert "1 compiled program, one a group" in str(shard(2, 2, sweep).plan())


def test_a_shard_resumes(tmp_path, whole):
    for number, _ in enumerate(shard(2).events(tmp_path / "run", checkpoint_seconds=0.0)):
        if number == 15:
            break
    assert (tmp_path / "run" / "checkpoints").exists()
    result = shard(2).run(tmp_path / "run", progress=False)
    same(result, whole, own(result))
    assert len(own(result)) == 4
    with pytest.raises(hpx.RunError, match=r'shard: \["2/3"\] there, null here'):
        SWEEP.run(tmp_path / "run", progress=False)


@pytest.mark.parametrize("value", ["4/3", "0/3", "3", "a/b", "1/2/3", (0, 2), (1.5, 2), (3,), 1, True, "1/0", "-1/3"])
def test_what_is_no_shard(value):
    with pytest.raises(hpx.InputError, match=r"Sweep.shard = .* must be the number of the shard, from 1") as caught:
        dataclasses.replace(SWEEP, shard=value)
    assert caught.value.value == value
    assert "1/4, 2/4, 3/4 and 4/4" in caught.value.remedy


def test_a_sweep_that_decides_on_the_way_has_no_shards():
    with pytest.raises(hpx.InputError, match=r"shard = '1/2': cannot go with Halving, .* Leave the scheduler out"):
        dataclasses.replace(SWEEP, shard=(1, 2), scheduler=hpx.Halving(min_steps=4))
    with pytest.raises(hpx.InputError, match=r"shard = '1/2': cannot go with 3 rounds, .* Leave rounds out"):
        dataclasses.replace(SWEEP, shard=(1, 2), rounds=3)
    with pytest.raises(hpx.InputError, match=r"shard = '1/14': must be one of at most 13 shards"):
        shard(1, 14).plan()
    assert len(shard(13, 13).plan().own) == 1


# Merging.


def check_whole(path, whole):
    """A directory holds what one job found, and the sweep without shards reads it."""
    result = hpx.load(path)
    same(result, whole, range(13))
    assert result.ranking == whole.ranking
    assert result.manifest.sweep.shard is None
    with compilations() as names:
        again = SWEEP.run(path, progress=False)
    assert names == []
    same(again, whole, range(13))
    assert not [other for other in path.parent.iterdir() if "part" in other.name]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_merged_shards_are_the_whole_sweep(order, runs, whole, tmp_path):
    hpx.merge([runs[i] for i in order], tmp_path / "out")
    check_whole(tmp_path / "out", whole)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [run["shard"] for run in manifest["merged"]] == ["1/3", "2/3", "3/3"]
    assert [line for line in manifest["plan"] if line.startswith("shard")] == [
        f"shard {number}/3: {size} of 13 trials, {size * 48} lane-steps" for number, size in enumerate(SIZES, start=1)
    ]


def test_in_two_stages_and_shards_of_other_sizes(runs, whole, tmp_path):
    shard(2, 13).run(tmp_path / "b", progress=False)
    shutil.copytree(runs[0], tmp_path / "a")
    some = hpx.merge([runs[2], runs[0]], tmp_path / "some")
    assert some.manifest.sweep.shard == ("1/3", "3/3")
    assert int((some.statuses == "other_shard").sum()) == 4
    same(some, whole, own(some))
    there = next(trial for trial in range(13) if trial not in own(some))
    with pytest.raises(hpx.RunError, match=rf"trial {there} is in another shard: this run is shard 1/3, 3/3"):
        some[there].restore()
    (tmp_path / "out").mkdir()  # an empty one will do
    hpx.merge([runs[1], tmp_path / "some"], tmp_path / "out")
    check_whole(tmp_path / "out", whole)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [run["shard"] for run in manifest["merged"]] == ["1/3", "3/3", "2/3"]
    # Of thirteen shards the second has the second trial that is dealt out, as the second of three does.
    with pytest.raises(hpx.RunError, match="1 trial "):
        hpx.merge([runs[1], tmp_path / "b"], tmp_path / "none")


def refused(directories, out, message):
    with pytest.raises(hpx.RunError, match=message):
        hpx.merge(directories, out)
    assert not out.exists()
    assert not [other for other in out.parent.iterdir() if "part" in other.name]


def test_what_cannot_be_merged(runs, tmp_path):
    out = tmp_path / "out"
    refused([*runs, runs[0]], out, r"5 trials \(.*\) are both in '.*1' and in '.*1'. Leave one")
    refused([runs[0], tmp_path], out, "is no run directory")
    shutil.copytree(runs[1], tmp_path / "other")
    manifest = json.loads((runs[1] / "manifest.json").read_text())
    manifest["sweep"] |= {"seed": 4, "width": [2, 2]}
    (tmp_path / "other" / "manifest.json").write_text(json.dumps(manifest))
    lines = r"  seed: 3 there, 4 here\n  width: \[4, 3\] there, \[2, 2\] here\nMerge"
    what = r"(?s)other' holds a different sweep than .*" + lines
    refused([runs[0], tmp_path / "other"], out, what)
    hpx.merge(runs, tmp_path / "whole")
    refused([runs[0], tmp_path / "whole"], out, "whole' holds a whole sweep")
    for number, _ in enumerate(shard(2).events(tmp_path / "begun")):
        if number == 5:
            break
    refused([runs[0], tmp_path / "begun"], out, "begun' is not finished. Run its shard again")
    shutil.copytree(runs[1], tmp_path / "damaged")
    shutil.rmtree(tmp_path / "damaged" / "states" / "wave-1")
    refused([runs[0], tmp_path / "damaged"], out, "the states of wave 1 are missing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(hpx.RunError, match="full' is there already, and not empty"):
        hpx.merge(runs, tmp_path / "full")
    with pytest.raises(hpx.InputError, match="must be run directories"):
        hpx.merge([], out)


def test_what_fails_on_the_way_leaves_nothing(runs, tmp_path, monkeypatch):
    copied = []

    def copytree(source, target):
        copied.append(target)
        if len(copied) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging.shutil, "copytree", copytree)
    refused(runs, tmp_path / "out", r"out' cannot be written: .* No space left")
    assert copied[2].name == "wave-2"


# The command line.

FILE = """
import jax.numpy as jnp
import hpjax as hpx

def init(key, h):
    return {"w": jnp.zeros(3)}

def step(key, state, batch, h):
    return {"w": state["w"] - 2 * h.rate * (state["w"] - 1)}, {"loss": jnp.mean((state["w"] - 1) ** 2)}

def evaluate(key, state, split, h):
    return {"loss": jnp.mean((state["w"] - 1) ** 2)}

program = hpx.Program(init, step, evaluate, steps=10, eval_every=5)
sweep = hpx.Sweep(program, hpx.Space(rate=hpx.LogUniform(1e-3, 0.4)), trials=5, width=2)
"""


@pytest.fixture
def hpjax(tmp_path, monkeypatch):
    """Calls the command line in a folder with a sweep.py."""
    (tmp_path / "sweep.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")  # as they are in this process
    monkeypatch.setattr("sys.path", [*sys.path])

    def call(*arguments):
        return CliRunner().invoke(cli.main, list(map(str, arguments)))

    return call


def test_on_the_command_line(hpjax, tmp_path):
    planned = hpjax("plan", "sweep.py", "--shard", "2/2")
    assert "shard 2/2: 2 of 5 trials, 20 lane-steps" in planned.output
    for number in (1, 2):
        done = hpjax("run", "sweep.py", "--shard", f"{number}/2", "--quiet")
        assert done.exit_code == 0, done.output
        assert f"5 trials: {4 - number} complete, {1 + number} in other shards" in done.output
    first, second = sorted((tmp_path / "runs").iterdir(), key=lambda path: path.name.partition("shard")[2])
    assert first.name.endswith("-shard-1-of-2")
    assert second.name.endswith("-shard-2-of-2")
    half = hpjax("merge", second, "--out", "half")
    assert "5 trials: 2 complete, 3 in other shards" in half.output
    assert half.output.endswith("recorded in half; 3 trials are in other shards: merge half with them\n")
    done = hpjax("merge", "half", first, "--out", "runs/out", "--top", 2)
    lines = done.output.splitlines()
    assert len(lines) == 5
    assert lines[3] == "5 trials: 5 complete; best by minimize valid/loss"
    assert lines[4] == "recorded in runs/out"
    assert hpjax("show", "runs/out").output.count("complete") == 6
    again = hpjax("run", "sweep.py", "--dir", "runs/out")
    assert "5 trials: 5 complete" in again.output


def test_mistakes_on_the_command_line(hpjax):
    for arguments, message in (
        (("run", "sweep.py", "--shard", "3/2"), "error: Sweep.shard = '3/2': must be the number of the shard, from 1"),
        (("run", "sweep.py", "--shard", "1/6"), "error: Sweep.shard = '1/6': must be one of at most 5 shards"),
        (("run", "sweep.py", "--shard", "1/2", "--test"), "error: --test needs all trials"),
        (("merge", "nowhere", "--out", "out"), "error: 'nowhere' is no run directory"),
        (("merge", "--out", "out"), "Missing argument 'DIR...'"),
        (("merge", "nowhere"), "Missing option '--out'"),
    ):
        done = hpjax(*arguments)
        assert done.exit_code == 2
        assert message in done.output


# Jobs of submitit.


def test_a_job_is_what_the_command_line_is_given():
    job = hpx.cluster.Job("a.py", "runs/a", shard=(1, 4), eval_every=5, quiet=True, test=False, width=None)
    assert job.arguments[2:] == ["--shard", "1/4", "--eval-every", "5", "--quiet"]
    assert job.arguments[:2] == [os.path.abspath("a.py"), f"--dir={os.path.abspath('runs/a')}"]
    with pytest.raises(click.UsageError, match=r"No such option.*--trails"):
        hpx.cluster.Job("a.py", "runs/a", trails=5)
    with pytest.raises(hpx.InputError, match=r"Sweep.shard = \(5, 4\)"):
        hpx.cluster.Job("a.py", "runs/a", shard=(5, 4))


def test_a_job_is_queued_again_as_it_is():
    job = hpx.cluster.Job("a.py", "runs/a", shard=(1, 4), seed=2)
    again = job.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert (again.function, again.args, again.kwargs) == (job, (), {})
    assert pickle.loads(pickle.dumps(again)).function.arguments == job.arguments


def test_a_job_says_what_is_wrong(hpjax, tmp_path):
    with pytest.raises(hpx.InputError, match="one of at most 5 shards"):
        hpx.cluster.Job("sweep.py", tmp_path / "a", shard=(1, 6))()
    (tmp_path / "wrong.py").write_text("sweep = undefined")
    with pytest.raises(hpx.RunError, match=r"wrong.py' cannot be run: read the error in the job's log"):
        hpx.cluster.Job("wrong.py", tmp_path / "a")()


@pytest.mark.slow
def test_jobs_of_submitit(hpjax, tmp_path):
    executor = submitit.LocalExecutor(tmp_path / "logs")
    executor.update_parameters(timeout_min=5)
    jobs = [executor.submit(hpx.cluster.Job("sweep.py", f"runs/{n}", shard=(n, 2), quiet=True)) for n in (1, 2)]
    found = [job.result() for job in jobs]
    assert found == [tmp_path / "runs" / "1", tmp_path / "runs" / "2"]
    assert "shard 1/2: 3 of 5 trials" in jobs[0].stdout()
    assert hpx.merge(found, tmp_path / "out").statuses.tolist() == ["complete"] * 5
