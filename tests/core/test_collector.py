"""The garbage collector is paused while programs are traced, and on again whatever happens."""

import gc

import pytest

import hpjax as hpx
from hpjax.core.collector import collector_paused
from tests.support.programs import RATES


def test_nothing_is_collected_while_a_program_is_traced():
    seen = []

    def watched(key, h):
        seen.append(gc.isenabled())
        return {"loss": h.rate}

    hpx.Sweep(hpx.function(watched), RATES, trials=2).run(progress=False)
    assert gc.isenabled()
    assert seen
    assert not any(seen)


def test_it_is_on_again_after_an_error():
    with pytest.raises(ValueError, match="no"), collector_paused():
        raise ValueError("no")
    assert gc.isenabled()


def test_whoever_turned_it_off_finds_it_off():
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
