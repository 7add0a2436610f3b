"""What a script sets of JAX by one line, in a process of its own."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hpjax.core.fallback import warn_once
from hpjax.engine import machine
from tests.support.marks import slow

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
    assert folder.startswith(str(tmp_path / "hpjax" / "xla"))


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
