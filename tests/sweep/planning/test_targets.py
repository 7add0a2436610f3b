"""The search for widths on devices that are not there, with compilers that are made up; tests/aot has the real ones."""

from functools import partial
from types import SimpleNamespace

import pytest

import hpjax as hpx
from hpjax.engine.chips import CHIPS
from hpjax.engine.hlo import Traffic
from hpjax.engine.targets import Target
from hpjax.sweep.planning.footprint import Footprint, Memory
from hpjax.sweep.planning.targets import _other_error, fastest, widest_that_fits
from hpjax.sweep.planning.width import balanced

LIMIT = 1000
V5E, H100 = (Target(name, CHIPS[name], ()) for name in ("v5e", "h100"))


def footprint(width, moved=1.0, temporaries=0, state=0):
    step = Traffic(bytes=moved * width)
    return Footprint(0, width, Memory(state, 100, temporaries), step, {}, (0.0, 1.0), 0.0)


def compiler(takes, tried):
    """A compiler for a device of 1,000 bytes, whose programs have 100 bytes of data and ``takes(width)`` others."""

    def compiling(width):
        tried.append(width)
        fits = 100 + takes(width) <= LIMIT
        return footprint(width, temporaries=takes(width)) if fits else f"it takes {takes(width)}"

    return compiling


@pytest.mark.parametrize(
    ("takes", "widest"),
    [
        (lambda width: 10 * width, 90),
        (lambda width: 0.001 * width**2 + width, 572),
        (lambda width: 500 + width, 400),  # most of it whatever the width
        (lambda width: 0, 4096),
        (lambda width: 901 * (width > 1), 1),
        (lambda width: 30 * width if width > 8 else 0, 30),
    ],
)
def test_the_widest_width(takes, widest):
    """It fits, a tenth more does not, and few are compiled."""
    tried = []
    found = widest_that_fits(compiler(takes, tried), 4096, LIMIT)
    assert widest / 1.11 <= found.width <= widest
    assert len(tried) <= 12
    assert len(tried) == len(set(tried))


def test_no_width_fits():
    tried = []
    assert widest_that_fits(compiler(lambda width: 1000, tried), 4096, LIMIT) == "it takes 1000"
    assert tried[-1] == 1


def test_lanes_that_stay_on_the_chip():
    """They do at 1/16 of what fits, and at 1/4 nothing is gained."""
    tried = []

    def compiling(width):
        tried.append(width)
        return footprint(width, moved=1e6 if width > 256 else 0.0)

    share = partial(balanced, lanes=4096, spans=1)
    assert fastest(compiling, share, footprint(4096, 1e6), V5E).width == 256
    assert tried == [1024, 256], "then nothing moves"
    assert fastest(compiling, share, footprint(4096, 1e6), H100).width == 4096, "a GPU keeps nothing there"


def test_no_slot_stays_empty():
    """900 of 1,000 lanes fit: 500 are computed at once, in as many chunks."""
    share = partial(balanced, lanes=1000, spans=1)
    found = fastest(lambda width: footprint(width, 0.0), share, footprint(900, 0.0), H100)
    assert found.width == 500


def test_time_at_best():
    """What is longest of arithmetic, in 16 bits at its own rate, and of what moves."""
    chip = CHIPS["h100"]
    half = footprint(1)._replace(flops=(2e12, 1e12))
    assert half.seconds(chip) == pytest.approx(1e12 / 494.7e12 + 2e12 / 989.4e12)
    assert half.bound(chip) == "arithmetic"
    assert footprint(4, moved=3350e9).seconds(chip) == pytest.approx(1.0)
    assert footprint(4, moved=3350e9).bound(chip) == "memory"
    near = footprint(2)._replace(step=Traffic(near_bytes=2 * 22 * 819e9))
    assert near.seconds(CHIPS["v5e"]) == pytest.approx(1.0)
    assert near.bound(CHIPS["v5e"]) == "memory on chip"


def test_padding():
    padded = footprint(2)._replace(step=Traffic(bytes=6, near_bytes=2, padding=2))
    assert padded.padding == 0.25
    assert footprint(2)._replace(step=Traffic()).padding == 0


def test_what_a_compiler_says():
    group = SimpleNamespace(number=3)
    error = _other_error(group, H100, "Couldn't find a suitable version of ptxas")
    assert isinstance(error, hpx.InputError)
    assert "Write pip install nvidia-cuda-nvcc." in str(error)
    error = _other_error(group, V5E, "Not implemented: a thing")
    assert isinstance(error, hpx.ProgramError)
    assert "group 3 does not compile for v5e: Not implemented: a thing." in str(error)
