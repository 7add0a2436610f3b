"""Law 9. What is interrupted goes on from its last checkpoint and ends with the bits of what was not."""

import jax
import numpy as np
import pytest
from helpers import quadratic, same_bits

import hpjax as hpx

RATES = hpx.Space(rate=hpx.LogUniform(1e-4, 1e3))
POPULATION = hpx.Manual([{"rate": rate} for rate in (0.001, 0.01, 0.02, 0.03, 0.04, 500.0)])


SIZES = hpx.Space(rate=hpx.LogUniform(1e-3, 3.0), size=hpx.Choice(1, 2, 3))
GROUPS, ALONE = quadratic(24, 4, size=lambda h: h.size), quadratic(24, 4)
SWEEPS = {
    "groups": hpx.Sweep(GROUPS, SIZES, trials=12, width=2, devices=2),
    "halving": hpx.Sweep(GROUPS, SIZES, trials=12, width=2, scheduler=hpx.Halving(factor=2, min_steps=4)),
    "population": hpx.Sweep(ALONE, RATES, sampler=POPULATION, width=2, scheduler=hpx.PBT(every=4)),
    "rounds": hpx.Sweep(ALONE, RATES, trials=6, rounds=3, replicates=2, sampler=hpx.Bayes(initial=2), width=2),
}


def outcome(result):
    return {
        "hparams": result.hparams,
        "lineage": result.lineage,
        "status": result.lane_status.tolist(),
        "step": result.lane_step.tolist(),
        "best": result.best.id,
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_an_interrupted_run_ends_like_one_that_was_not(name, tmp_path):
    sweep = SWEEPS[name]
    events = sum(1 for _ in sweep.events(tmp_path / "whole"))
    whole = hpx.load(tmp_path / "whole")
    for stop in (events // 3, 2 * events // 3):
        directory = tmp_path / str(stop)
        for number, _ in enumerate(sweep.events(directory, checkpoint_seconds=0.0)):
            if number == stop:
                break
        assert (directory / "checkpoints").exists()
        rest = 0
        for event in sweep.events(directory, checkpoint_seconds=0.0):
            rest += event.kind == "segment"
        found = hpx.load(directory)
        assert outcome(found) == outcome(whole)
        for metric in ("step", *whole.metrics):
            assert same_bits(found.curves(metric), whole.curves(metric))
        for trial in np.flatnonzero(whole.statuses != "diverged").tolist():
            a, b = (jax.tree.leaves(each[trial].restore()) for each in (found, whole))
            assert all(map(same_bits, a, b))
        assert not (directory / "checkpoints").exists()
        assert 0 < rest < events
