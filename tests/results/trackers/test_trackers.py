"""Trackers: what their libraries read is what the result has, once, whatever happened to the run or the tracker."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import jsonschema
import numpy as np
import pytest
from msgspec import structs

import hpjax as hpx
from hpjax.results.store.run_store import Store
from hpjax.results.table_reader import read_table
from hpjax.results.trackers import TrackedRun
from hpjax.sweep.running import tracking
from tests.support import tracked
from tests.support.programs import RATES, ROOT, quadratic, rates

# Of packages that these libraries import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
RATE_LIST = (0.05, 0.1, 0.2, 9.0)  # the last one diverges between steps 15 and 20
KINDS = ("jsonl", "tensorboard", "wandb", "mlflow")
WITH_RUNS = KINDS[1:]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def tracker(kind, folder, **runs):
    """A tracker that writes to a folder."""
    folder.mkdir(exist_ok=True)
    if kind == "jsonl":
        return hpx.trackers.JSONL(folder / "runs.jsonl")
    if kind == "tensorboard":
        return hpx.trackers.TensorBoard(folder, **runs)
    if kind == "wandb":
        return hpx.trackers.WandB("project", dir=folder, **runs)
    return hpx.trackers.MLflow("experiment", f"sqlite:///{folder / 'mlflow.db'}", **runs)


def read(kind, folder):
    """What its library reads in that folder."""
    if kind == "jsonl":
        return tracked.jsonl(folder / "runs.jsonl")
    if kind == "mlflow":
        return tracked.mlflow(f"sqlite:///{folder / 'mlflow.db'}", "experiment")
    return {"tensorboard": tracked.tensorboard, "wandb": tracked.wandb}[kind](folder)


def small(**changes):
    asked = {"sampler": rates(*RATE_LIST), "replicates": 2, "devices": 1} | changes
    return hpx.Sweep(quadratic(20, 5), RATES, **asked)


def wanted(result, trial):
    """The curves that a trial must have: of each replicate, and their mean where all were evaluated."""
    found = {}
    steps = result.curves("step")[trial]
    for name in result.metrics:
        values = result.curves(name)[trial]
        for r in range(len(steps)):
            own = [(int(s), float(v)) for s, v in zip(steps[r], values[r], strict=True) if not np.isnan(s)]
            if own:
                found[f"{name}/replicate {r}"] = own
    return found


def of_replicates(run):
    return {name: rows for name, rows in run.curves.items() if "/replicate " in name}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run that all trackers were told of, and what they read of it."""
    folder, patch = tmp_path_factory.mktemp("tracked"), pytest.MonkeyPatch()
    patch.setenv("WANDB_MODE", "offline")
    patch.setenv("WANDB_SILENT", "true")
    patch.setattr(tracking, "PATIENCE", 600.0)
    trackers = [tracker(kind, folder / kind) for kind in KINDS]
    result = small().run(folder / "run", progress=False, trackers=trackers)
    patch.undo()
    return result, {kind: read(kind, folder / kind) for kind in KINDS}, folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_trial_has_its_curves_hyperparameters_and_status(both, kind):
    result, runs, _ = both
    for trial in range(4):
        run = runs[kind][f"trial-{trial}"]
        assert of_replicates(run) == wanted(result, trial)
        assert float(run.config["rate"]) == result.hparams[trial]["rate"]
        status = run.status[0] if kind == "jsonl" else run.status
        assert status == result[trial].status
    if kind != "jsonl":
        mean = result.curves("valid/loss")[1].mean(axis=0)
        np.testing.assert_allclose([x for _, x in runs[kind]["trial-1"].curves["valid/loss"]], mean, rtol=1e-6)
        assert float(runs[kind]["sweep"].summary["best.rate"]) == result.best.hparams["rate"]
        best = [value for _, value in runs[kind]["sweep"].curves["best"]]
        assert best == sorted(best, reverse=True)
        assert best[-1] == pytest.approx(result.best.metrics["valid/loss"], rel=1e-6)


def test_every_line_of_json_fits_the_schema(both):
    _, _, folder = both
    lines = [json.loads(line) for line in (folder / "jsonl" / "runs.jsonl").read_text().splitlines()]
    validator = jsonschema.Draft202012Validator(hpx.trackers.JSONL.SCHEMA)
    for line in lines:
        validator.validate(line)
    assert {line["type"] for line in lines} == {"run", "trial", "evaluation", "status", "summary"}
    assert not validator.is_valid(lines[-1] | {"best": "none"})


def test_the_plugin_of_tensorboard_compares_the_trials(both):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    _, _, folder = both
    events = EventMultiplexer().AddRunsFromDirectory(str(folder / "tensorboard"))
    events.Reload()
    provider = MultiplexerDataProvider(events, str(folder / "tensorboard"))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE]
    )
    found = list_session_groups.Handler(RequestContext(), context, "", asked).run().session_groups
    rates_found = sorted(group.hparams["rate"].number_value for group in found)
    assert rates_found == sorted(RATE_LIST)


@pytest.mark.parametrize("kind", WITH_RUNS)
def test_the_best_become_runs_once_the_sweep_is_finished(kind, both, tmp_path, capsys):
    result, _, folder = both
    for name, choice in (("best", "best:2"), ("sweep", "sweep")):
        told = tracker(kind, tmp_path / name, runs=choice)
        small().run(folder / "run", trackers=[told])  # finished: nothing trains
        assert ("the best 2 of 4 trials become runs" in capsys.readouterr().err) == (name == "best")
    best, whole = read(kind, tmp_path / "best"), read(kind, tmp_path / "sweep")
    assert best.keys() == {"sweep", *(f"trial-{t}" for t in result.ranking[:2])}
    for trial in result.ranking[:2]:
        assert of_replicates(best[f"trial-{trial}"]) == wanted(result, trial)
    assert whole.keys() == {"sweep"}
    lines = {f"{name}/trial {t}": rows for t in range(4) for name, rows in wanted(result, t).items()}
    assert of_replicates(whole["sweep"]) == lines


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from tests.results.trackers.test_trackers import KINDS, small, tracker
    from hpjax.results.trackers import Tracker

    class Calls(Tracker):
        def begin(self, run, table): calls.append(("begin", run, table))
        def add_trials(self, hparams): calls.append(("add_trials", hparams))
        def log(self, evaluation): calls.append(("log", evaluation))
        def end(self, table, finished): pass

    folder, calls = Path(sys.argv[1]), []
    small().run(folder / "run", progress=False, trackers=[Calls()])
    trackers = [tracker(kind, folder / kind) for kind in KINDS]
    for name, *arguments in calls[:4]:  # two of four evaluations
        for each in trackers:
            getattr(each, name)(*arguments)
    with open(folder / "jsonl" / "runs.jsonl", "a") as file:
        file.write('{"run": ')  # killed within a line
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_all_is_there_once(both, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "PATIENCE", 600.0)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    # By this variable W&B finds the service of this process, which would keep the runs of one that was killed open.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == -signal.SIGKILL
    _, whole, _ = both
    trackers = [tracker(kind, tmp_path / kind) for kind in KINDS]
    for _ in range(2):  # the second time there is nothing to add
        small().run(tmp_path / "run", progress=False, trackers=trackers)
    for kind in KINDS:
        found = read(kind, tmp_path / kind)
        assert found.keys() == whole[kind].keys()
        for trial in range(4):
            key = f"trial-{trial}"
            assert found[key].curves == whole[kind][key].curves, (kind, key)
            assert found[key].status == whole[kind][key].status


def test_a_run_that_is_interrupted_and_resumed_is_tracked_once(both, tmp_path):
    def interrupt(event):
        if event.kind == "segment" and event.step == 10:
            os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "runs.jsonl"
    for on_event in (interrupt, None):
        try:
            slow = hpx.trackers.JSONL(path)
            small(segment=1).run(tmp_path / "run", progress=False, trackers=[slow], on_event=on_event)
        except KeyboardInterrupt:
            assert on_event is not None
    result, runs = hpx.load(tmp_path / "run"), tracked.jsonl(path)
    for trial in range(4):
        assert runs[f"trial-{trial}"].curves == wanted(result, trial)
    lines = path.read_text().splitlines()
    assert len({*lines}) == len(lines)


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_trials_cost_less_than_two_percent_of_a_minute(kind, both, tmp_path):
    """CPU seconds of the thread that logs 20 evaluations, which no other process on this machine changes much."""
    result, _, _ = both
    sweep = structs.replace(result.manifest.sweep, trials=1000, rounds=(1000,), replicates=1)
    run = TrackedRun("run", None, structs.replace(result.manifest, sweep=sweep))
    ids, told = np.arange(1000), tracker(kind, tmp_path)
    told.begin(run, read_table(Store.create(None, run.manifest), run.manifest))
    told.add_trials({trial: {"rate": 0.1} for trial in ids.tolist()})
    begun = time.thread_time()
    for step in range(1, 21):
        metrics = {name: np.random.default_rng(step).random(1000, np.float32) for name in result.metrics}
        told.log(hpx.trackers.Evaluation(ids, ids * 0, ids * 0 + step, metrics, 1000 * step, 1000, (7, 0.1)))
    seconds = time.thread_time() - begun
    told.end(result, finished=False)
    assert seconds < 0.02 * 60


class Broken(hpx.trackers.Tracker):
    """Fails, or hangs, in one of its methods."""

    def __init__(self, where, act):
        self.where, self.act, self.calls = where, act, []

    def _in(self, method):
        self.calls.append(method)
        if method == self.where:
            self.act()

    def begin(self, run, table):
        self._in("begin")

    def add_trials(self, hparams):
        self._in("add_trials")

    def log(self, evaluation):
        self._in("log")

    def end(self, table, finished):
        self._in("end")


def fail():
    raise OSError("no space left on device")


@pytest.mark.parametrize("where", ["begin", "log", "end"])
def test_a_tracker_that_fails_is_told_once_and_changes_nothing(both, where):
    whole, _, _ = both
    broken = Broken(where, fail)
    with pytest.warns(RuntimeWarning, match="Broken failed.*the training goes on.*no space left") as told:
        result = small().run(progress=False, trackers=[broken])
    assert len(told) == 1
    assert broken.calls[-1] == where, "nothing after it"
    np.testing.assert_array_equal(result.curves("valid/loss"), whole.curves("valid/loss"))


def test_a_tracker_that_hangs_delays_no_evaluation_and_is_told_of(monkeypatch):
    monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    hanging, seen = Broken("begin", lambda: time.sleep(600)), []
    with pytest.warns(RuntimeWarning, match="Broken is not done: what"):
        result = small().run(progress=False, trackers=[hanging], on_event=seen.append)
    assert (result.statuses == ["complete", "complete", "complete", "diverged"]).all()
    assert [event.kind for event in seen].count("segment") == 4


def test_a_function_of_events_sees_all_of_them_in_order_and_may_fail(both):
    whole, _, _ = both
    seen = []
    small().run(progress=False, on_event=seen.append)
    assert [event.step for event in seen if event.kind == "segment"] == [5, 10, 15, 20]
    trial, replicate, step = next(event for event in seen if event.kind == "segment").evaluated
    assert (trial.tolist(), replicate.tolist(), step.tolist()) == ([0, 1, 2, 3] * 2, [0] * 4 + [1] * 4, [5] * 8)
    with pytest.warns(RuntimeWarning, match="on_event failed.*KeyError"):
        result = small().run(progress=False, on_event=lambda event: {}["nothing"])
    np.testing.assert_array_equal(result.curves("valid/loss"), whole.curves("valid/loss"))


def test_lineage_of_a_population_and_later_rounds_are_tracked(tmp_path):
    space = hpx.Space(rate=hpx.Uniform(0, 0.4))
    sweep = hpx.Sweep(quadratic(20, 5), space, trials=8, scheduler=hpx.PBT(every=5), devices=1)
    path = tmp_path / "pbt.jsonl"
    result = sweep.run(progress=False, trackers=[hpx.trackers.JSONL(path), tracker("tensorboard", tmp_path)])
    clones = [line for line in map(json.loads, path.read_text().splitlines()) if line["type"] == "clone"]
    assert clones
    assert [(c["trial"], c["step"], c["source"], c["hparams"]) for c in clones] == [tuple(c) for c in result.lineage]
    runs = tracked.tensorboard(tmp_path)
    for clone in result.lineage:
        assert f"{clone.source} at step {clone.step}" in runs[f"trial-{clone.trial}"].summary["lineage"]


def test_what_cannot_be_tracked_is_refused_before_anything_trains(monkeypatch, tmp_path):
    with pytest.raises(hpx.InputError, match=r"TensorBoard\.runs = 'worst': must be .best:K"):
        hpx.trackers.TensorBoard(tmp_path, runs="worst")
    with pytest.raises(hpx.InputError, match=r"run\.trackers"):
        small().run(trackers=["tensorboard:logs"])
    with pytest.raises(hpx.InputError, match=r"run\.on_event"):
        small().run(on_event="print")
    for name, make in (("tensorboard", "TensorBoard"), ("wandb", "WandB"), ("mlflow", "MLflow")):
        module = sys.modules[f"hpjax.results.trackers.{name}"]
        monkeypatch.setattr(module, "find_spec", lambda package: None)
        with pytest.raises(ImportError, match=f"hpx.trackers.{make} needs {name}: pip install"):
            getattr(hpx.trackers, make)("x")
    (tmp_path / "text").write_text("no JSON\n")
    with pytest.warns(RuntimeWarning, match="line 1 of .* is no JSON"):
        small().run(progress=False, trackers=[hpx.trackers.JSONL(tmp_path / "text")])
    assert (tmp_path / "text").read_text() == "no JSON\n"
