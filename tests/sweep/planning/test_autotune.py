"""The width: measured where that pays, remembered on the machine, recorded with the run; else by rule."""

import dataclasses
import itertools
import json

import flax.linen as nn
import numpy as np
import pytest

import hpjax as hpx
from hpjax.engine import sharding
from hpjax.engine.compile import Compiled
from hpjax.sweep.planning import autotune as tuning
from hpjax.sweep.planning import contender
from hpjax.sweep.planning import pace as paces
from hpjax.sweep.planning import programs as groups
from hpjax.sweep.planning import rate_cache as remembered
from hpjax.sweep.planning.arrange import halved, rate_key, with_measured
from hpjax.sweep.planning.width import Measured, Rate
from tests.support.compare import same_bits
from tests.support.counting import compilations
from tests.support.programs import RATES, blobs, classifier, quadratic, rates


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A machine on which nothing was measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "_here", {})
    return tmp_path / "cache" / "hpjax" / "widths"


class Known:
    """Lanes of a speed that is known, of one width and with one kind of kernels."""

    seconds, state_bytes = 0.0, 0

    def __init__(self, programs, plan, group):
        own = plan.arrangements[group.number]
        self.which = group.number, own.width, own.kernels

    def begin(self, room):
        if self.which not in self.asked:
            self.asked.append(self.which)
        return True

    def lap(self):
        return 1 / self.table[self.which[2]].get(self.which[1], 1.0)


@pytest.fixture
def speeds(monkeypatch):
    """Has a width be as fast as it says there, by kernels; what was measured stands in ``asked``, each once."""
    table = {"asked": []}
    monkeypatch.setattr(Known, "table", table, raising=False)
    monkeypatch.setattr(Known, "asked", table["asked"], raising=False)
    monkeypatch.setattr(tuning, "Contender", Known)
    return table


def sweep(**changes):
    return hpx.Sweep(quadratic(20, 5), RATES, trials=64, devices=1, **changes)


def test_the_best_width_is_taken_and_remembered(speeds, cache):
    speeds["batched"] = {8: 100.0, 16: 150.0, 32: 155.0, 64: 120.0}
    assert sweep().plan().widths == (8,)
    plan = sweep().plan(measure=True)
    assert plan.widths == (16,), "within 5 % of 32"
    assert "group 0: speed by width at most: 8 → 65%, 16 → 97%, 32 → 100%" in str(plan)
    assert "as measured" in str(plan)
    assert plan.run_seconds == pytest.approx(64 * 20 / 150, rel=0.1)
    asked = len(speeds["asked"])
    remembered._here.clear()  # another process
    assert sweep().plan().widths == sweep().plan(measure=True).widths == (16,)
    assert len(speeds["asked"]) == asked
    assert sweep(width=4).plan(measure=True).widths == (4,)


@pytest.mark.parametrize(
    "text",
    [
        '{"rates": [[16, 8]], "finished": true}',
        '{"rates": [[16, "batched", 1.5]]}',
        '{"rates": [[0, "batched", 1.0]]}',
        '{"rates": [[16, "fast", 1.0]]}',
        '{"rates": [[16, "batched", 1.0]], "lane_step": 1e999}',
        "[[16, 8]]",
        "{",
    ],
)
def test_what_cannot_be_read_was_not_measured_and_that_is_told_once(speeds, cache, text):
    speeds["batched"] = {8: 100.0, 16: 150.0, 32: 100.0}
    assert sweep().plan(measure=True).widths == (16,)
    (file,) = cache.iterdir()
    file.write_text(text)
    remembered._here.clear()
    with pytest.warns(RuntimeWarning, match=f"{file} cannot be read: .* Delete the file") as told:
        assert sweep().plan().widths == sweep().plan().widths == (8,)
    assert len(told) == 1
    assert sweep().plan(measure=True).widths == (16,)
    remembered._here.clear()
    assert sweep().plan().widths == (16,), "it is replaced"


def test_a_folder_that_cannot_be_written_is_told_once(speeds, cache):
    speeds["batched"] = {8: 1.0, 16: 2.0, 32: 1.0}
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    other = hpx.Sweep(quadratic(20, 5, size=4), RATES, trials=64, devices=1)
    with pytest.warns(RuntimeWarning, match=rf"{cache} cannot be written: File exists\. .* XDG_CACHE_HOME") as told:
        assert sweep().plan(measure=True).widths == other.plan(measure=True).widths == (16,)
    assert len(told) == 1
    assert sweep().plan().widths == (16,), "as long as the process lives"


@pytest.fixture
def busy(monkeypatch):
    """Has other work slow the machine by a factor, as another process finds it."""

    def set_to(factor):
        monkeypatch.setattr(paces, "busy", lambda: factor)
        paces._pace.cache_clear()
        remembered._here.clear()

    yield set_to
    paces._pace.cache_clear()


def test_estimates_go_by_the_own_width_and_by_how_busy_the_machine_is(speeds, busy):
    speeds["batched"] = {8: 100.0, 16: 200.0, 32: 100.0}

    def seconds(plan):
        return plan.split_seconds(plan.groups[0])[0]

    busy(2.0)
    plan = sweep().plan(measure=True)
    assert plan.widths == (16,)
    assert seconds(plan) == pytest.approx(64 * 20 / 200), "as busy as it was measured"
    busy(1.0)
    plan = sweep().plan()
    assert seconds(plan) == pytest.approx(64 * 20 / 400)
    busy(3.0)
    plan = sweep().plan()
    assert seconds(plan) == pytest.approx(3 * 64 * 20 / 400)
    given = with_measured(sweep(width=8).plan(), 0, plan.arrangements[0].measured)
    assert seconds(given) == pytest.approx(3 * 64 * 20 / 200), "it is not the best that trains"
    once = halved(sweep().spec, plan, 0)
    assert seconds(once) == pytest.approx(3 * 64 * 20 / 200)
    twice = halved(sweep().spec, once, 0)  # a width that was not measured
    estimated, _ = twice.estimated_seconds(twice.groups[0])
    assert seconds(twice) == pytest.approx(64 * 20 * estimated * twice.pace.running)
    assert ["as measured" in str(each) for each in (plan, once, twice)] == [True, True, False]


def measured_in_time(monkeypatch, count):
    """Measures as many candidates as there is time for."""
    clock = iter(np.arange(0, 1000, 4.9 / (3 * count + 1)))
    with monkeypatch.context() as slow:
        slow.setattr(tuning, "monotonic", lambda: float(next(clock)))
        sweep().plan(measure=True)
    remembered._here.clear()  # another process


def test_no_speed_of_another_run_is_compared(speeds, cache, monkeypatch):
    """The search goes on after the machine has become a thousand times slower."""
    speeds["batched"] = {8: 100.0, 16: 150.0, 32: 155.0}
    measured_in_time(monkeypatch, 2)
    assert [wide for _, wide, _ in speeds["asked"]] == [8, 16]
    speeds["batched"] = {8: 0.1, 16: 0.15, 32: 0.155}
    plan = sweep().plan(measure=True)
    assert plan.widths == (16,)
    ratios = [(8, 100 / 155), (16, 150 / 155), (32, 1.0)]
    assert [(rate.width, rate.speed) for rate in plan.arrangements[0].measured.rates] == [
        (wide, pytest.approx(ratio)) for wide, ratio in ratios
    ]
    (file,) = cache.iterdir()
    there = json.loads(file.read_text())
    assert there["rates"] == [[wide, "batched", pytest.approx(ratio)] for wide, ratio in ratios]
    assert there["lane_step"] == pytest.approx(1 / 0.155 / plan.slowed), "for estimates"


def test_where_the_fastest_does_not_fit_any_more_all_is_measured_anew(speeds, monkeypatch):
    speeds["batched"] = {8: 100.0, 16: 150.0}
    measured_in_time(monkeypatch, 2)
    assert sweep().plan().widths == (16,)
    monkeypatch.setattr(Known, "begin", lambda self, room: self.which[1] < 16)
    speeds["batched"] = {8: 0.1, 4: 0.2, 2: 0.05}  # and the machine is much slower
    plan = sweep().plan(measure=True)
    assert plan.widths == (4,)
    assert [tuple(rate) for rate in plan.arrangements[0].measured.rates] == [
        (2, "batched", pytest.approx(0.25)),
        (4, "batched", 1.0),
        (8, "batched", pytest.approx(0.5)),
    ]
    remembered._here.clear()
    assert sweep().plan().widths == (4,)


def test_where_nothing_fits_any_more_nothing_is_known(speeds, monkeypatch):
    speeds["batched"] = {8: 100.0, 16: 150.0}
    measured_in_time(monkeypatch, 2)
    monkeypatch.setattr(Known, "begin", lambda self, room: False)
    assert sweep().plan(measure=True).widths == (8,)
    remembered._here.clear()
    assert sweep().plan().arrangements[0].measured == Measured()


# Widths that no list of candidates has


def known(made, *rates, finished=True):
    """Has earlier processes have measured these widths of a sweep."""
    plan = made.plan()
    measured = Measured(tuple(Rate(wide, "batched", speed) for wide, speed in rates), finished, 1e-6)
    remembered.remember(rate_key(made.spec, plan, plan.groups[0]), measured)
    remembered._here.clear()


@pytest.mark.parametrize(("wide", "width"), [(12, 12), (4096, 24)])
def test_a_width_that_is_no_candidate_trains_and_is_kept_by_a_run_that_is_resumed(wide, width, tmp_path, cache):
    made = hpx.Sweep(quadratic(20, 5), RATES, trials=24, devices=1)
    known(made, (8, 0.5), (wide, 1.0))
    assert made.plan().widths == (width,)
    expected = dataclasses.replace(made, width=width).run(progress=False)
    events = made.events(tmp_path / "run", checkpoint_seconds=0.0)
    next(event for event in events if event.kind == "segment")
    next(events)
    events.close()
    known(made, (8, 1.0))  # meanwhile
    assert made.plan().widths == (8,)
    assert next(made.events(tmp_path / "run")).kind == "resumed"
    found = made.run(tmp_path / "run", progress=False)
    assert set(found.widths) == {width}
    assert same_bits(found.curves("valid/loss"), expected.curves("valid/loss"))


def test_the_search_goes_on_from_a_width_that_is_no_candidate(speeds):
    speeds["batched"] = {8: 50.0, 11: 100.0, 16: 200.0, 32: 100.0}
    known(sweep(), (12, 1.0), finished=False)
    assert sweep().plan().widths == (11,), "six chunks of 64"
    plan = sweep().plan(measure=True)
    assert plan.widths == (16,)
    assert [(rate.width, rate.speed) for rate in plan.arrangements[0].measured.rates] == [
        (8, pytest.approx(0.25)),
        (12, pytest.approx(0.5)),
        (16, 1.0),
        (32, pytest.approx(0.5)),
    ]


def test_other_programs_are_measured_for_themselves(speeds):
    speeds["batched"] = {8: 1.0, 16: 2.0, 32: 1.0}
    sweep().plan(measure=True)
    other = hpx.Sweep(quadratic(20, 5, size=4), RATES, trials=64, devices=1)
    assert (sweep().plan().widths, other.plan().widths) == ((16,), (8,))
    assert hpx.Sweep(quadratic(20, 5), RATES, trials=64, devices=2).plan().widths == (8,), "nor on other devices"


def test_shards_keep_to_the_rule(speeds):
    speeds["batched"] = {8: 1.0, 16: 2.0, 32: 1.0}
    sweep().plan(measure=True)
    assert sweep(shard=(1, 2)).plan(measure=True).widths == (8,)


def test_each_group_has_its_own(speeds, monkeypatch):
    speeds["batched"] = {14: 2.0, 9: 2.0}
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1), size=hpx.Choice(2, 3, static=True))
    points = [{"rate": 0.1, "size": 2}] * 40 + [{"rate": 0.1, "size": 3}] * 9
    program = quadratic(20, 5, size=lambda h: h.size)
    both = hpx.Sweep(program, space, sampler=hpx.Manual(points), devices=1)
    assert both.plan().widths == (8, 5), "two chunks of five, where one of nine is too wide"
    assert both.plan(measure=True).widths == (14, 9)  # three chunks of forty; all nine
    assert speeds["asked"][0] == (0, 8, "batched"), "first what takes longest"
    result = both.run(progress=False)
    assert result.manifest.sweep.width == (14, 9)
    assert set(result.widths[:40]) == {14}


def test_only_as_long_as_it_may_take_and_then_the_next_run_goes_on(speeds, monkeypatch):
    speeds["batched"] = {8: 1.0, 16: 2.0, 32: 3.0, 64: 1.0}
    clock = iter(range(0, 1000, 2))
    with monkeypatch.context() as slow:
        slow.setattr(tuning, "monotonic", lambda: float(next(clock)))
        assert sweep().plan(measure=True).widths == (8,)
        assert speeds["asked"] == [(0, 8, "batched")]
    remembered._here.clear()  # another process
    assert sweep().plan(measure=True).widths == (32,)
    assert [wide for _, wide, _ in speeds["asked"]] == [8, 16, 32, 64]
    speeds["asked"].clear()
    assert sweep().plan(measure=True).widths == (32,)
    assert not speeds["asked"], "nothing is left"


@pytest.mark.slow
def test_lanes_with_luck_of_their_own_are_measured_as_many_as_there_are(monkeypatch):
    monkeypatch.setattr(contender, "EACH", 0.0)
    monkeypatch.setattr(tuning, "SHARE", 1e9)
    begun, lanes_of = [], groups.DeviceLanes
    monkeypatch.setattr(groups, "DeviceLanes", lambda *given: begun.append(len(given[2].trial)) or lanes_of(*given))
    for randomness, most in (("shared", 2), ("independent", 8)):
        mine = hpx.Sweep(
            quadratic(20, 5), RATES, sampler=rates(0.1, 0.1), replicates=4, randomness=randomness, devices=1
        )
        mine.plan(measure=True)
        assert max(begun) == most
        begun.clear()


def test_a_machine_that_slows_down_changes_no_ratio(speeds, monkeypatch):
    """What takes turns slows down alike; each alone would have been slower than the one before."""
    clock, true = itertools.count(), {8: 100.0, 16: 150.0, 32: 152.0, 64: 100.0}

    class Slowing(Known):
        def lap(self):
            return (1 + 0.05 * next(clock)) / true[self.which[1]]

    monkeypatch.setattr(tuning, "Contender", Slowing)
    plan = sweep().plan(measure=True)
    assert plan.widths == (16,)
    by_width = {rate.width: rate.speed for rate in plan.arrangements[0].measured.rates}
    assert {wide: value / by_width[8] for wide, value in by_width.items()} == {
        wide: pytest.approx(true[wide] / 100, rel=0.03) for wide in by_width
    }


def test_the_interval_of_a_median_holds_it_as_often_as_it_should():
    rng = np.random.default_rng(0)
    for count in (6, 9, 15):
        found = [contender.interval_of_median(np.exp(rng.standard_t(3, count))) for _ in range(4000)]
        inside = np.mean([low <= 1.0 <= high for low, high in found])
        assert 0.95 <= inside <= 0.985


class Conv(nn.Module):
    filters: int = 2

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Conv(self.filters, (2,))(x[..., None])).reshape(len(x), -1))


def images(**changes):
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-1), momentum=0.9)
    program = classifier(model=Conv(), steps=4, eval_every=2)
    return hpx.Sweep(program, space, trials=8, devices=1, **changes)


@pytest.mark.slow
def test_kernels_are_measured_too_and_belong_to_the_run(speeds, tmp_path):
    speeds["batched"], speeds["xla"] = {8: 1.0}, {8: 2.0}
    assert images().plan().kernels == ("batched",)
    plan = images().plan(measure=True)
    assert plan.kernels == ("xla",)
    assert "8 batched → 50%, 8 xla → 100%" in str(plan)
    first = images().run(tmp_path / "run", progress=False)
    assert first.manifest.sweep.kernels == ("xla",)
    # On a machine that measured nothing: the directory keeps its kernels, and its bits.
    remembered._here.clear()
    for file in (tmp_path / "cache" / "hpjax" / "widths").iterdir():
        file.unlink()
    assert images().plan().kernels == ("batched",)
    assert same_bits(images().run(tmp_path / "run", progress=False).curves("valid/loss"), first.curves("valid/loss"))
    with pytest.raises(hpx.RunError, match=r'kernels: \["xla"\] there, \["batched"\] here'):
        images(kernels="batched").run(tmp_path / "run", progress=False)
    with pytest.raises(hpx.InputError, match=r"Sweep.kernels = 'fast': must be one of"):
        images(kernels="fast")


def test_each_group_has_kernels_of_its_own(speeds):
    speeds["batched"], speeds["xla"] = {4: 2.0, 3: 1.0}, {4: 1.0, 3: 2.0}
    space = hpx.Space(learning_rate=0.1, momentum=0.9, filters=hpx.Choice(2, 3, static=True))
    sampler = hpx.Manual([{"filters": 2}] * 4 + [{"filters": 3}] * 3)
    program = classifier(model=lambda h: Conv(h.filters), steps=4, eval_every=2)
    both = hpx.Sweep(program, space, sampler=sampler, devices=1)
    assert both.plan(measure=True).kernels == ("batched", "xla")
    assert hpx.Sweep(program, space, sampler=sampler, kernels=("xla", "batched")).plan().kernels == ("xla", "batched")
    with pytest.raises(hpx.InputError, match=r"Sweep.kernels = .*one for each of the 2 groups"):
        hpx.Sweep(program, space, sampler=sampler, kernels=("xla",)).plan()


@pytest.mark.slow
def test_either_kernels_train_alike_and_only_one_has_convolutions(monkeypatch):
    texts, compile_one = [], groups.compiling

    def noted(*arguments):
        compiled = compile_one(*arguments)
        texts.append(compiled.wait().advance.compiled.as_text())
        return compiled

    monkeypatch.setattr(groups, "compiling", noted)
    batched, xla = (images(kernels=each).run(progress=False).curves("valid/loss") for each in ("batched", "xla"))
    assert batched == pytest.approx(xla, rel=1e-4)
    assert [" convolution(" in text for text in texts] == [False, True]


def test_what_was_compiled_to_measure_then_trains(monkeypatch):
    monkeypatch.setattr(contender, "EACH", 0.0)
    monkeypatch.setattr(tuning, "SECONDS", 0.0)  # of one width
    mine = hpx.Sweep(quadratic(20, 5), RATES, sampler=rates(*[0.1] * 8), devices=2)
    monkeypatch.setattr(tuning, "SHARE", 1e9)
    with compilations() as programs:
        plan = mine.plan(measure=True)
    measured = len(plan.arrangements[0].measured.rates)
    assert sorted(programs) == sorted(["jit(advance_lanes)", "jit(start_lanes)"] * measured)
    assert measured >= 2
    assert max(rate.speed for rate in plan.arrangements[0].measured.rates) == 1.0
    assert plan.arrangements[0].lane_step > 0
    with compilations() as programs:
        result = mine.run(progress=False)
    assert programs == ["jit(evaluate_lanes)"]
    assert (result.statuses == "complete").all()


@pytest.mark.slow
def test_a_program_that_needs_more_memory_than_there_is_is_not_tried(monkeypatch):
    monkeypatch.setattr(contender, "EACH", 0.0)
    monkeypatch.setattr(tuning, "SHARE", 1e9)
    needed = []

    def bytes_of(compiled):
        needed.append(analyzed(compiled))
        return compiled.lanes.step.shape[-1] * 1000

    analyzed = Compiled.bytes.fget
    monkeypatch.setattr(Compiled, "bytes", property(bytes_of))
    monkeypatch.setattr(sharding, "memory", lambda: 3000)
    mine = hpx.Sweep(quadratic(20, 5), RATES, sampler=rates(*[0.1] * 16), devices=1)
    assert {rate.width for rate in mine.plan(measure=True).arrangements[0].measured.rates} == {1, 2}
    lanes = 16 * mine.plan().shapes[0].lane_bytes
    assert all(lanes < need < lanes + 100_000 for need in needed)


@pytest.mark.slow
def test_streams_are_measured_on_blocks_of_nothing(monkeypatch):
    monkeypatch.setattr(contender, "EACH", 0.0)
    data = blobs()
    stream = hpx.data.stream(lambda: [(data.train.x[:4], data.train.y[:4])], valid=data.valid, block=3)
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-1), momentum=0.9)
    drawn = hpx.Sweep(classifier(data=stream, batch_size=None), space, trials=2, devices=1)
    assert drawn.plan(measure=True).arrangements[0].lane_step > 0


def test_the_command_prints_and_keeps_what_it_compiles(tmp_path, monkeypatch):
    import jax
    from click.testing import CliRunner

    from hpjax.frontends import cli

    file = tmp_path / "sweep.py"
    file.write_text(
        "import hpjax as hpx\n"
        "program = hpx.Program(lambda k, h: 0.0, lambda k, s, b, h: (s - h.rate, {}), "
        "lambda k, s, v, h: {'loss': s}, steps=4)\n"
        "sweep = hpx.Sweep(program, hpx.Space(rate=hpx.Uniform(0, 1)), trials=3)\n"
    )
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(contender, "EACH", 0.0)
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        done = CliRunner().invoke(cli.main, ["plan", str(file), "--measure"], catch_exceptions=False)
        assert "speed by width at most:" in done.output
        assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "cache" / "hpjax" / "programs"))
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert json.loads(next((tmp_path / "cache" / "hpjax" / "widths").iterdir()).read_text())
