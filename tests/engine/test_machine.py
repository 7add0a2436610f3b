"""What a script sets of JAX by one line, in a process of its own."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from hpjax.core.fallback import warn_once
from hpjax.engine import machine
from tests.support.marks import slow
from tests.support.processes import full_disk, started

SCRIPT = """
import json, os, jax, hpjax as hpx
{before}
hpx.setup()
print(json.dumps([len(jax.devices()), str(jax.config.jax_compilation_cache_dir)]))
"""


def settings(tmp_path, before="", **environment):
    """CPU devices, and the folder of compiled programs, after ``hpx.setup()``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before)],
        env=clean | {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path)} | environment,
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


def test_a_device_a_core_and_programs_are_kept(tmp_path):
    devices, folder = settings(tmp_path)
    assert devices == len(os.sched_getaffinity(0))
    assert folder.startswith(str(tmp_path / "hpjax" / "programs"))


@pytest.mark.parametrize(
    ("before", "environment"),
    [
        ('jax.config.update("jax_num_cpu_devices", 3)', {}),
        slow("", {"JAX_NUM_CPU_DEVICES": "3"}),
        slow("", {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}),
        slow('jax.config.update("jax_num_cpu_devices", 3); jax.devices()', {}),
    ],
)
def test_what_the_user_has_set_stays(tmp_path, before, environment):
    own = 'jax.config.update("jax_compilation_cache_dir", "mine")'
    assert settings(tmp_path, "\n".join((before, own)), **environment) == [3, "mine"]


def ran(cache, metric, **environment):
    """What a script of its own prints of its second sweep: how many programs it compiled, and the losses."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    process = started(
        "cached", metric, unset=[*os.environ.keys() - clean.keys()], XDG_CACHE_HOME=str(cache), **environment
    )
    out, told = process.communicate()
    assert process.returncode == 0, told
    plan, compiled, losses = out.splitlines()[-3:]
    return ("what is compiled is kept" in plan, int(compiled.split()[0]), losses), told


def test_a_second_run_of_an_edited_script_compiles_what_changed(tmp_path):
    (kept, compiled, losses), _ = ran(tmp_path, "squared")
    assert (kept, compiled) == (True, 3), "in a process that used JAX before"
    assert ran(tmp_path, "squared")[0] == (True, 0, losses)
    assert ran(tmp_path, "absolute")[0][1] == 1, "its evaluation"
    found = [[pytest.approx((1 - rate) ** 8, rel=1e-5)] for rate in (0.1, 0.2)]
    assert json.loads(losses) == found
    kept = list(tmp_path.rglob("*.program"))
    assert len(kept) >= 4, "with another evaluation"
    for file in kept:
        file.write_bytes(file.read_bytes()[:-1])
    (_, compiled, again), told = ran(tmp_path, "squared")
    assert (compiled, again) == (3, losses), "what is damaged is compiled again"
    assert told.count("Warning: compiled programs in ") == told.count("Warning: ") == 1, told
    (_, compiled, again), told = ran(tmp_path, "squared")
    assert (compiled, again, told.count("Warning: ")) == (0, losses, 0), "once"


@pytest.mark.parametrize("fault", ["in the way", slow("full")])
def test_programs_that_cannot_be_kept(tmp_path, fault):
    if fault == "in the way":
        (tmp_path / "hpjax").write_text("in the way")
    with full_disk(1000) if fault == "full" else nullcontext():
        (_, compiled, _), told = ran(tmp_path, "squared")
    assert compiled == 3
    assert told.count("compiled programs are not kept for the next run: ") == 1, told
    # What is measured of the machine is kept in another folder, of which another warning tells.
    assert told.count("Warning: ") - told.count("is measured here is not kept") == 1, told
    assert not list(tmp_path.rglob("*.program"))


def test_programs_that_are_not_to_be_kept(tmp_path):
    (kept, compiled, _), _ = ran(tmp_path, "squared", JAX_ENABLE_COMPILATION_CACHE="false")
    assert (kept, compiled) == (False, 3)
    assert not (tmp_path / "hpjax" / "programs").exists()


def test_an_option_that_jax_has_no_more_is_told_once_and_stops_nothing(monkeypatch):
    asked = []

    def update(option, value):
        asked.append(option)
        raise AttributeError(f"Unrecognized config option: {option}")

    warn_once.cache_clear()
    for variable in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(machine, "jax", SimpleNamespace(config=SimpleNamespace(update=update), __version__="0.99"))
    with pytest.warns(RuntimeWarning) as caught:
        [machine.setup() for _ in range(2)]
    assert [str(each.message).split(":")[0] for each in caught] == asked[: len(asked) // 2]
    assert asked[0] == "jax_num_cpu_devices"
    assert "jax 0.99 has no such option, so one device computes on all cores" in str(caught[0].message)
