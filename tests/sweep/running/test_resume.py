"""Law 9. What is interrupted goes on from its last checkpoint and ends with the bits of what was not."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

import hpjax as hpx
from hpjax.results.store import checkpoints as checkpoint
from hpjax.results.store.checkpoints import Checkpoints
from tests.support.compare import same_bits
from tests.support.interrupted import abandon, check, whole
from tests.support.killed import SWEEPS
from tests.support.marks import few_of
from tests.support.processes import started
from tests.support.programs import ROOT

# How often each kind of sweep is killed: `make soak` asks for more, and of more kinds.
KILLS = int(os.environ.get("HPJAX_KILLS", "1"))
KILLED_KINDS = ["halving", "population", *(["groups", "early stopping"] if KILLS > 1 else [])]


@pytest.mark.parametrize(
    "name",
    few_of(SWEEPS, ("halving", "population")),
)
def test_an_abandoned_run_goes_on(name, tmp_path):
    _, events = whole(name)
    for after in (events // 3, 2 * events // 3):
        directory = tmp_path / str(after)
        abandon(name, directory, after)
        abandon(name, directory, 3)  # before all of it began again
        rest = [event.kind for event in SWEEPS[name].events(directory)]
        check(directory, name)
        assert rest[0] == "resumed"
        assert len(rest) - 1 < events, "it went on, and did not begin anew"
        seconds = hpx.load(directory).curves("seconds")
        assert (np.diff(seconds)[np.isfinite(np.diff(seconds))] >= 0).all(), "and so did the clock"


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED_KINDS)
def test_a_killed_run_goes_on(name, tmp_path, counted):
    """SIGKILL at random instants, that often, and then to the end here; what was saved never goes back."""
    rng = np.random.default_rng(len(name))
    directory, saved = tmp_path / "run", -1
    for _ in range(KILLS):
        with started("killed", name, directory) as process:
            lines = iter(process.stdout.readline, "")
            for _line in zip(range(int(rng.integers(1, 8))), lines):
                pass
            try:
                process.wait(rng.uniform(0, 0.3))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.wait()
        numbers = [int(path.name) for path in (directory / "checkpoints").glob("*") if path.name.isdigit()]
        assert max(numbers, default=saved) >= saved
        saved = max(numbers, default=saved)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a checkpoint that was being written is passed over, with a warning
        SWEEPS[name].run(directory, progress=False)
    check(directory, name)
    counted(f"{name}: {KILLS} kills survived, {saved + 1} checkpoints written")


# Orbax may grumble after it.
UNWRITTEN = re.compile("^hpjax.core.errors.RunError: .*(cannot|could not) be written: ", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_notice_of_preemption_writes_a_checkpoint(number, tmp_path):
    """SIGTERM: the event that is under way ends, a checkpoint is written, and the exit code is 143 = 128 + SIGTERM.

    And Ctrl-C, the first of them, of which Python makes an exception that nobody catches here.
    """
    directory = tmp_path / "run"
    with started("killed", "groups", directory) as process:
        lines = 0
        for line in process.stdout:
            lines += line.startswith("segment")
            if lines == 5:
                process.send_signal(number)
        assert process.wait() == (143 if number == signal.SIGTERM else -signal.SIGINT)
        told = process.stderr.read()
    if number == signal.SIGINT:
        assert (
            "interrupted: a checkpoint is written after this device call; Ctrl-C again ends the process immediately."
            in told
        )
        assert f"KeyboardInterrupt: interrupted; a checkpoint is in {directory}. The same sweep with that" in told
    kinds = [event.kind for event in SWEEPS["groups"].events(directory)]
    assert kinds[0] == "resumed"
    # Not one segment was lost.
    assert kinds.count("segment") == [e.kind for e in SWEEPS["groups"].events()].count("segment") - lines
    check(directory, "groups")


@pytest.mark.slow
def test_a_kill_while_the_very_first_checkpoint_is_written(tmp_path):
    directory = tmp_path / "run"
    with started("killed", "halving", directory) as process:
        while process.poll() is None:
            # Orbax writes beside, and renames at the end.
            names = [path.name for path in (directory / "checkpoints").glob("*")]
            if any("tmp" in name for name in names):
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
    assert not any(path.name.isdigit() for path in (directory / "checkpoints").iterdir()), "none is whole"
    SWEEPS["halving"].run(directory, progress=False)
    check(directory, "halving")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["limit", "read-only"])
def test_what_can_be_written_no_more_is_an_error_and_what_was_saved_restores(how, tmp_path):
    directory = tmp_path / "run"
    with started("starved", how, directory) as process:
        _, told = process.communicate()
    assert process.returncode == 1
    assert UNWRITTEN.search(told), told
    for folder in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    assert hpx.load(directory).lane_step.max() > 0, "it can be looked at"
    kinds = [event.kind for event in SWEEPS["halving"].events(directory)]
    assert kinds[0] == "resumed"
    check(directory, "halving")


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 4 MiB of its own, where the system lets us mount one."""
    disk, saved = tmp_path / "disk", tmp_path / "saved"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=4m none {disk}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this system lets users mount nothing; the limit on the size of files is tested instead")
    train = f"{sys.executable} -m tests.support.starved full {disk}/run; code=$?"
    keep = f"rm {disk}/filler; cp -r {disk}/run {saved}; exit $code"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount}; {train}; {keep}"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1
    assert UNWRITTEN.search(done.stderr), done.stderr
    assert next(iter(SWEEPS["halving"].events(saved))).kind == "resumed"
    SWEEPS["halving"].run(saved, progress=False)
    check(saved, "halving")


# What Orbax has begun to read when it fails ends after its event loop did.
damaged = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@damaged
def test_a_flipped_byte_is_found_and_the_cut_before_is_used(tmp_path):
    abandon("halving", tmp_path / "run", 15)
    numbers = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert len(numbers) == 2
    last = tmp_path / "run" / "checkpoints" / str(numbers[-1]) / "state"
    for data in last.rglob("d/*"):  # one of them may hold nothing that is read
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"checkpoint .*{numbers[-1]}: .*It is passed over"):
        SWEEPS["halving"].run(tmp_path / "run", progress=False)
    check(tmp_path / "run", "halving")


@pytest.mark.slow
@damaged
def test_where_no_checkpoint_is_usable_nothing_is_deleted(tmp_path):
    abandon("groups", tmp_path / "run", 8)
    before = hpx.load(tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").rglob("d/*"):
        path.write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(hpx.RunError, match=r"none of the checkpoints \[\d, \d\] in .* can be used"):
            SWEEPS["groups"].run(tmp_path / "run", progress=False)
    assert same_bits(hpx.load(tmp_path / "run").curves("valid/loss"), before.curves("valid/loss"))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    SWEEPS["groups"].run(tmp_path / "run", progress=False)
    check(tmp_path / "run", "groups")


@pytest.mark.slow
def test_other_versions_are_told_of(tmp_path):
    abandon("groups", tmp_path, 8)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"jax": "{jax.__version__}"', '"jax": "0.1.2"'))
    told = rf'begun with other versions or flags, .* jax: "0.1.2" there, "{jax.__version__}" here'
    with pytest.warns(UserWarning, match=told):
        SWEEPS["groups"].run(tmp_path, progress=False)
    check(tmp_path, "groups")


def test_checkpoints_take_no_more_than_their_share_of_the_time(tmp_path):
    """One that took three seconds is followed by another after a hundred; at decisions earlier than after a minute."""
    checkpoints = Checkpoints(tmp_path, 60.0)
    now = checkpoints._last
    with pytest.MonkeyPatch.context() as patch:
        for took, passed, decided, due in (
            (0.1, 59, False, False),
            (0.1, 61, False, True),
            (0.1, 4, True, True),
            (0.1, 3, True, False),
            (3.0, 61, False, False),
            (3.0, 99, True, False),
            (3.0, 101, False, True),
        ):
            patch.setattr(checkpoint.time, "monotonic", lambda passed=passed: now + passed)
            checkpoints._took = took
            assert checkpoints.due(decided) is due
    checkpoints.close()


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_it_goes_on_with_other_devices(devices, tmp_path):
    abandon("halving", tmp_path / "run", 12, devices=3)
    dataclasses.replace(SWEEPS["halving"], devices=devices).run(tmp_path / "run", progress=False)
    check(tmp_path / "run", "halving")
