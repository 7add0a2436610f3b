"""Sweeps compiled for TPUs and GPUs that are not there, against what was recorded; for ``make test-aot``."""

import sys
from dataclasses import replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.engine.hlo import CompiledText
from hpjax.engine.targets import described
from hpjax.sweep.planning.footprint import Memory
from hpjax.sweep.planning.planner import plan_first_round
from tests.support.marks import few_of
from tests.support.spans import assert_within_lanes, collectives, compiled, executable

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"
try:
    version("libtpu"), version("jax-cuda13-plugin")
except PackageNotFoundError as error:
    pytest.skip(f"{error}: make test-aot installs it", allow_module_level=True)

AIR = 1.1
KIB, MIB = 2**10, 2**20


class Bound(NamedTuple):
    """What a step was recorded to take, at some width.

    Attributes:
      width: lanes at once.
      operations: of a step.
      moved: bytes a lane-step between the large memory and the chip.
      near: bytes a lane-step in the memory on the chip.
      temporaries: bytes a lane.
    """

    width: int
    operations: int
    moved: float
    near: float
    temporaries: float


BOUNDS = {
    ("mlp", "v5e:2x2"): Bound(256, 41, 4, 860 * KIB, 184 * KIB),
    ("mlp", "h100"): Bound(256, 23, 555 * KIB, 0, 134 * KIB),
    ("cnn", "v5e:2x2"): Bound(16, 106, 66.4 * MIB, 72.2 * MIB, 22.8 * MIB),
    ("cnn", "h100"): Bound(16, 42, 44.4 * MIB, 0, 9.5 * MIB),
    ("transformer", "v5e:2x2"): Bound(16, 379, 9.9 * MIB, 63.3 * MIB, 16.2 * MIB),
    ("transformer", "h100"): Bound(16, 153, 47.6 * MIB, 0, 6.5 * MIB),
    ("lstm", "v5e:2x2"): Bound(16, 1083, 18 * MIB, 71.4 * MIB, 9.3 * MIB),
    ("lstm", "h100"): Bound(16, 1650, 82.7 * MIB, 0, 8.8 * MIB),
}


def footprint(sweep, name, count=None):
    """Plans a sweep of one group for a target; returns the plan and what its program takes."""
    plan = sweep.plan(target=name, count=count)
    (found,) = plan.footprints
    return plan, found


def check(found, bound):
    """What holds of every sweep: lanes do not wait for each other, and steps for nothing that is computed."""
    assert found.collectives == {}
    assert found.step.open_loops == found.step.conditionals == 0
    temporaries = found.memory.temporaries / found.width
    taken = Bound(found.width, found.step.kernels, found.bytes, found.near_bytes, temporaries)
    assert all(own <= AIR * most for own, most in zip(taken, bound)), f"{taken} where {bound} was recorded"


@pytest.fixture(scope="module")
def language_model():
    """A function of a name to a module of the language model, whose folder is not importable otherwise."""
    folder = str(FOLDER.parent / "language_model")
    sys.path.insert(0, folder)
    yield import_module
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def workloads():
    """The sweeps of the benchmarks, by their names; the folder is not importable otherwise."""
    sys.path.insert(0, str(FOLDER))
    try:
        import ours
        from ours import sweep_of

        ours.cores = lambda: jax.config.jax_num_cpu_devices  # which cannot change any more
        names = ("mlp", "cnn", "transformer", "lstm")
        own = {name: __import__(name).sweep for name in names}
        yield {name: lambda n, w=w, **more: sweep_of(w, w.arrays(n), width=n, **more) for name, w in own.items()}
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(("name", "device"), BOUNDS, ids=lambda each: each)
def test_workloads(workloads, name, device):
    bound = BOUNDS[name, device]
    with jax.numpy_rank_promotion("allow"):  # in the transformer
        _, found = footprint(workloads[name](bound.width), device, count=1)
    check(found, bound)
    assert name == "lstm" or found.step.loops == 0, "its layer is a loop over time"
    assert (name, device) != ("mlp", "h100") or found.step.kernels <= 24


@pytest.mark.parametrize("device", ["v5e:2x2", "h100"])
def test_half_the_bytes(workloads, device):
    """In bfloat16 the forward and the backward pass of the CNN move about half as much."""
    sweeps = [workloads["cnn"](16, **more) for more in ({}, {"trained": {"compute_dtype": "bfloat16"}})]
    full, half = (found.bytes + found.near_bytes for _, found in (footprint(each, device, 1) for each in sweeps))
    assert half <= 0.65 * full


RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(240, 16)).astype(np.float32), RNG.integers(4, size=240)
SPACE = {"rate": hpx.LogUniform(1e-3, 1.0)}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.relu(nn.Dense(32)(x)))


def small(space=SPACE, trials=64, program=(), **settings):
    """A sweep of a small network."""
    given = {
        "model": lambda h: Net(),
        "optimizer": lambda h: optax.sgd(h.rate, 0.9),
        "loss": optax.softmax_cross_entropy_with_integer_labels,
        "data": hpx.data.from_arrays(X, Y),
        "batch_size": 16,
        "steps": 40,
        "eval_every": 20,
    }
    given = {name: value for name, value in (given | dict(program)).items() if value is not None}
    return hpx.Sweep(hpx.supervised(**given), hpx.Space(**space), trials=trials, **settings)


def batches():
    """Batches without end."""
    rng = np.random.default_rng(0)
    while True:
        at = rng.integers(len(X), size=16)
        yield X[at], Y[at]


KINDS = {
    "population": lambda: small(scheduler=hpx.PBT(every=20)),
    "microbatches": lambda: small(
        SPACE | {"batch_size": hpx.Choice(16, 32, 64)}, program={"batch_size": lambda h: h.batch_size, "microbatch": 16}
    ),
    "folds": lambda: small(folds=3),
    "noise of their own": lambda: small(randomness="independent"),
    "pmap": lambda: small(spread="pmap"),
}


# On v5e:4x4, with 4 lanes a device, and on an H100.
KIND_BOUNDS = {
    "population": (Bound(4, 39, 270, 146 * KIB, 419 * KIB), Bound(64, 21, 39.7 * KIB, 0, 10.2 * KIB)),
    "microbatches": (Bound(4, 43, 270, 295 * KIB, 103 * KIB), Bound(64, 22, 57.8 * KIB, 0, 13.8 * KIB)),
    "folds": (Bound(4, 46, 270, 146 * KIB, 426 * KIB), Bound(64, 21, 39.7 * KIB, 0, 10.2 * KIB)),
    "noise of their own": (Bound(4, 44, 8, 266 * KIB, 640), Bound(64, 20, 49.9 * KIB, 0, 11.2 * KIB)),
    "pmap": (Bound(4, 39, 270, 146 * KIB, 419 * KIB), Bound(64, 21, 39.7 * KIB, 0, 10.2 * KIB)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ["v5e:4x4", "h100"])
def test_kinds(kind, device):
    """Each is compiled for a slice of four hosts, and for a GPU: its lanes share the devices, and never meet."""
    plan, found = footprint(KINDS[kind](), device)
    check(found, KIND_BOUNDS[kind][device == "h100"])
    lanes = plan.trials * plan.replicates
    assert plan.devices[0] == (16 if device == "v5e:4x4" else 1)
    assert found.width == plan.widths[0] <= lanes
    assert found.memory.data >= 0
    assert plan.best_seconds > 0


def test_stream():
    stream = hpx.data.stream(batches, block=4, valid=(X[:32], Y[:32]))
    bounds = {"v5e:2x2": Bound(16, 36, 35, 104 * KIB, 38 * KIB), "h100": Bound(64, 17, 39.5 * KIB, 0, 10.2 * KIB)}
    for device, bound in bounds.items():
        check(footprint(small(program={"data": stream, "batch_size": None}), device)[1], bound)


def test_state_is_counted():
    """A lane of the state is 16·32 + 32 + 32·4 + 4 numbers, and as many of momentum; counters and totals beside it."""
    _, found = footprint(small(width=64), "h100")
    numbers = 2 * (16 * 32 + 32 + 32 * 4 + 4)
    assert 64 * 4 * numbers <= found.memory.state <= 64 * (4 * numbers + 64)
    assert sum(found.flops) == 2 * 16 * (16 * 32 * 2 + 32 * 4 * 3), "forward, to the weights, and to the activations"


def test_room():
    """The widest width that fits is found, and none where there is none."""

    class Wide(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(nn.Dense(16_384, param_dtype=jnp.float32)(nn.Dense(16_384)(x)))

    # A lane has 1 GiB of parameters and as much of momentum, and a device 15.75 GiB.
    plan, found = footprint(small(trials=16, program={"model": lambda h: Wide()}), "v5e:2x2", count=1)
    assert 1 <= plan.widest[0] <= 7
    assert found.width == plan.widths[0] <= plan.widest[0]
    (waves,) = (each.waves for each in plan.arrangements)
    assert sum(map(len, waves)) == 16
    assert max(map(len, waves)) >= found.width, "no wave is too small for the width"
    assert sum(found.memory) <= plan.target.chip.limit
    with pytest.raises(
        hpx.InputError, match=r"Sweep.width = 16: does not fit on 1 × v5e, where .* Write a smaller width"
    ):
        footprint(small(trials=16, width=16, program={"model": lambda h: Wide()}), "v5e:2x2", count=1)


def test_no_room():
    class Huge(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(nn.Dense(65_536)(nn.Dense(65_536)(x)))

    with pytest.raises(hpx.ProgramError, match=r"fits at no width on 1 × v5e, .* 32\.0 GiB are the state of the lane"):
        footprint(small(trials=2, program={"model": lambda h: Huge()}), "v5e:2x2", count=1)


def test_more_devices_a_lane_have_room():
    """The error says how many, and with these it fits."""

    class Large(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(nn.Dense(32_768)(nn.Dense(32_768)(x)))

    large = small(trials=1, width=1, program={"model": lambda h: Large()})
    told = r"fits at no width on v5e:2x2, .* Write devices_per_lane=4, partition=\"fsdp\"; or a smaller model"
    with pytest.raises(hpx.ProgramError, match=told):
        footprint(large, "v5e:2x2")
    _, found = footprint(replace(large, devices_per_lane=4, partition="fsdp"), "v5e:2x2")
    assert sum(found.memory) < described("v5e:2x2").chip.limit


def test_lanes_that_span_gpus(language_model):
    """Weights are gathered where they meet examples, in bfloat16, and gradients reduced; nothing crosses lanes."""
    of = language_model("lm").described(layers=2, width=256, trials=4, devices_per_lane=2)
    plan, found = footprint(of, "h100", 4)
    assert plan.spans == 2
    # Gathered for the forward and for the backward pass, and reduced.
    least = 3 * 2 * plan.shapes[0].parameters
    assert least <= found.step.exchanged <= 1.5 * least
    # Activations would be 64 sequences of 1,024 tokens each.
    assert found.memory.temporaries < 64 * 1024 * 50_257 * 4 / 2 * 1.5
    spec = replace(of.spec, devices=described("h100", 4).devices)
    assert_within_lanes(compiled(of, spec=spec), 2)


# Layers, width, chips of a lane, and how many times the least a step exchanges: axes of 12 heads are padded to 16.
LARGE = {"plan_124m": (12, 768, 4, 1.4), "plan_1_3b": (24, 2_048, 16, 1.05)}


@pytest.mark.parametrize("name", few_of(LARGE, ["plan_124m"]))
def test_large_models(language_model, name):
    """Their lanes fit, hold what they must, and exchange it with no other lane."""
    layers, width, each, most = LARGE[name]
    target = described("v5e:4x4")
    of = language_model(name).sweep
    spec = replace(of.spec, devices=target.devices)
    plan, found = plan_first_round(spec), executable(of, spec=spec)
    # Of a layer 4 products of attention, 2 of a perceptron that is 4 times as wide, and 2 norms; the last norm.
    parameters = layers * (12 * width**2 + 2 * width) + (50_257 + 1_024) * width + width
    assert plan.shapes[0].parameters == parameters
    # All but the last norm is split, and has two averages, by AdamW, which counts its steps, as its schedule does.
    state = 3 * 4 * ((parameters - width) // each + width) + 2 * 4
    assert plan.lane_bytes(0) == state
    memory = Memory.of(found)
    assert state <= memory.state <= 1.1 * state, "axes of heads are padded"
    assert sum(memory) < target.chip.limit
    text = found.as_text()
    assert_within_lanes(text, each)
    shapes = [shape for _, given, _ in collectives(text) for shape in given]
    assert not any({64, 1_024, width} <= set(shape) for shape in shapes), "activations of all examples are exchanged"
    # In bfloat16 all is gathered for the forward and for the backward pass, and gradients are reduced.
    least = 3 * 2 * parameters
    assert least <= CompiledText(text).step.exchanged <= most * least


def test_report():
    text = str(small().plan(target="v5e:2x4"))
    assert "compiled for v5e:2x4: 15.8 GiB of memory for arrays, 819 GB/s, 197 TFLOP/s" in text
    assert "room for" in text
    assert "to train, without evaluations" in text
    assert "to compile" not in text, "what is estimated for this machine says nothing of another"


def test_slices_exist():
    """Every slice that an error names."""
    from hpjax.engine.targets import SLICES

    for chip, slices in SLICES.items():
        for topology in slices:
            assert len(described(f"{chip}:{topology}").devices) == eval(topology.replace("x", "*"))
    with pytest.raises(hpx.InputError, match="must be a slice that exists"):
        described("v5e:3x5")


def test_bytes_agree_with_the_compiler():
    """The compiler's own count of a fusion of two arrays is ours: 2 arrays read and 1 written."""
    (device,) = described("v5e:2x2", 1).devices
    x = jax.ShapeDtypeStruct((4096, 8192), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(device))
    compiled = jax.jit(lambda a, b: jnp.tanh(a) * b + a).lower(x, x).compile()
    assert CompiledText(compiled.as_text()).whole.bytes == 3 * 4096 * 8192 * 4
    assert compiled.cost_analysis()["bytes accessed"] == pytest.approx(3 * 4096 * 8192 * 4, rel=0.01)
