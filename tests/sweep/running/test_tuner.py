"""Widths are measured beside training: nothing waits, the result is that of one width, and later runs know it."""

import dataclasses
import json
import time

import pytest

import hpjax as hpx
from hpjax.engine.compile import Compiled, idle
from hpjax.engine.shapes import ProgramShapes
from hpjax.sweep.planning import contender, rate_cache
from hpjax.sweep.planning.arrange import rate_key
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.width import Measured, Rate
from hpjax.sweep.running import tuner
from hpjax.sweep.running.recorder import Record
from tests.support.compare import same_bits
from tests.support.counting import OF_A_GROUP, compilations
from tests.support.killed import SWEEPS
from tests.support.marks import slow
from tests.support.programs import RATES, blobs, classifier, quadratic

# Lane-steps a second: all steps of these sweeps would take hours at it, and nothing by comparison at FAST.
SLOW, FAST = 0.1, 1e9


def finished_compiling():
    """Waits until nothing compiles any more: these runs would end before the first candidate is compiled."""
    while not idle():
        time.sleep(0.005)
    return True


@pytest.fixture(autouse=True)
def laps(tmp_path, monkeypatch):
    """A machine on which nothing was measured, and each run is worth it; the widths of the calls that are timed."""
    timed = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(rate_cache, "_here", {})
    monkeypatch.setattr(contender, "EACH", 0.0)
    monkeypatch.setattr(tuner, "idle", finished_compiling)
    monkeypatch.setattr(Plan, "run_seconds", 10_000.0)
    return timed


@pytest.fixture
def speeds(laps, monkeypatch):
    """Returns a function that has widths be as many times as fast as it says, and others a tenth."""

    def set_to(base, **ratios):
        def lap(self):
            laps.append(self.width)
            return 1 / (base * ratios.get(f"w{self.width}", 0.1))

        monkeypatch.setattr(contender.Contender, "lap", lap)

    return set_to


def sweep(**changes):
    return hpx.Sweep(quadratic(80, 2), RATES, trials=32, devices=1, **changes)


def fixed(width, made=None):
    return dataclasses.replace(made or sweep(), width=width).run(progress=False)


def assert_same(found, expected):
    """Two results agree in every bit."""
    for metric in ("step", *expected.metrics):
        assert same_bits(found.curves(metric), expected.curves(metric))
    assert (found.lane_status == expected.lane_status).all()
    assert found.lineage == expected.lineage


def ignored(self, value):
    """Sets nothing."""


def measurements(events):
    return [event for event in events if event.kind == "width_measured"]


def test_training_begins_before_anything_is_compiled_or_measured_for_it(speeds, laps):
    speeds(SLOW, w8=1.0, w16=2.0)
    with compilations() as programs:
        events = sweep().events()
        kinds = [next(events).kind for _ in range(3)]
        assert kinds == ["compile", "compiled", "segment"]
        assert sorted(programs) == OF_A_GROUP
        assert laps == []
        assert measurements(events)
    # Of 8, 16 and 32: the first and the second have trained, too.
    of_groups = [name for name in programs if name in OF_A_GROUP]
    assert sorted(of_groups) == sorted([*OF_A_GROUP, *OF_A_GROUP, "jit(advance_lanes)", "jit(start_lanes)"])


def test_a_much_better_width_is_taken_near_the_beginning(speeds, tmp_path):
    speeds(SLOW, w8=1.0, w16=2.0)
    events = list(sweep().events(tmp_path / "run"))
    (told,) = measurements(events)
    assert told.anew
    assert (told.group, told.width, told.seconds > 0) == (0, 16, True)
    assert [(rate.width, rate.speed) for rate in told.rates] == [
        (8, pytest.approx(0.5)),
        (16, 1.0),
        (32, pytest.approx(0.05)),
    ]
    before = events[: events.index(told)]
    assert told.lost == sum(event.lane_steps for event in before if event.kind == "segment") > 0
    found = hpx.load(tmp_path / "run")
    assert set(found.widths) == {16}
    assert_same(found, fixed(16))
    assert "group 0 was measured to be faster than at the width 8: it trains at 16." in "\n".join(found.manifest.plan)
    assert sweep().replay(found[5]).agrees
    # The next one begins with it, and measures nothing.
    rate_cache._here.clear()  # another process
    assert sweep().plan().widths == (16,)
    assert not measurements(sweep().events())


def test_a_run_that_would_gain_too_little_leaves_it_to_the_next(speeds, tmp_path):
    speeds(FAST, w8=1.0, w16=2.0)
    (told,) = measurements(sweep().events(tmp_path / "run"))
    assert (told.anew, told.width, told.lost) == (False, 8, 0)
    found = hpx.load(tmp_path / "run")
    assert_same(found, fixed(8))
    assert any("speed by width at most: 8 → 50%, 16 → 100%" in line for line in found.manifest.plan)
    assert sweep().plan().widths == (16,)
    again = sweep().run(tmp_path / "run", progress=False)
    assert set(again.widths) == {8}, "the directory keeps its width"


@pytest.mark.parametrize("after", [0, 1, 6])
def test_killed_after_it_began_anew_it_goes_on_at_that_width(speeds, laps, tmp_path, after):
    speeds(SLOW, w8=1.0, w16=2.0)
    events = sweep().events(tmp_path, checkpoint_seconds=0.0)
    next(event for event in events if event.kind == "width_measured")
    for _ in range(after):
        next(events)
    events.close()
    laps.clear()
    rest = list(sweep().events(tmp_path))
    assert rest[0].kind == "resumed"
    assert not laps
    found = hpx.load(tmp_path)
    assert set(found.widths) == {16}
    assert_same(found, fixed(16))


def test_the_display_tells_what_was_measured(speeds, capsys):
    speeds(SLOW, w8=1.0, w16=2.0)
    sweep().run()
    assert "speed by width at most: 8 → 50%, 16 → 100%, 32 → 5%, measured in" in (shown := capsys.readouterr().err)
    assert "it begins anew at 16" in shown


@pytest.mark.parametrize(("at", "width"), [("save", 8), ("amend", 16)])
def test_killed_while_it_begins_anew(speeds, tmp_path, monkeypatch, at, width):
    speeds(SLOW, w8=1.0, w16=2.0)
    done = getattr(Record, at)

    def killed(self, *arguments, **waiting):
        if at == "amend" or waiting:
            raise SystemExit
        done(self, *arguments)

    with monkeypatch.context() as context:
        context.setattr(Record, at, killed)
        with pytest.raises(SystemExit):
            list(sweep().events(tmp_path, checkpoint_seconds=0.0))
    found = sweep().run(tmp_path, progress=False)
    assert set(found.widths) == {width}
    assert_same(found, fixed(width))


def test_killed_before_that_it_goes_on_at_the_width_of_its_checkpoint(speeds, laps, tmp_path):
    speeds(SLOW, w8=1.0, w16=2.0)
    events = sweep().events(tmp_path, checkpoint_seconds=0.0)
    for _ in range(4):
        next(events)
    events.close()
    laps.clear()
    found = sweep().run(tmp_path, progress=False)
    assert not laps
    assert_same(found, fixed(8))


@pytest.mark.parametrize("name", ["halving", slow("population"), slow("artifacts")])
def test_others_begin_anew_with_the_same_bits(name, laps, monkeypatch, tmp_path):
    made = dataclasses.replace(SWEEPS[name], width=None, devices=1)
    planned = made.plan().widths

    def lap(self):
        laps.append(self.width)
        return self.width / SLOW  # the narrowest is fastest by far

    monkeypatch.setattr(contender.Contender, "lap", lap)
    events = list(made.events(tmp_path))
    found = hpx.load(tmp_path)
    assert any(told.anew for told in measurements(events))
    widths = [int(found.widths[found.groups == group].min()) for group in range(len(planned))]
    assert tuple(widths) != planned
    assert_same(found, fixed(tuple(widths), made))


def test_a_group_that_has_not_begun_takes_its_width_for_nothing(speeds):
    speeds(FAST, w5=1.0, w9=1.0, w8=1.0, w14=2.0)
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1), size=hpx.Choice(2, 3, static=True))
    points = [{"rate": 0.1, "size": 2}] * 9 + [{"rate": 0.1, "size": 3}] * 40
    program = quadratic(80, 2, size=lambda h: h.size)
    both = hpx.Sweep(program, space, sampler=hpx.Manual(points), devices=1)
    assert both.plan().widths == (5, 8)
    found = both.run(progress=False)
    assert set(found.widths[:9]) == {5}
    assert set(found.widths[9:]) == {14}, "three chunks of forty"
    assert_same(found, fixed((5, 14), both))


def test_it_takes_five_seconds_at_most_and_the_next_run_goes_on(laps, monkeypatch, tmp_path):
    clock, took = [0.0], [0.1]

    def lap(self):
        took[0] = 0.1 if len(laps) < 3 else 0.8  # slower than what was expected
        clock[0] += took[0]
        laps.append(self.width)
        return 1 / FAST

    monkeypatch.setattr(contender.Contender, "seconds", property(lambda self: took[0], ignored), raising=False)
    monkeypatch.setattr(tuner, "monotonic", lambda: clock[0])
    monkeypatch.setattr(tuner, "cores", lambda: 1e9)
    monkeypatch.setattr(Plan, "run_seconds", 60.0)
    monkeypatch.setattr(contender.Contender, "lap", lap)
    (told,) = measurements(sweep().events())
    assert laps == [8] * 3 + [16, 8, 8, 16], "one pair more would end after 5.1 seconds"
    assert told.seconds == clock[0] == pytest.approx(3.5)
    (file,) = (tmp_path / "cache" / "hpjax" / "widths").iterdir()
    assert json.loads(file.read_text()) == {
        "rates": [[8, "batched", 1.0]],
        "finished": False,
        "lane_step": pytest.approx(1 / FAST / sweep().plan().slowed),
    }


@pytest.mark.parametrize(
    ("estimated", "seconds", "compiled", "measured"),
    [
        (0.0, {8: 11.0}, {8}, {8}),  # of each of two cores, which is more than the five seconds that there are
        (1e6, {8: 0.1}, {8}, {8}),  # kept by an earlier run, which tells nothing of what comes
        (0.0, {8: 9.0, 16: 9.0}, {8, 16}, {8, 16}),  # one more would make nine seconds
        (0.0, {8: 9.0, 16: 11.0}, {8, 16}, {8}),  # longer than expected: no time is left to measure it
        (0.0, {8: 1.0, 16: 1.0, 32: 1.0}, {8, 16, 32}, {8, 16, 32}),
    ],
)
def test_compiling_counts_as_one_core_of_all(speeds, laps, monkeypatch, estimated, seconds, compiled, measured):
    """Per width, the seconds that it takes to compile; which of them compile, and which are measured."""
    speeds(FAST, w8=1.0, w16=2.0)
    monkeypatch.setattr(Plan, "run_seconds", 60.0)
    monkeypatch.setattr(tuner, "cores", lambda: 2)
    monkeypatch.setattr(tuner, "monotonic", lambda: 0.0)  # what else takes time is not what is tested
    monkeypatch.setattr(ProgramShapes, "compile_seconds", estimated)
    taken = property(lambda self: seconds[self.width] if self._compiled.seconds else 0.0)
    monkeypatch.setattr(contender.Contender, "compile_seconds", taken)
    begun, begin = set(), contender.Contender.begin
    monkeypatch.setattr(contender.Contender, "begin", lambda self, room: begun.add(self.width) or begin(self, room))
    with compilations() as programs:
        assert measurements(sweep().events())
    assert programs.count("jit(advance_lanes)") == len(compiled)
    assert set(laps) == begun == measured


def test_short_runs_measure_nothing(speeds, laps, monkeypatch):
    speeds(SLOW, w8=1.0, w16=2.0)
    monkeypatch.setattr(Plan, "run_seconds", tuner.WORTH - 1)
    assert not measurements(sweep().events())
    assert not laps


def test_widths_that_are_given_and_shards_are_not_measured(speeds, laps):
    speeds(SLOW, w8=1.0, w16=2.0)
    for made in (sweep(width=8), sweep(shard=(1, 2))):
        assert not measurements(made.events())
    assert not laps


def test_a_failing_measurement_harms_nothing(monkeypatch):
    def lap(self):
        raise ValueError("no such thing")

    monkeypatch.setattr(contender.Contender, "lap", lap)
    with pytest.warns(RuntimeWarning, match="widths were not measured to the end: ValueError: no such thing"):
        found = sweep().run(progress=False)
    assert_same(found, fixed(8))


def test_a_candidate_that_does_not_fit_is_left_to_a_run_of_its_own(speeds, laps, monkeypatch, tmp_path):
    speeds(SLOW, w8=1.0, w16=2.0, w4=0.5)
    needed = property(lambda self: 10**18 * (self.lanes.step.shape[-1] == 16))
    monkeypatch.setattr(Compiled, "bytes", needed)
    found = sweep().run(progress=False)
    assert 16 not in laps
    assert_same(found, fixed(8))
    (file,) = (tmp_path / "cache" / "hpjax" / "widths").iterdir()
    assert not json.loads(file.read_text())["finished"]


def test_a_candidate_that_does_not_compile_harms_nothing(speeds, laps, monkeypatch):
    speeds(SLOW, w8=1.0, w16=2.0, w4=0.5)
    lower = Compiled.lower

    def failing(self, name):
        if self.lanes.step.shape[-1] == 16:
            raise RuntimeError("INTERNAL: no such kernel")
        return lower(self, name)

    monkeypatch.setattr(Compiled, "lower", failing)
    found = sweep().run(progress=False)
    assert 16 not in laps
    assert_same(found, fixed(8))


def test_an_abandoned_run_leaves_its_directory_to_others(speeds, tmp_path):
    speeds(SLOW, w8=1.0, w16=2.0)
    events = sweep().events(tmp_path)
    for _ in range(5):
        next(events)
    del events
    found = sweep().run(tmp_path, progress=False)
    (width,) = set(found.widths.tolist())
    assert_same(found, fixed(width))


@pytest.mark.slow
def test_a_stream_begins_anew_with_its_first_batches(speeds):
    speeds(SLOW, w4=1.0, w2=2.0)
    data = blobs()
    batches = [(data.train.x[i : i + 4], data.train.y[i : i + 4]) for i in range(0, 48, 4)]
    stream = hpx.data.stream(lambda: batches, valid=data.valid, block=3)
    program = classifier(data=stream, batch_size=None, steps=24, eval_every=2)
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-1), momentum=0.9)
    drawn = hpx.Sweep(program, space, trials=4, devices=1)
    found = drawn.run(progress=False)
    assert set(found.widths) == {2}
    assert_same(found, fixed(2, drawn))


def test_calls_that_are_too_long_for_pairs_are_not_paired(speeds, laps, monkeypatch):
    speeds(FAST, w8=1.0, w16=2.0)
    monkeypatch.setattr(Plan, "run_seconds", 60.0)
    monkeypatch.setattr(contender.Contender, "seconds", property(lambda self: 1.0, ignored), raising=False)
    (told,) = measurements(sweep().events())
    assert laps == [8] * 3
    assert [rate.width for rate in told.rates] == [8]


def test_calls_that_are_expected_to_be_too_long_are_not_made(speeds, laps, monkeypatch):
    speeds(FAST, w8=1.0, w16=2.0)
    monkeypatch.setattr(Plan, "run_seconds", 60.0)
    monkeypatch.setattr(Plan, "split_seconds", lambda self, group: (0.1 * self.group_steps(group), 0.0))
    assert not measurements(sweep().events())
    assert not laps


def test_where_the_fastest_does_not_fit_beside_the_run_what_is_known_stays(speeds, laps, monkeypatch):
    speeds(FAST, w8=1.0, w16=2.0)
    made = sweep()
    key = rate_key(made.spec, made.plan(), made.plan().groups[0])
    known = Measured((Rate(8, "batched", 0.5), Rate(16, "batched", 1.0)), False, 1e-9)
    rate_cache.remember(key, known)
    monkeypatch.setattr(Compiled, "bytes", property(lambda self: 10**18 * (self.lanes.step.shape[-1] == 16)))
    events = list(made.events())
    assert any(event.kind == "segment" for event in events)
    assert not measurements(events)
    assert not laps
    rate_cache._here.clear()  # another process
    assert rate_cache.recall(key) == known
