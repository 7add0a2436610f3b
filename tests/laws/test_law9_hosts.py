"""Law 9 on several hosts: two processes of two CPU devices each, on loopback."""

import json
import shutil
import signal
import socket
import warnings

import numpy as np
import pytest

import hpjax as hpx
from tests.support.broken import BROKEN, PADDED, POINTS, SWEEP
from tests.support.compare import same_bits
from tests.support.interrupted import check
from tests.support.killed import SWEEPS
from tests.support.processes import started
from tests.support.spans import WIDE, assert_same, raced, streamed

pytestmark = pytest.mark.slow

PREEMPTED = 143


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Hosts:
    """Two hosts that train a sweep."""

    def __init__(self, *arguments, module="killed"):
        where = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
        self.processes = [started(module, *arguments, **where, JAX_PROCESS_ID=str(host)) for host in (0, 1)]

    def after(self, event):
        """Waits until the second host told of that event."""
        for line in self.processes[1].stdout:
            if line.startswith(event):
                return self
        raise AssertionError(self.end())

    def signal(self, number):
        self.processes[1].send_signal(number)
        return self

    def end(self):
        """Exit codes and what they wrote to standard error."""
        try:
            told = [process.communicate(timeout=120)[1] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [process.returncode for process in self.processes], told


def parts(directory):
    """What each of two hosts wrote of lanes in the last checkpoint: name to array."""
    import orbax.checkpoint as ocp

    first, second = directory / "checkpoints", directory / "checkpoints/host-1"
    number = max(int(each.name) for each in second.iterdir() if each.name.isdecimal())
    index = json.loads((second / str(number) / "arrays.json").read_text())
    found = [
        ocp.StandardCheckpointer().restore(first / str(number) / "state"),
        {each["name"]: np.load(second / str(number) / f"{i}.npy") for i, each in enumerate(index)},
    ]
    prefix = "waves/0/lanes/0/"
    return [
        {name.removeprefix(prefix): a for name, a in each.items() if name.startswith(prefix) and a.size}
        for each in found
    ]


@pytest.mark.parametrize("devices_per_lane", [2, 4], ids=["within a host", "over both hosts"])
def test_lanes_that_span_devices(tmp_path, devices_per_lane):
    """A notice ends both hosts. Each wrote the lanes, or the parts of lanes, of its own devices, and they go on."""
    directory, run = tmp_path / "run", ("raced", devices_per_lane, tmp_path / "run")
    codes, told = Hosts(*run, module="spans").after("segment 0 4").signal(signal.SIGTERM).end()
    assert codes == [PREEMPTED, PREEMPTED], told
    wrote = parts(directory)
    shapes = [sorted(a.shape[1:] for name, a in own.items() if "arrays/" in name) for own in wrote]
    if devices_per_lane == 2:
        assert sorted(np.concatenate([own["lanes"] for own in wrote])) == [*range(6)]
        assert [len(own["lanes"]) for own in wrote] == [3, 3]
        assert shapes[0] == shapes[1]
        assert shapes[0].count((WIDE, WIDE)) == 2, "a kernel and its momentum, whole"
    else:
        assert [own["lanes"].tolist() for own in wrote] == [[*range(6)]] * 2
        assert shapes[1] == [(WIDE // 2, WIDE)] * 2, "its half of what is split, and nothing else"
        assert shapes[0].count((WIDE // 2, WIDE)) == 2
    shutil.copytree(directory, tmp_path / "alone")
    codes, told = Hosts(*run, module="spans").after("resumed").end()
    assert codes == [0, 0], told
    found, expected = hpx.load(directory), raced(devices_per_lane).run(progress=False)
    alone = raced(devices_per_lane).run(tmp_path / "alone", progress=False)
    assert found.lineage == expected.lineage == alone.lineage
    if devices_per_lane == 2:
        assert_same(found, expected)
        assert_same(alone, expected)
    else:  # hosts add up what four devices give in another order
        for each in (found, alone):
            np.testing.assert_allclose(each.curves("valid/loss"), expected.curves("valid/loss"), rtol=1e-5)
            assert [len(trial.artifacts) for trial in each] == [len(trial.artifacts) for trial in expected]
    assert {each.name for each in (directory / "states/wave-0").iterdir() if each.is_dir()} == {"host-0-0", "host-1-0"}


def test_hosts_draw_their_parts_of_a_stream(tmp_path):
    """A lane over both hosts, batches of 16: each host draws 8 of each, but of the first batch, which tells shapes."""
    hosts = Hosts("streamed", 4, tmp_path / "run", module="spans")
    printed = [process.stdout.read().split("\n") for process in hosts.processes]
    codes, told = hosts.end()
    assert codes == [0, 0], told
    for lines in printed:
        drawn = [int(line.split()[1]) for line in lines if line.startswith("drawn")]
        assert drawn == [16] + [8] * 12
    found, expected = hpx.load(tmp_path / "run"), streamed(4).run(progress=False)
    np.testing.assert_allclose(found.curves("valid/loss"), expected.curves("valid/loss"), rtol=1e-5)


@pytest.mark.parametrize("name", ["population", "artifacts"])
def test_two_hosts_give_the_bits_of_one(tmp_path, name):
    codes, told = Hosts(name, tmp_path / "run").end()
    assert codes == [0, 0], told
    check(tmp_path / "run", name)


def test_hosts_go_on_after_a_notice_and_after_one_was_killed(tmp_path, counted):
    """SIGTERM to one host ends both with a checkpoint, SIGKILL of one ends both; two go on, and then one."""
    directory = tmp_path / "run"
    codes, told = Hosts("halving", directory).after("segment 0 4").signal(signal.SIGTERM).end()
    assert codes == [PREEMPTED, PREEMPTED], told
    assert list((directory / "checkpoints").iterdir())
    codes, told = Hosts("halving", directory).after("resumed").after("segment").signal(signal.SIGKILL).end()
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, PREEMPTED)
    assert "start the same command on every host to go on from there" in told[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a checkpoint that was being written is passed over, with a warning
        events = [event.kind for event in SWEEPS["halving"].events(directory)]
    assert events[0] == "resumed"
    check(directory, "halving")
    counted("hosts: 2 × 2 devices, one notice and one kill survived; resumed on 2 hosts and on 1")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("callback", "on host 1: a function that the program of group 1 calls on the host fails:"),
        ("compiler", "on host 1: its program fails: "),
        ("memory", None),  # at half the width it completes
    ],
)
def test_a_group_that_fails_on_one_host_fails_on_both_and_alone(tmp_path, how, reason):
    codes, told = Hosts(how, tmp_path / "run", module="broken").end()
    assert codes == [0, 0], told
    found, expected = hpx.load(tmp_path / "run"), SWEEP.run(progress=False)
    failed = [trial for trial, point in enumerate(POINTS) if point["kind"] == BROKEN] if reason else []
    others = [trial for trial in range(len(POINTS)) if trial not in failed]
    assert found.statuses[others].tolist() == ["complete"] * len(others)
    assert found.statuses[failed].tolist() == ["failed"] * len(failed)
    assert all(each.startswith(reason) for each in found.failures.values())
    assert same_bits(found.curves("valid/loss")[others], expected.curves("valid/loss")[others])
    rates = np.array([POINTS[trial]["rate"] for trial in others])
    np.testing.assert_allclose(found.last("valid/loss")[others, 0], (1 - rates) ** 40, rtol=1e-4, atol=1e-9)
    if how == "memory":
        told = "group 1 ran out of memory at the width 2: it trains at 1."
        assert any(told in line for line in found.manifest.plan)


def test_a_padded_program_that_fails_on_one_host_is_used_on_none(tmp_path):
    codes, told = Hosts("padding", tmp_path / "run", module="broken").end()
    assert codes == [0, 0], told
    found, expected = hpx.load(tmp_path / "run"), PADDED.run(progress=False)
    assert (found.manifest.sweep.padded, len(expected.manifest.sweep.padded)) == ((), 1)
    said = "since the check of a padded one fails: on host 1: its program fails: "
    assert any(said in line for line in found.manifest.plan)
    assert found.statuses.tolist() == expected.statuses.tolist()
    np.testing.assert_allclose(found.last("valid/loss"), expected.last("valid/loss"), rtol=1e-4)
