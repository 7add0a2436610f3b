"""Runs that are interrupted, and what they must end with."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np

import hpjax as hpx
from tests.support.compare import same_bits
from tests.support.killed import PADDED, SWEEPS


@functools.cache
def whole(name):
    """The result of a sweep that nothing interrupted, and how many events there were."""
    sweep = SWEEPS[name]
    return sweep.run(progress=False), sum(1 for _ in sweep.events())


def check(directory, name):
    """A directory holds what an uninterrupted run finds: no trial is missing or doubled, and every bit is the same."""
    found, (expected, _) = hpx.load(directory), whole(name)
    padded = found.manifest.sweep.padded
    assert padded == expected.manifest.sweep.padded
    assert bool(padded) == (name in PADDED), "laws 9 and 2 hold for padded programs, too"
    for field in ("hparams", "first_hparams", "lineage", "ranking"):
        assert getattr(found, field) == getattr(expected, field)
    assert np.array_equal(found.lane_status, expected.lane_status)
    assert np.array_equal(found.lane_step, expected.lane_step)
    for metric in ("step", *expected.metrics):
        assert same_bits(found.curves(metric), expected.curves(metric))
    for one, other in zip(found, expected, strict=True):
        assert one.artifacts.keys() == other.artifacts.keys()
        for kept in one.artifacts:
            a, b = one.artifacts[kept], other.artifacts[kept]
            assert [step for step, _ in a] == [step for step, _ in b]
            assert all(same_bits(x, y) for (_, x), (_, y) in zip(a, b, strict=True))
    for trial in np.flatnonzero(expected.statuses != "diverged").tolist():
        for replicate in range(expected.lane_status.shape[1]):
            a, b = (jax.tree.leaves(each[trial].restore(replicate)) for each in (found, expected))
            assert all(map(same_bits, a, b))
    assert not (Path(directory) / "checkpoints").exists(), "of no use any more"


def abandon(name, directory, after, **changes):
    """Stops listening after so many events."""
    events = dataclasses.replace(SWEEPS[name], **changes).events(directory, checkpoint_seconds=0.0)
    for number, _ in enumerate(events, start=1):
        if number == after:
            break
    events.close()  # which else waits for the garbage collection
