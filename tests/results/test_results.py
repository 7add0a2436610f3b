"""The store and what is read from it: tables, curves, states, run directories, ranking."""

import csv
import functools
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pandas as pd
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.core.objective import Objective
from hpjax.results import plot_data
from hpjax.sweep.running.progress import Progress
from tests.support.compare import same_bits
from tests.support.counting import compilations
from tests.support.programs import RATES, quadratic, rates

RATE_LIST = [0.05, 0.15, 0.2, 1e6, 0.1]


def closed_form(rate, steps):
    return (1 - 2 * rate) ** steps  # 1 − w


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    hpx.Sweep(quadratic(10, 5), RATES, replicates=2, sampler=rates(*RATE_LIST), width=4).run(directory, progress=False)
    return directory


class Keep(hpx.Scheduler):
    """Keeps the best ``count`` trials."""

    def __init__(self, count):
        self.count = count

    def decide(self, race):
        return race.ranked(race.live)[self.count :]


@pytest.fixture(scope="module")
def result(directory):
    return hpx.load(directory)


def test_when_evaluations_were_recorded(directory, result):
    """Four lanes side by side, at the same time as each other; later evaluations later, all within the run."""
    seconds = result.curves("seconds")
    assert np.isnan(seconds).tolist() == np.isnan(result.curves("step")).tolist()
    assert 0 < np.nanmin(seconds) <= np.nanmax(seconds) <= hpx.load(directory)._store.seconds() + 1e-3
    assert all((np.diff(lane[np.isfinite(lane)]) > 0).all() for lane in seconds.reshape(-1, seconds.shape[-1]))


def test_what_cannot_be_written_says_what_to_type(tmp_path):
    result = hpx.Sweep(quadratic(2, 1), RATES, trials=2).run(progress=False)
    nowhere = tmp_path / "nowhere" / "a.png"
    for write, instead in (
        (result.to_csv, r"result\.to_csv\(FILE\), or hpjax export DIR --out FILE\."),
        (lambda path: result.plot(path=path), r'plot\(path="FOLDER/a\.png"\), or hpjax plot DIR --out FOLDER\.'),
    ):
        with pytest.raises(hpx.RunError, match=rf"nowhere/a\.png' cannot be written: No such file .*: {instead}"):
            write(nowhere)
    assert list(tmp_path.iterdir()) == []


def test_curves_are_the_closed_form(result):
    curves = result.curves("valid/loss")
    assert curves.shape == (5, 2, 2)
    for trial, rate in enumerate(RATE_LIST):
        if rate > 1:
            assert np.isnan(curves[trial]).all()
        else:
            for evaluation, step in enumerate((5, 10)):
                np.testing.assert_allclose(curves[trial, :, evaluation], closed_form(rate, step) ** 2, rtol=1e-4)
    assert result.curves("step")[0, 0].tolist() == [5, 10]
    with pytest.raises(hpx.InputError, match="Did you mean 'valid/loss'"):
        result.curves("valid/los")


def test_the_best_and_the_table(result):
    assert result.best.id == 2
    assert result.best.hparams == {"rate": 0.2}
    assert [t.id for t in result.top(10)] == [2, 1, 4, 0]
    table = result.table()
    assert list(table) == ["trial", "rate", "train/loss", "valid/loss", "gap", "round", "group", "status", "step"]
    np.testing.assert_array_equal(table["gap"], table["valid/loss"] - table["train/loss"])
    assert table["rate"].tolist() == RATE_LIST
    assert table["status"].tolist() == ["complete", "complete", "complete", "diverged", "complete"]
    assert table["step"].tolist()[:3] == [10, 10, 10]
    assert np.isnan(table["valid/loss"][3])
    frame = result.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame.shape == (5, 9)
    assert "complete" in result.summary()
    assert "trial 2 (rate=0.2)" in repr(result.best)


def test_a_grid_by_its_axes(tmp_path):
    space = hpx.Space(rate=hpx.LogUniform(0.1, 0.4, num=3), kind=hpx.Choice("b", "a"), size=hpx.Choice(3, 2), x=1)
    points = list(space.grid())[::-1]
    hpx.Sweep(quadratic(10, 5), space, sampler=hpx.Manual(points)).run(tmp_path, progress=False)
    found = hpx.load(tmp_path)
    (values, kinds, sizes), trials = found.grid("rate", "kind", "size")
    assert (values, kinds, sizes) == ([0.1, 0.2, 0.4], ["a", "b"], [2, 3]), "names in the order of the trials"
    for place, trial in np.ndenumerate(trials):
        point = {"rate": values[place[0]], "kind": kinds[place[1]], "size": sizes[place[2]], "x": 1}
        assert found.hparams[trial] == point
    assert found.grid()[1].tolist() == trials.tolist(), "those that vary, in the order of the space"
    assert found.grid("size", "rate", "kind")[1].shape == (2, 3, 2)
    with pytest.raises(hpx.InputError, match=r"do not tell trials 0 and 1 apart. Name more of size"):
        found.grid("rate", "kind")
    with pytest.raises(hpx.InputError, match=r"grid = 'rat': must be a hyperparameter. Did you mean 'rate'"):
        found.grid("rat")
    with pytest.raises(hpx.InputError, match=r"must differ. Name each hyperparameter once"):
        found.grid("rate", "rate")
    twice = hpx.Sweep(quadratic(10, 5), RATES, sampler=rates(0.1, 0.1)).run(progress=False)
    with pytest.raises(hpx.InputError, match=r"do not tell trials 0 and 1 apart. Their hyperparameters are the same"):
        twice.grid()
    alone = hpx.Sweep(quadratic(10, 5), RATES, sampler=rates(0.1)).run(progress=False)
    assert alone.grid() == ((), 0)
    fewer = hpx.Sweep(quadratic(10, 5), space, sampler=hpx.Manual(points[1:])).run(progress=False)
    with pytest.raises(hpx.InputError, match=r"no trial with rate=0.4, kind=a, size=2. Train the whole grid: hpx"):
        fewer.grid()


def test_csv_reads_back(result, tmp_path):
    result.to_csv(tmp_path / "t.csv")
    frame = pd.read_csv(tmp_path / "t.csv")
    np.testing.assert_allclose(frame["valid/loss"], result.table()["valid/loss"])
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[3]["valid/loss"] == ""
    assert rows[3]["rate"] == "1000000"


def test_final_states(result):
    for trial, rate in enumerate(RATE_LIST):
        if rate < 1:
            np.testing.assert_allclose(result[trial].restore(1)["w"], 1 - closed_form(rate, 10), rtol=1e-5)
    with pytest.raises(hpx.RunError, match="trial 3 diverged at step"):
        result[3].restore()
    with pytest.raises(hpx.InputError, match="must lie in 0 … 4"):
        result[5]


def test_the_directory(directory):
    manifest = json.loads((directory / "manifest.json").read_text())
    assert {"versions", "devices", "command", "created", "sweep", "plan"} <= manifest.keys()
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["sweep"]["seed"] == 0
    assert manifest["sweep"]["space"] == {"alternative 0": {"rate": "LogUniform(0.001, 1000000)"}}
    with sqlite3.connect(directory / "results.sqlite") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        rows = database.execute("SELECT wave, segment, metric FROM curves ORDER BY 1, 2, 3").fetchall()
    names = ["replicate", "seconds", "step", "train/loss", "trial", "valid/loss"]
    assert rows == [(0, segment, name) for segment in (0, 1) for name in names], "one row a (segment, group, metric)"
    database.close()


def test_it_loads_where_the_model_is_unknown(directory):
    code = (
        "import sys, hpjax; r = hpjax.load(sys.argv[1]); r.best.restore(); r.summary(); r.table();"
        "assert not {'flax', 'optax', 'tests'} & set(sys.modules), sorted(sys.modules); print(r.best.id)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True)
    assert done.stdout.strip() == "2", done.stderr


def test_a_finished_directory_is_read_and_nothing_trains(directory):
    sweep = hpx.Sweep(quadratic(10, 5), RATES, replicates=2, sampler=rates(*RATE_LIST), width=4)
    with compilations() as programs:
        again = sweep.run(directory, progress=False)
        assert list(sweep.events(directory)) == []
    assert programs == []
    assert again.best.id == 2


def test_a_directory_keeps_its_width(tmp_path):
    """One device would choose another width than four; the bits belong to the one that is recorded."""
    four, one = (hpx.Sweep(quadratic(10, 5), RATES, trials=8, devices=n) for n in (4, 1))
    assert (four.plan().widths, one.plan().widths) == ((2,), (8,))
    first = four.run(tmp_path / "run", progress=False)
    assert same_bits(one.run(tmp_path / "run", progress=False).curves("valid/loss"), first.curves("valid/loss"))
    with pytest.raises(hpx.RunError, match=r"width: \[2\] there, \[4\] here"):
        hpx.Sweep(quadratic(10, 5), RATES, trials=8, width=4).run(tmp_path / "run", progress=False)


def test_what_changes_the_bits_is_refused(tmp_path):
    """Settings of a scheduler, arrays that the code closes over, and code that only some groups run."""
    import jax.numpy as jnp

    def sweep(keep=2, target=1.0, other=2.0):
        array = np.full(3, target)

        def step(key, w, batch, h):
            goal = array if h.kind == "a" else other
            return w - 0.1 * (w - goal), {"loss": jnp.mean(w)}

        program = hpx.Program(
            lambda key, h: jnp.zeros(3), step, lambda k, w, s, h: {"loss": jnp.mean(w)}, steps=4, eval_every=2
        )
        return hpx.Sweep(program, hpx.Space(kind=hpx.Choice("a", "b")), sampler=hpx.Grid(), scheduler=Keep(keep))

    first = sweep().run(tmp_path / "run", progress=False)
    assert same_bits(sweep().run(tmp_path / "run", progress=False).last("valid/loss"), first.last("valid/loss"))
    for changed, word in (({"keep": 1}, "scheduler"), ({"target": 2.0}, "code"), ({"other": 3.0}, "code")):
        with pytest.raises(hpx.RunError, match=word):
            sweep(**changed).run(tmp_path / "run", progress=False)


def test_the_directory_is_free_again_when_something_else_than_an_event_fails(tmp_path, monkeypatch):
    sweep = hpx.Sweep(quadratic(), RATES, sampler=rates(0.1, 0.2))
    monkeypatch.setattr(Progress, "update", lambda *_: 1 / 0)
    try:
        sweep.run(tmp_path / "run", progress=False)
    except ZeroDivisionError as error:
        kept = error  # and with it its frames, and the events
    monkeypatch.undo()
    assert sweep.run(tmp_path / "run", progress=False).best.id == 1
    del kept


class Slotted(hpx.Scheduler):
    __slots__ = ("children", "keep", "rule")

    def __init__(self, keep, rule=sorted):
        self.keep, self.rule, self.children = keep, rule, [Keep(1), lambda x: x]

    def decide(self, race):
        return (trial for trial in self.rule(race.scores)[self.keep :])


def test_a_scheduler_is_told_by_its_settings(tmp_path):
    """Addresses are none of them, slots are; and what it answers may be a generator."""
    first, again, other = (
        hpx.Sweep(quadratic(), RATES, sampler=rates(0.1, 0.2, 0.3), scheduler=Slotted(keep)) for keep in (2, 2, 1)
    )
    result = first.run(tmp_path / "run", progress=False)
    assert result.statuses.tolist() == ["complete", "complete", "stopped"]
    with compilations() as programs:
        again.run(tmp_path / "run", progress=False)
    assert programs == []
    with pytest.raises(hpx.RunError, match=r"scheduler: .*keep=2.* there, .*keep=1.* here"):
        other.run(tmp_path / "run", progress=False)


class Wrapped:
    def __init__(self, inner):
        self.inner = inner


class Private:
    __slots__ = ("__k",)

    def __init__(self, k):
        self.__k = k


def keeping(k):
    return lambda scores: sorted(scores)[k:]


@pytest.mark.parametrize(
    "make",
    [
        lambda k: Wrapped(Keep(k)),
        lambda k: Wrapped([Keep(k)]),
        lambda k: Wrapped({"a": functools.partial(max, k)}),
        lambda k: Wrapped(keeping(k)),
        Private,
        Keep,
        lambda k: Wrapped(lambda scores: scores[1:]) if k == 1 else Wrapped(lambda scores: scores[2:]),
    ],
)
def test_schedulers_that_differ_are_told_apart_however_deep(make):
    from hpjax.sweep.identity import _described

    assert _described(make(1)) == _described(make(1)) != _described(make(2))
    assert "0x" not in _described(make(1))


def test_a_state_whose_group_still_runs_is_not_there_yet(tmp_path):
    class StopLast(hpx.Scheduler):
        def decide(self, race):
            return {max(race.live)} if len(race.live) > 2 else ()

    sweep = hpx.Sweep(quadratic(10, 5), RATES, sampler=rates(0.1, 0.2, 0.3), scheduler=StopLast())
    events = sweep.events(tmp_path / "run")
    while next(events).kind != "decision":
        pass
    with pytest.raises(hpx.RunError, match="the final state of trial 2 is not there yet"):
        hpx.load(tmp_path / "run")[2].restore()
    events.close()


def test_a_scheduler_sees_replicates_as_one_and_diverged_ones_as_hopeless():
    import jax.numpy as jnp

    seen = []

    class Watch(hpx.Scheduler):
        def decide(self, race):
            seen.append(race.scores)
            return [t for t, score in race.scores.items() if np.isinf(score)]

    def step(key, state, batch, h):
        return state + 1, {"loss": jnp.where((h.rate > 0.3) & (jax.random.uniform(key) < 0.2), jnp.nan, 0.0)}

    program = hpx.Program(
        lambda k, h: jnp.zeros(()), step, lambda k, s, v, h: {"loss": h.rate * s}, steps=6, eval_every=3
    )
    sweep = hpx.Sweep(program, RATES, sampler=rates(0.5, 0.2), replicates=4, scheduler=Watch())
    result = sweep.run(progress=False)
    assert seen[0] == {0: np.inf, 1: pytest.approx(0.6)}
    assert set(result.lane_status[0]) == {"diverged", "stopped"}
    assert (result.lane_status[1] == "complete").all()


@pytest.mark.parametrize("answer", [None, 3, [99], np.array([True, False]), ["a"]])
def test_a_scheduler_that_answers_nonsense(answer):
    class Bad(hpx.Scheduler):
        def decide(self, race):
            return answer

    with pytest.raises(hpx.InputError, match="must give ids of live trials"):
        hpx.Sweep(quadratic(), RATES, sampler=rates(0.1, 0.2), scheduler=Bad()).run(progress=False)


def test_a_directory_that_nobody_may_write_can_be_read(directory, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    for name in ("results.sqlite-wal", "results.sqlite-shm"):
        (copy / name).unlink(missing_ok=True)
    for part in (copy / "states", copy, *copy.parents):
        if str(part).startswith(tempfile.gettempdir() + "/"):
            part.chmod(0o555 if part == copy else 0o755)
    # As nobody, for root may write anywhere; what root alone may read is imported before.
    code = (
        "import mmap, os, sys, sqlite3, urllib.parse, ml_dtypes, hpjax; load = hpjax.load;"
        "os.getuid() or (os.setgid(65534), os.setuid(65534));"
        "r = load(sys.argv[1]); r.best.restore(); print(r.best.id)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True)
    copy.chmod(0o755)
    assert done.stdout.strip() == "2", done.stderr


def test_a_run_killed_before_its_tables_were_there_can_begin_anew(tmp_path):
    sweep = hpx.Sweep(quadratic(), RATES, sampler=rates(0.1, 0.2, 0.3, 0.4))
    sweep.events(tmp_path / "run").close()
    for content in (b"", b"half a database"):
        (tmp_path / "run" / "results.sqlite").write_bytes(content)
        (tmp_path / "run" / "results.sqlite-wal").unlink(missing_ok=True)
        events = sweep.events(tmp_path / "run")
        next(events)
        events.close()
    assert sweep.run(tmp_path / "run", progress=False).statuses.tolist() == ["complete"] * 4


def test_tuples_and_choices_come_back_as_they_were(tmp_path):
    import jax.numpy as jnp

    space = hpx.Space(units=hpx.Choice((64, 64), (128,), None), rate=hpx.Uniform(0, 1))
    program = hpx.Program(
        lambda k, h: jnp.zeros(()), lambda k, s, b, h: (s, {}), lambda k, s, v, h: {"loss": h.rate}, steps=1
    )
    result = hpx.Sweep(program, space, trials=6).run(tmp_path / "run", progress=False)
    again = hpx.Sweep(program, space, sampler=hpx.Manual([t.hparams for t in hpx.load(tmp_path / "run")]))
    assert len(again.run(progress=False)) == len(result) == 6
    assert result.best.restore().shape == ()
    assert result.table()["units"].tolist().count(None) == 3, "an option, not a missing value"
    axis = plot_data.axis(result, "units", "valid/loss")
    assert (sorted(axis.categories), len(axis.trials)) == (["(128,)", "(64, 64)", "None"], 6)
    result.plot()


def test_an_interrupted_run_begins_anew_with_the_same_bits(directory, tmp_path):
    sweep = hpx.Sweep(quadratic(10, 5), RATES, replicates=2, sampler=rates(*RATE_LIST), width=4)
    events = sweep.events(tmp_path / "run")
    for event in events:
        if event.kind == "segment":
            break
    part = hpx.load(tmp_path / "run")  # readable while it runs
    assert part.best.status == "running"
    assert part.best.step == 5
    assert part.curves("valid/loss").shape == (5, 2, 1)
    with pytest.raises(hpx.RunError, match="is still running, or was interrupted"):
        part.best.restore()
    with pytest.raises(hpx.RunError, match="another run is writing to"):
        sweep.run(tmp_path / "run", progress=False)
    events.close()
    whole = sweep.run(tmp_path / "run", progress=False)
    assert same_bits(whole.curves("valid/loss"), hpx.load(directory).curves("valid/loss"))


def test_events_tell_what_happens():
    sweep = hpx.Sweep(quadratic(10, 5), RATES, sampler=rates(*RATE_LIST), width=4)
    events = list(sweep.events())
    assert [e.kind for e in events] == ["compile", "compiled", "segment", "segment"]
    first, last = events[2:]
    assert (first.step, first.steps, first.live, first.lanes) == (5, 10, 4, 5)
    assert [c.status for c in first.changes] == ["diverged"]
    assert first.evaluated[0].tolist() == [0, 1, 2, 4]
    np.testing.assert_allclose(first.metrics["valid/loss"][0], closed_form(0.05, 5) ** 2, rtol=1e-5)
    assert {c.status for c in last.changes} == {"complete"}
    assert last.best[0] == 2


def test_conditional_hyperparameters_in_the_table():
    space = hpx.Space(rate=0.1) & (hpx.Space(kind="a", x=hpx.Choice(1, 2)) | hpx.Space(kind="b", act=nn.relu))
    result = hpx.Sweep(quadratic(), space, sampler=hpx.Grid()).run(progress=False)
    table = result.table()
    assert table["kind"].tolist() == ["a", "a", "b"]
    np.testing.assert_array_equal(table["x"], [1, 2, np.nan])
    assert table["act"].tolist() == [None, None, "relu"]


def test_a_broken_directory_is_named(directory, tmp_path):
    with pytest.raises(hpx.RunError, match="is no run directory"):
        hpx.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(hpx.RunError, match="no manifest of format"):
        hpx.load(tmp_path)
    shutil.copy(directory / "manifest.json", tmp_path)
    with pytest.raises(hpx.RunError, match=r"results.sqlite cannot be read"):
        hpx.load(tmp_path)
    shutil.copytree(directory, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").write_text('{"format": 2, "sweep": {"objective": ["a", "minimize"]}}')
    with pytest.raises(hpx.RunError, match="damaged, or of another version"):
        hpx.load(tmp_path / "copy")


def test_ranking():
    """Complete trials first, then those that ran longer; ties to the lower id; diverged ones never."""
    values = np.array([[3.0, 1.0], [2.0, 2.0], [0.1, np.nan], [1.0, 1.0], [1.5, 0.5], [0.0, 0.0], [0.2, 0.2]])
    names = ["complete", "complete", None, "stopped", "complete", "stopped", "running"]
    status = np.array([["complete", "diverged"] if name is None else [name] * 2 for name in names])
    step = np.array([[9, 9], [9, 9], [9, 3], [5, 5], [9, 9], [4, 4], [4, 4]])
    assert Objective("m", "minimize").rank(values, status, step) == [4, 0, 1, 3, 5, 6]
    assert Objective("m", "maximize").rank(values, status, step) == [0, 1, 4, 3, 6, 5]


def test_bfloat16_states_come_back(tmp_path):
    import jax.numpy as jnp

    program = hpx.Program(
        lambda k, h: {"w": jnp.full(3, 0.5, jnp.bfloat16), "nested": (jnp.zeros(2, jnp.int8), [jnp.ones(())])},
        lambda k, s, b, h: (s, {}),
        lambda k, s, v, h: {"loss": h.rate},
        steps=1,
    )
    result = hpx.Sweep(program, RATES, sampler=rates(0.1)).run(tmp_path / "run", progress=False)
    for loaded in (result, hpx.load(tmp_path / "run")):
        state = loaded.best.restore()
        assert state["w"].dtype == jnp.bfloat16
        assert (state["w"] == 0.5).all()
        assert state["nested"][0].dtype == np.int8
        assert state["nested"][1][0] == 1


def test_a_trial_whose_replicate_diverged_does_not_rank():
    import jax.numpy as jnp

    def step(key, state, batch, h):
        return state + 1, {"loss": jnp.where((h.rate > 0.3) & (jax.random.uniform(key) < 0.3), jnp.nan, 0.0)}

    program = hpx.Program(lambda k, h: jnp.zeros(()), step, lambda k, s, v, h: {"loss": h.rate}, steps=3)
    result = hpx.Sweep(program, RATES, sampler=rates(0.5, 0.2), replicates=4).run(progress=False)
    assert 0 < (result.lane_status[0] == "diverged").sum() < 4
    assert result.statuses.tolist() == ["diverged", "complete"]
    assert result.ranking == [1]
