"""Where memory is short: a group that runs out of it begins anew at half its width, and nothing is lost."""

import dataclasses
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import hpjax as hpx
from hpjax.engine import sharding
from hpjax.engine.device_lanes import DeviceLanes
from hpjax.sweep.planning import arrangement
from hpjax.sweep.planning import programs as groups
from tests.support.compare import same_bits
from tests.support.failing import FULL, Failing
from tests.support.killed import SWEEPS
from tests.support.marks import slow

WIDE = 4


def at(width, name="groups", **changes):
    return dataclasses.replace(SWEEPS[name], width=width, **changes)


def assert_bits(found, expected, trials):
    """These trials of two results agree in every bit."""
    assert trials
    for metric in ("step", *expected.metrics):
        assert same_bits(found.curves(metric)[trials], expected.curves(metric)[trials])
    assert (found.lane_status[trials] == expected.lane_status[trials]).all()
    for trial in trials:
        if expected[trial].status != "diverged":
            assert same_bits(found[trial].restore()["w"], expected[trial].restore()["w"])


def failed():
    """Programs that need too much memory to be compiled."""
    return Failing(FULL)


def of_group(result, *groups):
    return np.flatnonzero(np.isin(result.groups, groups)).tolist()


@pytest.fixture
def short(monkeypatch):
    """Devices on which the lanes of some trials run out of memory above a width, in their fourth segment."""

    def begin(trials, width, after=3):
        launch, calls = DeviceLanes.dispatch, []

        def limited(self, *arguments):
            if self.table.trial[0] in trials and self._config.width > width:
                calls.append(self._config.width)
                if len(calls) > after:
                    raise FULL
            return launch(self, *arguments)

        monkeypatch.setattr(DeviceLanes, "dispatch", limited)

    return begin


@pytest.mark.parametrize("name", [slow("groups"), "halving"])
def test_a_group_that_runs_out_of_memory_begins_anew_at_half_its_width(name, short, tmp_path):
    wide, narrow = (at(width, name).run(progress=False) for width in (WIDE, 2))
    assert (wide.statuses == narrow.statuses).all()
    group = 2
    short(at(WIDE, name).plan().groups[group].trials, width=2)
    events = list(at(WIDE, name).events(tmp_path / "run"))
    assert [(e.group, e.lost > 0) for e in events if e.kind == "width_halved"] == [(group, True)]
    found = hpx.load(tmp_path / "run")
    assert_bits(found, narrow, of_group(found, group))
    assert_bits(found, wide, of_group(found, 0, 1))
    assert found.ranking == wide.ranking
    told = f"group {group} ran out of memory at the width {WIDE}: it trains at 2."
    assert any(told in line for line in found.manifest.plan)
    again = at(WIDE, name).replay(found[of_group(found, group)[0]])
    assert again.agrees, "replayed at the width at which its group ran"


def test_a_population_that_runs_out_of_memory_begins_anew(short, tmp_path):
    narrow = at(2, "artifacts").run(progress=False)
    short(range(6), width=2, after=7)  # after members took over states
    found = at(WIDE, "artifacts").run(tmp_path / "run", progress=False)
    assert found.lineage == narrow.lineage
    assert_bits(found, narrow, list(range(6)))
    assert any(trial.artifacts for trial in narrow)
    for one, other in zip(found, narrow, strict=True):  # those of the first beginning are gone
        kept, expected = one.artifacts.get("w", []), other.artifacts.get("w", [])
        assert [step for step, _ in kept] == [step for step, _ in expected]
        assert all(same_bits(a, b) for (_, a), (_, b) in zip(kept, expected, strict=True))


def test_memory_short_at_compile_time(monkeypatch):
    expected, compiling = at(1).run(progress=False), groups.compiling

    def limited(config, *arguments):
        return failed() if config.width > 1 else compiling(config, *arguments)

    monkeypatch.setattr(groups, "compiling", limited)
    events = list(at(WIDE).events())
    assert sum(event.kind == "width_halved" for event in events) == 2 * 3, "three groups, twice each"
    assert_bits(at(WIDE).run(progress=False), expected, list(range(12)))


@pytest.mark.filterwarnings("ignore:group . failed:RuntimeWarning")
def test_one_lane_alone_does_not_fit(monkeypatch):
    monkeypatch.setattr(groups, "compiling", lambda *arguments: failed())
    with pytest.raises(hpx.RunError, match="group 2 runs out of memory with one lane at a time"):
        at(WIDE).run(progress=False)


@pytest.mark.slow
def test_a_narrowed_run_goes_on_at_its_width(short, tmp_path):
    narrow = at(2).run(progress=False)
    short(at(WIDE).plan().groups[0].trials, width=2)
    kinds = []
    for event in at(WIDE).events(tmp_path, checkpoint_seconds=0.0):
        kinds.append(event.kind)
        if "width_halved" in kinds[:-4]:
            break
    rest = [event.kind for event in at(WIDE).events(tmp_path)]
    assert rest[0] == "resumed"
    assert "width_halved" not in rest
    found = at(WIDE).run(tmp_path, progress=False)
    assert_bits(found, narrow, of_group(found, 0))


@pytest.mark.parametrize("name", ["groups", slow("halving")])
def test_a_kill_right_after_narrowing(name, short, tmp_path, monkeypatch):
    """Where memory is enough again when it goes on: at the width at which it began anew."""
    narrow = at(2, name).run(progress=False)
    with monkeypatch.context() as context:
        launch, calls = DeviceLanes.dispatch, []

        def full(self, *arguments):
            calls.append(1)
            if len(calls) == 6:
                raise FULL
            return launch(self, *arguments)

        context.setattr(DeviceLanes, "dispatch", full)
        for event in at(WIDE, name).events(tmp_path, checkpoint_seconds=0.0):
            if event.kind == "width_halved":
                group = event.group
                break
    assert not any(event.kind == "width_halved" for event in at(WIDE, name).events(tmp_path))
    found = hpx.load(tmp_path)
    assert_bits(found, narrow, of_group(found, group))
    assert set(found.widths[found.groups == group]) == {2}
    assert set(found.widths[found.groups != group]) == {WIDE}


@pytest.mark.slow
def test_a_group_that_narrows_in_a_later_round_leaves_the_earlier_ones(tmp_path, monkeypatch):
    sweep = at(WIDE, "rounds")
    launch, calls = DeviceLanes.dispatch, []

    def full(self, *arguments):
        calls.append(self._config.width)
        if len(calls) == 15:  # of twelve segments a round
            raise FULL
        return launch(self, *arguments)

    with monkeypatch.context() as context:
        context.setattr(DeviceLanes, "dispatch", full)
        found = sweep.run(tmp_path, progress=False)
    assert found.widths.tolist() == [WIDE] * 2 + [2] * 4
    assert all(sweep.replay(found[trial]).agrees for trial in range(6))


def limited(monkeypatch, bytes):
    monkeypatch.setattr(sharding, "memory", lambda: bytes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("groups", 130, None),
        ("halving", None, 130),
        ("population", 260, 130),
    ],
)
def test_a_run_goes_on_where_memory_is_other(name, before, after, monkeypatch, tmp_path):
    """Waves that were made for other devices are cut up where they do not fit, and kept where they do."""
    expected = at(2, name).run(progress=False)
    limited(monkeypatch, before)
    waves = [len(each.waves) for each in at(2, name, devices=1).plan().arrangements]
    for number, _ in enumerate(at(2, name, devices=1).events(tmp_path, checkpoint_seconds=0.0), start=1):
        if number == 9:
            break
    limited(monkeypatch, after)
    assert [len(each.waves) for each in at(2, name, devices=1).plan().arrangements] != waves
    for number, event in enumerate(at(2, name, devices=1).events(tmp_path, checkpoint_seconds=0.0)):
        assert number or event.kind == "resumed"
        if number == 3:
            break
    found = at(2, name, devices=1).run(tmp_path, progress=False)
    assert found.lineage == expected.lineage
    assert_bits(found, expected, list(range(len(expected))))


REAL = """
    import resource, sys
    import jax, jax.numpy as jnp
    jax.config.update("jax_num_cpu_devices", 1)
    import hpjax as hpx

    def step(key, w, batch, h):
        row = w + jnp.arange(2_500.0)
        big = jnp.outer(row, row) @ jnp.outer(row, row)[:, :1]  # 25 MB a lane, that no compiler can do without
        return w - h.rate * (w - 1 + 0 * big.mean()), {"loss": (w - 1) ** 2}

    program = hpx.Program(
        lambda key, h: jnp.zeros(()), step, lambda key, w, split, h: {"loss": (w - 1) ** 2}, steps=2
    )
    space = hpx.Space(rate=hpx.LogUniform(0.01, 0.5))
    sweep = hpx.Sweep(program, space, trials=16, width=16)
    sweep.plan()
    for line in open("/proc/self/status"):
        if line.startswith("VmSize"):
            used = int(line.split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, resource.RLIM_INFINITY))
    events = [event.kind for event in sweep.events()]
    print(events.count("width_halved"), events[-1])
"""


@pytest.mark.slow
def test_a_host_takes_waves_of_bounded_size(monkeypatch):
    """Of CPUs, which have no memory of their own: in as many waves as it takes, with the same bits."""
    whole, halving = (at(2, name, devices=1) for name in ("groups", "halving"))
    expected = whole.run(progress=False)
    assert {len(each.waves) for each in whole.plan().arrangements} == {1}
    monkeypatch.setattr(arrangement, "HOST_BYTES", 1)  # a chunk at least, of two trials
    small = dataclasses.replace(whole)
    assert {len(wave) for each in small.plan().arrangements for wave in each.waves} <= {1, 2}
    assert_bits(small.run(progress=False), expected, list(range(len(expected))))
    racing = dataclasses.replace(halving).plan().arrangements
    assert {len(each.waves) for each in racing} == {1}, "a race has all of them"


@pytest.mark.slow
def test_a_machine_that_really_has_no_more_memory(tmp_path):
    script = tmp_path / "full.py"
    script.write_text(textwrap.dedent(REAL))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    narrowed, last = done.stdout.split()[-2:]
    assert int(narrowed) >= 1
    assert last == "segment"
