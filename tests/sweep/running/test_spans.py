"""Lanes that span several devices, in what a run does beside training: waves, artifacts, tests, predictions."""

import numpy as np
import optax
import pytest

import hpjax as hpx
from hpjax.engine import sharding
from tests.support.compare import same_bits
from tests.support.marks import slow
from tests.support.spans import DATA, Net, assert_same, program, sweep

SPAN = {"devices": 4, "devices_per_lane": 2, "partition": "fsdp"}
# Bytes a device, which hold two of six lanes.
MEMORY = 100_000


@pytest.fixture(scope="module")
def result():
    data = hpx.Data(DATA.train, DATA.valid, DATA.valid)

    def artifacts(params, outputs):
        return {"kernel": params["Dense_1"]["kernel"], "outputs": outputs}

    return sweep(program(data=data, artifacts=artifacts), **SPAN, artifacts="best:1").run(progress=False)


def test_artifacts_are_those_of_the_state(result):
    best = result.best
    kernel, outputs = (best.artifacts[name][-1][1] for name in ("kernel", "outputs"))
    assert same_bits(kernel, best.restore()["params"]["Dense_1"]["kernel"])
    np.testing.assert_allclose(outputs, Net().apply({"params": best.restore()["params"]}, DATA.valid.x), rtol=1e-5)


def test_what_is_computed_of_a_trained_lane(result):
    outputs = Net().apply({"params": result.best.restore()["params"]}, DATA.valid.x)
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, DATA.valid.y).mean()
    np.testing.assert_allclose(result.test()["test/loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(result.best.predict(DATA.valid.x)[0], outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheduler", [hpx.PBT(every=4), slow(hpx.Halving(factor=2, min_steps=4))])
def test_waves_that_wait_on_the_host_change_no_bit(monkeypatch, scheduler):
    """Clones take over lanes of other waves, too."""
    many = {**SPAN, "sampler": hpx.Sobol(), "trials": 6, "scheduler": scheduler}
    whole = sweep(**many).run(progress=False)
    monkeypatch.setattr(sharding, "memory", lambda: MEMORY)
    plan = sweep(**many).plan()
    assert plan.offloads
    assert len(plan.arrangements[0].waves) == 3
    found = sweep(**many).run(progress=False)
    monkeypatch.undo()
    assert_same(found, whole)
