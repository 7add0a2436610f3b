"""What two programs give of the same step: whether it differs by more than rounding."""

from types import SimpleNamespace

import numpy as np
import pytest

from hpjax.sweep.planning.rounding import Step, beyond_rounding, off_by

NAMES = SimpleNamespace(names=(("w",), ("count",)))


def step(loss=1e-4, first=(0.5, -0.25), change=(1e-6, -3e-6), count=1, kind=np.float32):
    w = np.array(first, kind)
    last = (w + np.array(change, kind)).astype(kind)
    return Step({"loss": np.asarray(loss, kind)}, (w, np.int32(0)), (last, np.int32(count)))


def own(loss=1e-4, share=1e-5, **changes):
    """A step from a state, and from states whose numbers are off, by which what it gives is off as much."""
    return [step(loss * (1 + off), **changes) for off in (0, share, -share, share / 2, -share / 2)]


def said(found, there=None, off=8e-6):
    return [text.split(" off by")[0] for text in beyond_rounding(NAMES, there or own(), found, off)]


@pytest.mark.parametrize(
    ("found", "differs"),
    [
        (step(), []),
        (step(loss=1e-4 * (1 + 5e-5)), []),
        (step(loss=1.001e-4), ["gives loss"]),
        (step(loss=0.0), ["gives loss"]),
        (step(loss=np.nan), ["gives loss"]),
        (step(first=(0.50001, -0.25)), []),
        (step(first=(0.501, -0.25)), ["gives the first w"]),
        (step(change=(3e-6, -3e-6)), ["gives the change of w"]),
        (step(count=2), ["gives the change of count"]),
    ],
    ids=str,
)
def test_each_number_counts_by_its_own_size(found, differs):
    assert said(found) == differs


def test_what_is_beyond_the_small_state_must_be_zeros():
    clean, there = step(first=(0.5, -0.25, 0), change=(1e-6, -3e-6, 0)), own()
    assert said(clean, there) == []
    assert said(step(first=(0.5, -0.25, 0), change=(1e-6, -3e-6, 1e-6)), there) == ["gives the change of w"]


def test_what_is_made_of_rounding_is_not_compared():
    there = [step(change=(change, 0)) for change in (1e-6, -2e-6, 1e-6, 3e-6, 2e-6)]
    assert said(step(change=(-9e-6, 0)), there) == []


def test_numbers_that_are_not_finite_must_be_so_in_both():
    endless = own(first=(np.inf, 1.0))
    assert said(step(first=(np.inf, 1.0)), endless) == []
    assert said(step(first=(2.0, 1.0)), endless) == ["gives the first w", "gives the change of w"]


def test_in_float64_ten_digits_and_more_count():
    there = own(kind=np.float64, share=1e-14)
    assert said(step(loss=1e-4 * (1 + 1e-14), kind=np.float64), there, off=1e-14) == []
    assert said(step(loss=1e-4 * (1 + 1e-12), kind=np.float64), there, off=1e-14) == ["gives loss"]


@pytest.mark.parametrize(
    ("coarsest", "platform", "expected"),
    [
        (2.0**-23, "cpu", 2.0**-17),  # 64 roundings
        (2.0**-52, "cpu", 2.0**-46),
        (2.0**-52, "gpu", 2.0**-46),
        (2.0**-23, "gpu", 2.0**-10),  # TF32
        (2.0**-23, "tpu", 2.0**-7),  # bfloat16
        (2.0**-7, "cpu", 2.0**-7),
        (0.0, "cpu", 0.0),
    ],
)
def test_what_rounding_may_bring_about_depends_on_types_and_devices(coarsest, platform, expected):
    assert off_by(SimpleNamespace(coarsest=coarsest), platform) == expected
