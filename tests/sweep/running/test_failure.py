"""A group that cannot train leaves the others: its trials are recorded with the reason, and tried again on resuming."""

import dataclasses
import os
import sqlite3
import warnings
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.core.errors import RunError
from hpjax.engine.device_lanes import DeviceLanes
from hpjax.results.store.run_store import Store
from hpjax.sweep.planning import programs as groups
from tests.support.compare import same_bits
from tests.support.failing import FULL, Failing


def called_back(kind, step):
    """Raises for the kinds that the environment names, which is no part of the program: it is other every time."""
    kinds, after = os.environ.get("BROKEN", ""), int(os.environ.get("BROKEN_AFTER", "10"))
    if str(int(kind)) in kinds and step > after:
        raise LookupError(f"kind {int(kind)} is broken")
    return np.float32(0)


def program(callback=True):
    """Descent on (w − 1)² of 20 steps, w after t steps being 1 − (1 − rate)^t; kinds differ in their programs."""

    def step(key, state, batch, h):
        w, t = state
        if callback:
            w = w + jax.pure_callback(
                called_back, jax.ShapeDtypeStruct((), jnp.float32), h.kind, t, vmap_method="sequential"
            )
        return (w - h.rate * (w - 1), t + 1), {}

    def evaluate(key, state, split, h):
        return {"loss": (state[0] - 1) ** 2}

    return hpx.Program(lambda key, h: (jnp.zeros(()), jnp.int32(0)), step, evaluate, steps=20, eval_every=5)


SPACE = hpx.Space(rate=hpx.LogUniform(0.01, 0.5), kind=hpx.Choice(1, 2, 3, static=True))
POINTS = [{"rate": 0.02 * (i + 1), "kind": 1 + i % 3} for i in range(12)]
CALLED, PLAIN = program(), program(callback=False)


def sweep(made=CALLED, points=POINTS, **changes):
    return hpx.Sweep(made, SPACE, sampler=hpx.Manual(points), width=2, devices=1, **changes)


def of_kind(kind, points=POINTS):
    return [trial for trial, point in enumerate(points) if point["kind"] == kind]


def losses(rates):
    """The loss after 20 steps by its closed form."""
    return (1 - np.asarray(rates)) ** 40


@pytest.fixture
def broken(monkeypatch):
    """Has kinds fail, after so many steps."""

    def begin(*kinds, after=10):
        monkeypatch.setenv("BROKEN", "".join(map(str, kinds)))
        monkeypatch.setenv("BROKEN_AFTER", str(after))

    return begin


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "group . failed", RuntimeWarning)
        yield


@pytest.fixture(scope="module")
def whole():
    return sweep().run(progress=False)


def check_others(result, whole, failed):
    """All other trials have the bits that they have without a failure, and the values of the closed form."""
    others = [trial for trial in range(len(result)) if trial not in failed]
    assert result.statuses[others].tolist() == ["complete"] * len(others)
    assert result.statuses[failed].tolist() == ["failed"] * len(failed)
    assert same_bits(result.curves("valid/loss")[others], whole.curves("valid/loss")[others])
    np.testing.assert_allclose(
        result.last("valid/loss")[others, 0], losses([POINTS[trial]["rate"] for trial in others]), rtol=1e-4, atol=1e-9
    )
    assert result.ranking == [trial for trial in whole.ranking if trial in others]
    assert all(same_bits(result[trial].restore()[0], whole[trial].restore()[0]) for trial in others[:3])


def test_an_error_of_a_callback_fails_its_group_only(broken, whole):
    broken(2)
    with pytest.warns(RuntimeWarning, match="group 1 failed, and 4 trials with it: a function that the program of"):
        result = sweep().run(progress=False)
    failed = of_kind(2)
    check_others(result, whole, failed)
    assert list(result.failures) == failed
    (reason,) = {*result.failures.values()}
    assert "test_failure.py:" in reason
    assert reason.endswith("LookupError: kind 2 is broken")
    assert np.isnan(result.last("valid/loss")[failed]).all()
    assert np.isfinite(result.curves("valid/loss")[failed][..., 0]).all(), "what was measured before"
    with pytest.raises(RunError, match="trial 1 failed, and has no final state: a function"):
        result[1].restore()
    with pytest.raises(RunError, match="trial 1 failed, and there is nothing to compare with"):
        sweep().replay(result[1])
    assert "8 complete, 4 failed" in repr(result)
    assert f"failed: trials 1, 4, 7, 10: {reason}" in repr(result)
    assert result.table()["status"].tolist() == result.statuses.tolist()
    assert ("failed", reason) in {(each.what, each.sentence) for each in hpx.diagnose(result) if each.trial == 1}
    result.plot()


def test_the_event_of_a_failure_and_what_is_spared(broken):
    broken(2)
    events = list(sweep().events())
    (event,) = (each for each in events if each.kind == "group_failed")
    assert (event.group, event.lanes) == (1, 4)
    assert sorted(change.trial for change in event.changes) == of_kind(2)
    assert {change.status for change in event.changes} == {"failed"}
    done = [each.lane_steps for each in events if each.kind == "segment" and each.group == 1]
    assert event.spared + sum(done) == 4 * 20


@pytest.mark.parametrize("error", ["compile", "memory", "trace"])
def test_a_program_that_cannot_be_made_fails_its_group_only(error, monkeypatch):
    made, plain = groups.compiling, sweep(PLAIN).run(progress=False)
    plan = sweep(PLAIN).plan()
    h = plan.points[0] | {"kind": 3}
    wrong = dataclasses.replace(PLAIN, step=lambda key, state: (state, {}))

    def compiling(config, given, *arguments):
        if given.kind != h["kind"]:
            return made(config, given, *arguments)
        if error == "compile":
            return Failing(NotImplementedError("MLIR translation rule for primitive 'such' not found"))
        if error == "trace":
            return made(config._replace(program=wrong), given, *arguments)
        return Failing(FULL)

    monkeypatch.setattr(groups, "compiling", compiling)
    result = sweep(PLAIN).run(progress=False)
    check_others(result, plain, of_kind(3))
    (reason,) = {*result.failures.values()}
    assert {"compile": "translation rule", "memory": "one lane at a time", "trace": "TypeError"}[error] in reason


def test_a_run_of_which_all_groups_fail_raises(broken, tmp_path):
    broken(1, 2, 3)
    with pytest.raises(RunError, match="calls on the host fails"):
        sweep().run(tmp_path / "run", progress=False)
    broken()
    assert sweep().run(tmp_path / "run", progress=False).statuses.tolist() == ["complete"] * 12


def test_what_failed_is_tried_again(broken, whole, tmp_path):
    directory = tmp_path / "run"
    broken(1, 3)
    assert (sweep().run(directory, progress=False).statuses == "failed").sum() == 8
    assert (sweep().run(directory, progress=False).statuses == "failed").sum() == 8, "tried, and failed again"
    broken(3)
    for event in sweep().events(directory, checkpoint_seconds=0):  # killed when one of them trains
        if event.kind == "segment":
            break
    result = sweep().run(directory, progress=False)
    check_others(result, whole, of_kind(3))
    broken()
    events = list(sweep().events(directory))
    assert {event.group for event in events} == {2}
    assert (events[0].kind, events[0].lane_steps) == ("resumed", 8 * 20)
    result = hpx.load(directory)
    check_others(result, whole, [])
    assert not result.failures
    assert not list(sweep().events(directory)), "finished"
    assert not (directory / "checkpoints").exists()
    with closing(Store.open(directory)) as store:
        assert store.ends() == 1
    longer = sweep(dataclasses.replace(CALLED, steps=25)).run(directory, progress=False, extend=True)
    assert longer.statuses.tolist() == ["complete"] * 12
    np.testing.assert_allclose(longer.last("valid/loss")[1, 0], (1 - 0.04) ** 50, rtol=1e-4)


def test_an_interrupted_run_tries_again_what_failed_before(broken, whole, tmp_path):
    broken(1)
    events = sweep().events(tmp_path / "run", checkpoint_seconds=0)
    seen = [next(events).kind for _ in range(12)]
    assert "group_failed" in seen
    events.close()
    broken()
    result = sweep().run(tmp_path / "run", progress=False)
    check_others(result, whole, [])


def test_a_finished_wave_of_a_group_stays(broken, whole, monkeypatch):
    """The second wave of a group fails: its trials alone."""
    monkeypatch.setattr("hpjax.sweep.planning.arrangement.HOST_BYTES", 1)
    calls, dispatch = [], DeviceLanes.dispatch

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) > 6:  # of four segments a wave of two trials
            raise jax.errors.JaxRuntimeError("INTERNAL: no such device")
        return dispatch(self, *arguments)

    monkeypatch.setattr(DeviceLanes, "dispatch", failing)
    points = [point | {"kind": 1} for point in POINTS[:4]]
    result = sweep(points=points).run(progress=False)
    assert result.statuses.tolist() == ["complete"] * 2 + ["failed"] * 2
    assert result.failures[3].startswith("its program fails: ")
    assert result.failures[3].endswith("JaxRuntimeError: INTERNAL: no such device")


def test_a_fault_of_the_store_is_no_failure_of_a_group(monkeypatch):
    def full(self, *arguments):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "add_curves", full)
    with pytest.raises(RunError, match="cannot be written: database or disk is full"):
        sweep(PLAIN).run(progress=False)


def test_halving_ends_without_a_group(broken):
    """Of 12 that started the best half goes on at each rung, then 3: a failed trial has lost, like one that diverged.

    The loss falls with the rate: 6 to 11 pass the first rung, of which 8 and 11 fail, and 7, 9 and 10 the second.
    """
    broken(3, after=5)
    result = sweep(scheduler=hpx.Halving(factor=2, min_steps=5)).run(progress=False)
    assert result.statuses[of_kind(3)].tolist() == ["failed"] * 4
    others = result.lane_step[:, 0][[t for t in range(12) if t not in of_kind(3)]]
    assert sorted(others.tolist()) == [5, 5, 5, 5, 10, 20, 20, 20]
    assert result.ranking[:4] == [10, 9, 7, 6]


def test_a_population_ends_without_a_group(broken, tmp_path):
    broken(2, after=7)
    given = sweep(scheduler=hpx.PBT(every=5))
    result = given.run(tmp_path / "run", progress=False)
    assert result.statuses.tolist() == ["failed" if t in of_kind(2) else "complete" for t in range(12)]
    failed = {*of_kind(2)}
    assert not [clone for clone in result.lineage if clone.step > 5 and {clone.trial, clone.source} & failed]
    broken()
    assert not list(given.events(tmp_path / "run")), "a scheduler decided without it: it is not tried again"


def test_an_interrupted_race_goes_on_without_the_group_that_failed(broken, tmp_path):
    given = sweep(scheduler=hpx.Halving(factor=2, min_steps=5))
    broken(3, after=5)
    expected = given.run(progress=False)
    for event in given.events(tmp_path / "run", checkpoint_seconds=0):
        if event.kind == "decision" and event.step == 10:
            break
    broken()
    result = given.run(tmp_path / "run", progress=False)
    assert result.statuses.tolist() == expected.statuses.tolist()
    assert (result.lane_step == expected.lane_step).all()


def test_a_round_that_lost_a_group_ends_and_the_next_one_is_asked_for(broken, tmp_path):
    points = hpx.Space(rate=SPACE.branches[0]["rate"], kind=hpx.Choice(1, 2, static=True))
    given = hpx.Sweep(CALLED, points, trials=8, rounds=2, sampler=hpx.Bayes(initial=4), width=2, devices=1, seed=3)
    broken(2)
    result = given.run(tmp_path / "run", progress=False)
    kinds = np.array([hparams["kind"] for hparams in result.hparams])
    assert {*kinds[:4]} == {1, 2}
    assert (result.statuses == np.where(kinds == 2, "failed", "complete")).all()
    assert given.models(hpx.load(tmp_path / "run")).points() == result.hparams


def test_shards_with_failures_merge(broken, tmp_path):
    broken(2)
    for number in (1, 2):
        sweep(shard=(number, 2)).run(tmp_path / str(number), progress=False)
    result = hpx.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "whole")
    assert result.statuses.tolist() == ["failed" if t in of_kind(2) else "complete" for t in range(12)]
    assert list(result.failures) == of_kind(2)
    assert not list(sweep().events(tmp_path / "whole"))


def test_a_run_with_failures_is_not_extended(broken, tmp_path):
    broken(2)
    sweep().run(tmp_path / "run", progress=False)
    with pytest.raises(RunError, match=r"trial 1 in .* failed: .* without extending it, which tries again what failed"):
        sweep(dataclasses.replace(CALLED, steps=25)).run(tmp_path / "run", progress=False, extend=True)


def test_what_failed_is_failed_for_optuna(broken, tmp_path):
    optuna = pytest.importorskip("optuna")
    broken(2)
    sweep().run(progress=False).to_optuna(tmp_path / "study.log")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    (study,) = optuna.get_all_study_summaries(optuna.storages.JournalStorage(backend))
    trials = optuna.load_study(study_name=study.study_name, storage=optuna.storages.JournalStorage(backend)).trials
    assert [each.state.name for each in trials] == ["FAIL" if t in of_kind(2) else "COMPLETE" for t in range(12)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DELETE FROM failures WHERE trial = 4", "of trial 4 there is a failure without a reason"),
        ("INSERT INTO failures VALUES (0, 'why')", "of trial 0 there is a failure without a reason, or a reason"),
        ("UPDATE failures SET reason = char(27)", "which no run writes"),
        ("UPDATE failures SET reason = x'00'", "failures.reason"),
    ],
)
def test_a_damaged_record_of_failures_is_refused(change, told, broken, tmp_path_factory):
    broken(2)
    directory = tmp_path_factory.mktemp("damaged") / "run"
    sweep().run(directory, progress=False)
    with closing(sqlite3.connect(directory / "results.sqlite")) as database:
        database.execute("PRAGMA ignore_check_constraints=ON")
        database.execute(change)
        database.commit()
    with pytest.raises(RunError, match=told):
        hpx.load(directory)
