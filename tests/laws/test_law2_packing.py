"""Law 2. At a fixed width nothing about the packing changes a bit of a trial."""

import dataclasses

import jax
import numpy as np
import pytest

import hpjax as hpx
from hpjax.engine import layout, sharding
from hpjax.engine.compile import compiling
from hpjax.engine.device_lanes import DeviceLanes, LaneTable
from hpjax.engine.segment import SegmentConfig
from hpjax.engine.tracing import shapes_of
from tests.support.compare import same_bits
from tests.support.marks import slow
from tests.support.programs import SPACE, classifier

WIDTH, SEED = 4, 3
DIVERGING = 1e8


def points():
    rng = np.random.default_rng(5)
    rates = 10 ** rng.uniform(-3, 0, 40)
    rates[[4, 23]] = DIVERGING  # neighbours full of NaN
    return [{"learning_rate": float(r), "momentum": float(m)} for r, m in zip(rates, rng.uniform(0, 0.95, 40))]


POINTS = points()
DEVICES = min(4, len(jax.devices()))  # one on a machine with one accelerator, where this law is tested, too
PROGRAM = classifier()


def run(points, **changes):
    sweep = hpx.Sweep(
        PROGRAM,
        SPACE,
        replicates=2,
        sampler=hpx.Manual(points),
        seed=SEED,
        width=WIDTH,
        **({"devices": DEVICES} | changes),
    )
    return sweep.run(progress=False)


@pytest.fixture(scope="module")
def reference():
    result = run(POINTS)
    assert list(np.flatnonzero(result.statuses == "diverged")) == [4, 23]
    return result


def assert_same(reference, other, trials):
    """Trial i of ``other`` is trial ``trials[i]`` of the reference, to the bit."""
    for metric in ("step", *reference.metrics):
        assert same_bits(reference.curves(metric)[trials], other.curves(metric)), metric
    assert (reference.lane_status[trials] == other.lane_status).all()
    assert (reference.lane_step[trials] == other.lane_step).all()
    compared = 0
    for mine, theirs in enumerate(trials):
        for replicate in range(2):
            if other.lane_status[mine, replicate] == "complete":
                for (path, a), (_, b) in zip(other.leaves(mine, replicate), reference.leaves(theirs, replicate)):
                    assert same_bits(a, b), (theirs, path)
                compared += 1
    assert compared


@pytest.mark.parametrize("devices", [1, slow(2)])
def test_number_of_devices(reference, devices):
    assert_same(reference, run(POINTS, devices=devices), range(40))


@pytest.mark.parametrize("segment", [slow(1), 5])
def test_length_of_segments(reference, segment):
    # The reference makes segments of 7 steps, from one evaluation to the next.
    assert_same(reference, run(POINTS, segment=segment), range(40))


@pytest.mark.slow
def test_all_steps_in_one_segment():
    once = dataclasses.replace(PROGRAM, eval_every=21)
    sweep = hpx.Sweep(once, SPACE, sampler=hpx.Manual(POINTS), seed=SEED, width=WIDTH)
    whole = sweep.run(progress=False)
    parts = dataclasses.replace(sweep, segment=4).run(progress=False)
    assert sweep.plan().segments(sweep.plan().groups[0]) == 1
    assert_same_of_one_replicate(whole, parts)


def assert_same_of_one_replicate(a, b):
    assert same_bits(a.curves("valid/loss"), b.curves("valid/loss"))
    assert same_bits(a.curves("train/loss"), b.curves("train/loss"))
    for trial in np.flatnonzero(a.statuses == "complete"):
        assert all(same_bits(x, y) for (_, x), (_, y) in zip(a.leaves(trial), b.leaves(trial), strict=True))


def test_order_of_trials(reference):
    assert_same(reference, run(POINTS[::-1]), range(39, -1, -1))


@pytest.mark.parametrize("trial", [0, 17])
def test_a_trial_in_a_sweep_of_its_own(reference, trial):
    assert_same(reference, run([POINTS[trial]], devices=1), [trial])


@pytest.mark.parametrize("randomness", ["shared", slow("independent")])
def test_every_trial_alone_in_one_program(randomness):
    """Each of 40 trials alone in the very program that trains all 40, on every device and in any company."""
    program = PROGRAM
    sweep = hpx.Sweep(program, SPACE, sampler=hpx.Manual(POINTS), seed=SEED, width=WIDTH, randomness=randomness)
    shapes = sweep.plan().shapes[0]
    config = SegmentConfig(
        program, shapes, WIDTH, independent=randomness == "independent", own_budget=False, drawn=True
    )
    splits = program.data.train, program.data.valid
    mesh = sharding.mesh(sharding.devices(min(DEVICES, 2)))

    def table(trials):
        values = {n: np.array([POINTS[t][n] for t in trials], np.float32) for n in SPACE.names}
        h = hpx.Hparams(values, SPACE.names)
        return LaneTable(
            np.array(trials, np.int32), np.zeros(len(trials), np.int32), np.full(len(trials), 21, np.int32), h
        )

    chunks = layout.chunks_needed(np.zeros(40, np.int32), WIDTH, 2)
    compiled = compiling(config, table(range(40)).h, *map(shapes_of, splits), mesh, chunks).wait()

    def train(trials):
        lanes = DeviceLanes(config, compiled, table(trials), SEED, *splits)
        reports = [lanes.advance(step, True) for step in (7, 14, 21)]
        return reports, lanes.gathered().state

    together, states = train(range(40))
    if randomness == "independent":
        start = [train([t])[0][0].metrics["train/loss"][0] for t in (0, 1)]
        assert start[0] != start[1]
    for trials in [*([t] for t in range(40)), [39, 4, 0, 23, 11]]:
        reports, own = train(trials)
        for a, b in zip(together, reports, strict=True):
            assert all(same_bits(a.metrics[name][trials], b.metrics[name]) for name in shapes.metrics)
            assert (a.diverged[trials] == b.diverged).all()
        for x, y in zip(jax.tree.leaves(states), jax.tree.leaves(own), strict=True):
            assert same_bits(x[trials], y)
