"""The laws where a lane spans several devices: as if alone, packing changes no bit, one compile, no lane waits."""

from dataclasses import replace

import jax
import optax
import pytest
from jax.sharding import PartitionSpec

import hpjax as hpx
from hpjax.engine import compile as compiling
from hpjax.sweep.planning.footprint import Memory
from tests.support import spans
from tests.support.processes import started
from tests.support.spans import FOUR, TWO, WIDE, Deep, Net, assert_same, program, sweep


def columns(path, shape):
    return PartitionSpec(None, "data") if path.endswith("kernel") and shape[1] == WIDE else PartitionSpec()


@pytest.mark.parametrize("model", [Net(norm=True), Net(dropout=0.3)], ids=["batch statistics", "dropout"])
@pytest.mark.parametrize(
    "options",
    [FOUR, TWO, TWO | {"partition": "fsdp"}, FOUR | {"partition": columns}],
    ids=["1 × 4", "2 × 2", "2 × 2 fsdp", "1 × 4 columns"],
)
def test_law_1(model, options):
    with jax.enable_x64(True):
        assert spans.as_if_alone(model, **options) < 1e-9


SCHEDULERS = {"halving": hpx.Halving(factor=2, min_steps=4), "population": hpx.PBT(every=4), "none": None}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_law_2_and_9(name, tmp_path):
    """Fewer devices for all lanes, and others after a resume, change no bit."""
    many = {"sampler": hpx.Sobol(), "trials": 7, "scheduler": SCHEDULERS[name], "partition": "fsdp"}
    whole = sweep(**TWO, **many)
    expected = whole.run(progress=False)
    assert_same(expected, replace(whole, devices=2).run(progress=False))
    assert_same(expected, spans.elsewhere(whole, tmp_path / "run", 2))
    assert whole.replay(expected[3]).agrees


def test_law_3(monkeypatch):
    """One program serves all values and rungs."""
    lowered = []
    own = compiling.Compiled.lower
    monkeypatch.setattr(compiling.Compiled, "lower", lambda self, name: (lowered.append(name), own(self, name))[1])
    trained = program()
    for seed in (0, 1):
        many = {"sampler": hpx.Random(), "trials": 7, "scheduler": hpx.Halving(factor=2, min_steps=4)}
        sweep(trained, **TWO, **many | {"seed": seed}).run(progress=False)
    assert sorted(lowered) == ["advance", "evaluate", "start"]


def test_no_lane_waits():
    for name in compiling.FUNCTIONS:
        spans.assert_within_lanes(spans.compiled(sweep(**TWO, partition="fsdp"), name), 2)


@pytest.mark.parametrize("trials", [1, 3])
def test_devices_hold_lanes_once(trials):
    """Each has its parts of all lanes, and of one of them, where there are several, those that a step makes of these.

    That one is cut out. A step has gradients and updates, in parts as the weights, and some layers whole.
    """
    layers, devices = 16, 4
    deep = program(Deep(layers), optimizer=lambda h: optax.adamw(h.rate), batch_size=8)
    found = Memory.of(spans.executable(sweep(deep, **FOUR, partition="fsdp", sampler=hpx.Random(), trials=trials)))
    layer = WIDE * WIDE * 4
    # The first and the last kernel, of 5 features and 3 classes, are too small to be split.
    weights = layers * layer // devices + (5 + 3) * WIDE * 4
    # Five numbers: the optimizer's count; and the lane's steps, in all and since it was evaluated, its loss and health.
    lane = 3 * weights + 5 * 4
    assert found.state == trials * lane, "all of it is donated"
    assert found.temporaries < 2 * weights + 4 * layer + (trials > 1) * lane < (1 + (trials > 1)) * lane


@pytest.mark.slow
def test_over_eight_devices(counted):
    with started("eight", "spanning", unset={"XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"}) as process:
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    counted(out.strip())
