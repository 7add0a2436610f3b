"""Laws 2 and 9 over eight devices, which only a process of its own has: what it asserts stands in support/eight.py."""

import pytest

import hpjax as hpx
from tests.support.processes import started
from tests.support.programs import RATES, quadratic


@pytest.mark.slow
@pytest.mark.parametrize("what", ["spreading", "resuming"])
def test_over_eight_devices(what, tmp_path, counted):
    # That no segment has a collective holds for programs as users compile them.
    unset = {"XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"} if what == "spreading" else set()
    with started("eight", what, tmp_path, unset=unset) as process:
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    counted(out.strip())


def test_another_way_of_spreading():
    with pytest.raises(hpx.InputError, match=r"Sweep.spread = 'xmap': must be one of \('shard_map', 'pmap'\)"):
        hpx.Sweep(quadratic(), RATES, trials=2, spread="xmap")
