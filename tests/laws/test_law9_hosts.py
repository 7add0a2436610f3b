"""Law 9 on several hosts: two processes of two CPU devices each, on loopback."""

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
from tests.support.spans import assert_same, raced

pytestmark = pytest.mark.slow

PREEMPTED = 143


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Hosts:
    """Two hosts that train a sweep."""

    def __init__(self, name, directory, module="killed"):
        where = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
        self.processes = [started(module, name, directory, **where, JAX_PROCESS_ID=str(host)) for host in (0, 1)]

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


@pytest.mark.parametrize("devices_per_lane", [2, 4], ids=["within a host", "over both hosts"])
def test_lanes_that_span_devices(tmp_path, devices_per_lane):
    codes, told = Hosts(devices_per_lane, tmp_path / "run", "spans").end()
    assert codes == [0, 0], told
    found, expected = hpx.load(tmp_path / "run"), raced(devices_per_lane).run(progress=False)
    if devices_per_lane == 2:
        assert_same(found, expected)
    else:  # hosts add up what four devices give in another order
        assert found.lineage == expected.lineage
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
