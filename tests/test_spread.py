"""Laws 2 and 9 over eight devices, which only a process of its own has: what it asserts stands in eight.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import RATES, quadratic

import hpjax as hpx

EIGHT = str(Path(__file__).with_name("eight.py"))


@pytest.mark.parametrize("what", ["spreading", "elsewhere"])
def test_over_eight_devices(what, tmp_path, counted):
    # That no segment has a collective holds for programs as users compile them.
    unset = {"XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"} if what == "spreading" else set()
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, EIGHT, what, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr
    counted(done.stdout.strip())


def test_another_way_of_spreading():
    with pytest.raises(hpx.InputError, match=r"Sweep.spread = 'xmap': must be one of \('shard_map', 'pmap'\)"):
        hpx.Sweep(quadratic(), RATES, trials=2, spread="xmap")
