"""The pace: what earlier runs took, and how busy the machine is, scale what plans show, and decide nothing."""

import dataclasses
import json

import flax.linen as nn
import optax
import pytest

import hpjax as hpx
from hpjax.engine.shapes import ProgramShapes
from hpjax.studies.batch_scaling import _estimated_seconds
from hpjax.sweep.planning import pace as paces
from hpjax.sweep.planning.pace import BUSIEST, MOST, RUNS, Kept, Pace, pace, recall, remember
from hpjax.sweep.running import timing
from hpjax.sweep.running.events import SegmentFinished
from hpjax.sweep.running.timing import Timing
from tests.support.programs import RATES, blobs, quadratic

ONE = 1, "cpu"


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder of a machine that is idle, on which nothing ran."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(paces, "busy", lambda: 1.0)
    monkeypatch.setattr(paces, "speed", lambda: 1.0)
    paces._pace.cache_clear()
    yield tmp_path / "cache" / "hpjax" / "pace"
    paces._pace.cache_clear()


@pytest.fixture
def another_process():
    return paces._pace.cache_clear


def sweep(**changes):
    return hpx.Sweep(quadratic(20, 5), RATES, trials=64, devices=1, **changes)


def test_estimates_scale_by_what_runs_took(another_process):
    before = sweep().plan()
    assert before.pace == Pace()
    assert "by a rough estimate" in str(before)
    for _ in range(3):
        remember(ONE, "compiling", 6.0, 2.0)
        remember(ONE, "running", 1.0, 4.0)
    assert str(sweep().plan()) == str(before), "all plans of a process agree"
    another_process()
    after = sweep().plan()
    assert after.compile_seconds == pytest.approx(3 * before.compile_seconds)
    assert after.run_seconds == pytest.approx(before.run_seconds / 4)
    assert "as earlier runs here took" in str(after)
    assert hpx.Sweep(quadratic(20, 5), RATES, trials=64, devices=2).plan().pace == Pace(), "on other devices"


def test_before_any_run_a_loop_tells_how_fast_a_core_is(another_process, monkeypatch):
    usual = sweep().plan()
    another_process()
    monkeypatch.setattr(paces, "speed", lambda: 2.0)
    slow = sweep().plan()
    assert slow.compile_seconds == pytest.approx(2 * usual.compile_seconds)
    assert slow.run_seconds == pytest.approx(2 * usual.run_seconds)
    assert "by a rough estimate" in str(slow)
    assert (pace((1, "TPU v4")).compiling, pace((1, "TPU v4")).running) == (2.0, 1.0), "its own cores compute"
    for _ in range(3):
        remember(ONE, "running", 1.0, 1.0)
    another_process()
    assert pace(ONE).running == 1.0, "runs tell better"


def test_the_speed_of_a_core_is_measured_once(monkeypatch):
    monkeypatch.undo()
    first = paces.speed()
    assert 1 / 50 < first < 50
    assert paces.speed() is first


def test_one_odd_run_changes_little(another_process):
    for seconds, expected in ((5.0, 3.0), (1.0, 1.0), (1.0, 1.0)):  # the median, with one run as estimated
        remember(ONE, "running", seconds, 1.0)
        another_process()
        assert pace(ONE).running == expected
    for _ in range(RUNS):
        remember(ONE, "running", 2.0, 1.0)
    assert recall(ONE) == Kept((), (2.0,) * RUNS), "the latest count"


def test_it_is_bounded(another_process):
    for _ in range(3):
        remember(ONE, "compiling", 1e9, 1.0)
        remember(ONE, "running", 1e-9, 1.0)
        remember(ONE, "running", 1.0, 0.0)  # a program that computes nothing
    another_process()
    assert pace(ONE)[:2] == (MOST, 1 / MOST)


def test_a_busy_machine_takes_longer_and_is_not_remembered_as_slow(another_process, monkeypatch):
    idle = sweep().plan()
    another_process()
    monkeypatch.setattr(paces, "busy", lambda: 2.0)
    busy = sweep().plan()
    assert busy.run_seconds == pytest.approx(2 * idle.run_seconds)
    assert busy.compile_seconds == pytest.approx(2 * idle.compile_seconds)
    assert "by a rough estimate; other work slows this machine to 50%" in str(busy)
    assert (pace((1, "TPU v4")).compiling, pace((1, "TPU v4")).running) == (2.0, 1.0)
    remember(ONE, "running", 6.0, 1.0)
    assert recall(ONE).running == (3.0,)


def test_how_busy_a_machine_is_has_bounds(monkeypatch):
    monkeypatch.undo()
    paces.busy.cache_clear()
    assert 1.0 <= paces.busy() <= BUSIEST
    assert paces.busy() == paces.busy()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '{"running": 2}',
        '{"running": [2, "3"]}',
        '{"running": [-1]}',
        '{"running": [1e999]}',
        "[" * 99999,
    ],
)
def test_a_damaged_file_tells_nothing_and_that_is_told_once(content, kept, another_process):
    remember(ONE, "running", 3.0, 1.0)
    (file,) = kept.iterdir()
    assert json.loads(file.read_text()) == {"compiling": [], "running": [3.0]}
    file.write_text(content)
    another_process()
    with pytest.warns(RuntimeWarning, match=rf"{file} cannot be read: .* Delete the file"):
        assert sweep().plan().pace == Pace()
    remember(ONE, "running", 3.0, 1.0)  # warnings are errors: it reads the file again, and tells nothing
    assert recall(ONE).running == (3.0,), "and is replaced"


def test_a_folder_that_cannot_be_written_harms_nothing_and_is_told_once(kept):
    kept.parent.mkdir(parents=True)
    kept.write_text("a file")
    with pytest.warns(RuntimeWarning, match=rf"{kept} cannot be written: File exists\. .* set XDG_CACHE_HOME") as told:
        [remember(devices, "running", 3.0, 1.0) for devices in (ONE, (2, "cpu"))]
    assert len(told) == 1
    assert recall(ONE) == Kept()


def test_several_hosts_go_by_the_estimates(kept, monkeypatch):
    remember(ONE, "running", 8.0, 1.0)
    monkeypatch.setattr(paces, "several", lambda: True)
    assert sweep().plan().pace == Pace()
    remember(ONE, "running", 8.0, 1.0)
    assert recall(ONE).running == (8.0,)


# What it decides: nothing


def test_paddings_and_batches_and_costs_are_decided_as_before(another_process):
    class Net(nn.Module):
        size: int

        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.relu(nn.Dense(self.size)(x)))

    def planned():
        program = hpx.supervised(
            model=lambda h: Net(h.size),
            optimizer=lambda h: optax.sgd(h.rate),
            loss=optax.softmax_cross_entropy_with_integer_labels,
            data=blobs(),
            batch_size=lambda h: h.batch,
            microbatch=4,
            steps=10**6,  # eight times as many, compiled in an eighth of the time, would each have their program
            eval_every=10**6,
        )
        sizes = hpx.Choice(3, 4, 5), hpx.Choice(4, 8)
        own = hpx.Sweep(program, RATES & hpx.Space(size=sizes[0], batch=sizes[1]), trials=9, devices=1)
        return own, own.plan()

    own, before = planned()
    estimated = _estimated_seconds(own)
    for _ in range(3):
        remember(ONE, "compiling", 1.0, 8.0)
        remember(ONE, "running", 8.0, 1.0)
    another_process()
    own, after = planned()
    assert after.pace == Pace(1 / 8, 8.0, 1.0, True)
    assert _estimated_seconds(own) == estimated
    assert [each[0] for each in after.paddings] == [each[0] for each in before.paddings]
    assert len(after.paddings) == 1
    assert after.verdicts == before.verdicts
    assert dataclasses.replace(after, pace=Pace()).run_seconds == before.run_seconds


# What a run remembers


@pytest.fixture
def plan():
    return sweep().plan()


def segment(seconds, lane_steps, waited=0.0):
    return SegmentFinished(
        group=0, groups=1, round=0, lanes=64, step=5, steps=20, live=64, lane_steps=lane_steps, spared=0,
        evaluated=((), ()), metrics={}, changes=(), best=None, seconds=seconds, waited=waited,
    )  # fmt: skip


def test_a_run_remembers_its_training(plan):
    (group,) = plan.groups
    lane_step = sum(plan.estimated_seconds(group))
    times = Timing(plan.devices)
    times.trained(plan, segment(100.0, 320))  # the first of a group may wait for what compiles
    times.trained(plan, segment(timing.LEAST / 2, 320))
    times.close()
    assert recall(ONE) == Kept(), "too short to tell"
    steps = round(timing.LEAST / lane_step)
    times.trained(plan, segment(timing.LEAST + 1.0, steps, waited=1.0))  # a stream was slow
    times.trained(plan, segment(timing.LEAST, steps))
    times.close()
    times.close()
    assert recall(ONE).running == pytest.approx((1.0,), rel=1e-3)
    again = Timing(plan.devices)
    again.compiled(plan, 0, 0.0, 5.0)  # in this process before: the first waits for nothing
    again.trained(plan, segment(2 * timing.LEAST, steps))
    again.close()
    assert recall(ONE).running == pytest.approx((1.0, 2.0), rel=1e-3)


@pytest.mark.parametrize(
    ("waits", "remembered"),
    [
        ([(6.0, 4.0)], (3.0,)),
        ([(6.0, 4.0), (9.0, 4.0)], (3.0,)),  # of later groups part of it passes while others train
        ([(0.1, 4.0), (6.0, 4.0)], ()),  # compiled in this process before
        ([(1.0, 0.1)], ()),  # by an earlier run, which kept it
    ],
)
def test_a_run_remembers_its_wait_for_the_first_program(waits, remembered, plan, monkeypatch):
    monkeypatch.setattr(ProgramShapes, "compile_seconds", 2.0)
    times = Timing(plan.devices)
    for waited, compiling in waits:
        times.compiled(plan, 0, waited, compiling)
    assert recall(ONE).compiling == remembered


def test_runs_remember(monkeypatch):
    monkeypatch.setattr(timing, "LEAST", 0.0)
    monkeypatch.setattr(ProgramShapes, "compile_seconds", 1e-6)  # whatever the tests before this one have compiled
    sweep().run(progress=False)
    assert list(map(len, dataclasses.astuple(recall(ONE)))) == [1, 1]
    sweep().run(progress=False)
    assert list(map(len, dataclasses.astuple(recall(ONE)))) == [2, 2], "another program of the same kind"
