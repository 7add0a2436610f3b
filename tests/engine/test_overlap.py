"""The next segment is dispatched before the last is collected, and groups compile ahead."""

import numpy as np
import pytest

import hpjax as hpx
from hpjax.engine import compile as compiling
from hpjax.engine.device_lanes import DeviceLanes
from hpjax.sweep.planning import programs as groups
from hpjax.sweep.running import wave
from tests.support.compare import same_bits
from tests.support.counting import OF_A_GROUP, compilations
from tests.support.lanes import lanes_of
from tests.support.programs import RATES, quadratic, rates


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the devices, in its order: segments dispatched (+) and collected (-), by their last step."""
    found, in_flight = [], []
    dispatch, collect = DeviceLanes.dispatch, DeviceLanes.collect

    def dispatched(self, stop, *args):
        found.append(+stop)
        in_flight.append(stop)
        dispatch(self, stop, *args)

    def collected(self):
        found.append(-in_flight.pop(0))
        return collect(self)

    monkeypatch.setattr(DeviceLanes, "dispatch", dispatched)
    monkeypatch.setattr(DeviceLanes, "collect", collected)
    return found


def sweep(**changes):
    return hpx.Sweep(quadratic(20, 5), RATES, sampler=rates(0.1, 0.2, 0.3), **changes)


def test_the_next_segment_is_dispatched_before_the_last_is_collected(calls):
    sweep().run(progress=False)
    assert calls == [5, 10, -5, 15, -10, 20, -15, -20]


def test_where_a_checkpoint_is_due_nothing_is_dispatched_beyond_it(calls, tmp_path):
    sweep().run(tmp_path, progress=False, checkpoint_seconds=0)
    assert calls == [5, -5, 10, -10, 15, -15, 20, -20]


def test_a_scheduler_decides_before_anything_is_dispatched_beyond(calls):
    sweep(scheduler=hpx.Halving(factor=3, min_steps=10)).run(progress=False)
    assert calls == [5, 10, -5, -10, 15, 20, -15, -20]


def test_lanes_that_end_while_the_next_segment_is_on_its_way(tmp_path):
    """One of three diverges in the first segment; the second is dispatched before the host knows."""
    points = rates(0.1, 1e6, 0.2)
    program = quadratic(20, 5)
    ahead = hpx.Sweep(program, RATES, sampler=points, width=1, devices=1).run(progress=False)
    behind = hpx.Sweep(program, RATES, sampler=points, width=1, devices=1)
    behind = behind.run(tmp_path, progress=False, checkpoint_seconds=0)
    assert same_bits(ahead.curves("valid/loss"), behind.curves("valid/loss"))
    for trial in (0, 2):
        assert same_bits(ahead[trial].restore()["w"], behind[trial].restore()["w"])
    assert ahead.statuses.ravel().tolist() == ["complete", "diverged", "complete"]
    np.testing.assert_allclose(ahead[0].restore()["w"], 1 - 0.8**20, rtol=1e-5)
    np.testing.assert_allclose(ahead[2].restore()["w"], 1 - 0.6**20, rtol=1e-5)


def test_a_lane_that_ended_does_nothing_in_a_segment_dispatched_before_it_was_known():
    lanes, _ = lanes_of(quadratic(), count=3, width=1)
    lanes._table.h["rate"][:] = 0.1, 1e6, 0.2
    lanes._arrange()
    lanes.dispatch(5, False)
    lanes.dispatch(9, True)
    first = lanes.collect()
    assert first.iterations == 3
    assert (first.diverged >= 0).tolist() == [False, True, False]
    lanes.retire([1])
    assert lanes.moves
    second = lanes.collect()
    assert second.iterations == 2, "a chunk whose lane ended is not computed"
    assert second.lanes.tolist() == [0, 2]
    state = lanes.gathered()
    assert state.step.tolist() == [9, 5, 9]
    np.testing.assert_allclose(state.state[0][[0, 2], 0], [1 - 0.8**9, 1 - 0.6**9], rtol=1e-5)
    assert lanes.advance(10, False).iterations == 2


def in_groups():
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1e-1), size=hpx.Choice(2, 3, 4, static=True))
    return hpx.Sweep(quadratic(4, 2, size=lambda h: h.size), space, trials=6)


def test_the_next_groups_compile_while_one_trains(calls, monkeypatch):
    asked, compile_one = [], compiling.compiling

    def noted(recipe, h, *args):
        asked.append(("compile", h.size, len(calls)))
        return compile_one(recipe, h, *args)

    monkeypatch.setattr(groups, "compiling", noted)
    monkeypatch.setattr(wave, "COMPILE_THREADS", 2)
    with compilations() as programs:
        in_groups().run(progress=False)
    assert sorted(programs) == sorted(OF_A_GROUP * 3), "nothing twice"
    # The first alone before anything trains; the second while the first one's evaluation compiles, before its second
    # segment; the third once the second has two segments on their way.
    assert [before for _, _, before in asked] == [0, 1, 6]
    assert len({size for _, size, _ in asked}) == 3


def test_device_calls_look_at_no_folder(monkeypatch):
    """The folder of compiled programs is made and tried when something is compiled, not once a segment."""
    looked = []
    monkeypatch.setattr(compiling, "keep_compiled", lambda: looked.append(1))
    hpx.Sweep(quadratic(40, 2), hpx.Space(rate=hpx.Choice(0.1, 0.2)), sampler=hpx.Grid()).run(progress=False)
    assert len(looked) == len(OF_A_GROUP)


def test_a_group_whose_compilation_fails_says_so_when_it_is_its_turn(monkeypatch):
    def broken(self, name):
        raise RuntimeError("no compiler today")

    monkeypatch.setattr(compiling.Compiled, "lower", broken)
    with pytest.raises(RuntimeError, match="no compiler today"):
        sweep().run(progress=False)
    monkeypatch.undo()
    assert len(sweep().run(progress=False)) == 3
