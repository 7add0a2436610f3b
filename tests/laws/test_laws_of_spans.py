"""The laws where a lane spans several devices: as if alone, packing changes no bit, one compile, no lane waits."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import PartitionSpec

import hpjax as hpx
from hpjax.engine import compile as compiling
from hpjax.engine.hlo import CompiledText
from tests.support import spans
from tests.support.networks import Dense
from tests.support.processes import started
from tests.support.spans import DATA, PARAMETERS, WIDE, Net, assert_same, collectives, program, sweep

FOUR = {"devices": 4, "devices_per_lane": 4}
TWO = {"devices": 4, "devices_per_lane": 2}


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


OTHERS = {
    "a batch that the devices do not divide": (program(batch_size=10), {}),
    "fewer examples than devices": (program(batch_size=3), {}),
    "microbatches": (program(microbatch=8), {}),
    "evaluations in parts": (program(eval_batch_size=8), {}),
    "folds": (program(), {"folds": 3}),
    "own randomness": (program(), {"randomness": "independent"}),
    "several at once": (program(), {"width": 3}),
    "an average, and early stopping": (program(average=0.9, early_stopping=hpx.EarlyStopping(patience=1)), {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_one_device_computes(name):
    trained, options = OTHERS[name]
    with jax.enable_x64(True):
        one = sweep(trained, devices=1, **options).run(progress=False)
        for devices in (TWO, FOUR):
            several = sweep(trained, **devices, partition="fsdp", **options).run(progress=False)
            for metric in one.metrics:
                np.testing.assert_allclose(several.curves(metric), one.curves(metric), rtol=1e-9)


def test_a_stream():
    def batches():
        rng = np.random.default_rng(1)
        while True:
            chosen = rng.integers(0, 54, 16)
            yield DATA.train.x[chosen], DATA.train.y[chosen]

    valid = DATA.valid.x, DATA.valid.y
    trained = program(batch_size=None, data=hpx.data.stream(batches, valid=valid, block=3))
    one, several = (sweep(trained, **options).run(progress=False) for options in ({"devices": 1}, TWO))
    np.testing.assert_allclose(several.curves("valid/loss"), one.curves("valid/loss"), rtol=1e-5)


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


def test_gradients_are_all_that_is_exchanged():
    """With data parallelism all gradients once a step, and two numbers; of split weights parts of them, once."""
    text = spans.compiled(sweep(**TWO))
    spans.assert_within_lanes(text, 2)
    assert CompiledText(text).step.exchanged == 4 * PARAMETERS + 4, "and the loss, as plans say it"
    ((kind, shapes, _),) = collectives(text)
    kernels = {(1, 5, WIDE), (1, WIDE, WIDE), (1, WIDE, 3)}
    assert kind == "all-reduce"
    assert {tuple(sorted(shape)) for shape in shapes if len(shape) == 3} == {tuple(sorted(k)) for k in kernels}
    text = spans.compiled(sweep(**TWO, partition="fsdp"))
    spans.assert_within_lanes(text, 2)
    assert CompiledText(text).step.exchanged == 4 * PARAMETERS + 4 * WIDE**2 + 4
    (gathered,), (reduced,) = (
        [shapes for kind, shapes, _ in collectives(text) if kind == wanted] for wanted in ("all-gather", "all-reduce")
    )
    assert [sorted(shape) for shape in gathered] == [[1, WIDE, WIDE]]
    assert {tuple(sorted(shape)) for shape in reduced if len(shape) == 3} == {tuple(sorted(k)) for k in kernels}
    assert {kind for kind, _, _ in collectives(text)} == {"all-gather", "all-reduce"}
    for name in ("start", "evaluate"):
        spans.assert_within_lanes(spans.compiled(sweep(**TWO, partition="fsdp"), name), 2)


@pytest.mark.parametrize("options", [{}, {"folds": 3}], ids=["parts", "parts of folds"])
def test_evaluations_exchange_sums_alone(options):
    """Parts of a split, which each device has whole, are taken without an exchange."""
    text = spans.compiled(sweep(program(eval_batch_size=8), **TWO, **options), "evaluate")
    spans.assert_within_lanes(text, 2)
    assert [(kind, shapes) for kind, shapes, _ in collectives(text)] == [("all-reduce", [(1,)])]


class Named(nn.Module):
    """Names of a mesh's axes, and logical ones."""

    @nn.compact
    def __call__(self, x, train=False):
        normal = nn.initializers.lecun_normal()
        x = nn.tanh(Dense(WIDE, kernel_init=nn.with_partitioning(normal, (None, "data")))(x))
        x = nn.tanh(Dense(WIDE, kernel_init=nn.with_logical_partitioning(normal, ("embed", "mlp")))(x))
        x = nn.tanh(Dense(8, kernel_init=nn.with_logical_partitioning(normal, ("embed", "embed")))(x))
        return Dense(3, kernel_init=nn.with_partitioning(normal, ("model", None)))(x)


class NnxNamed(nnx.Module):
    def __init__(self, rngs):
        normal = nnx.initializers.lecun_normal()
        self.first = nnx.Linear(5, WIDE, kernel_init=nnx.with_partitioning(normal, (None, "data")), rngs=rngs)
        self.last = nnx.Linear(WIDE, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.first(x)))


def test_names_of_axes_split_what_they_name():
    with nn.logical_axis_rules([("embed", None), ("mlp", "data")]):
        whole = sweep(program(Named()), **TWO)
        plan = whole.plan()
        split = {"/".join(map(str, n[-2:])) for n, s in zip(plan.shapes[0].names, plan.partitions[0], strict=True) if s}
        assert split == {"Dense_0/kernel", "Dense_1/kernel"}
        assert sum(map(bool, plan.partitions[0])) == 4, "momentum like the weights"
        assert "4 of 16 arrays of a lane's state are split" in str(plan)
        found = whole.run(progress=False)
        assert set(found[0].restore()["params"]["Dense_0"]) == {"kernel", "bias"}
        one = sweep(program(Named()), devices=1).run(progress=False)
    np.testing.assert_allclose(found.curves("valid/loss"), one.curves("valid/loss"), rtol=1e-5)
    partitions = sweep(program(lambda h, rngs: NnxNamed(rngs)), **TWO).plan().partitions[0]
    assert [spec for spec in partitions if spec] == [PartitionSpec(None, "data")] * 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"devices_per_lane": 3}, r"devices_per_lane = 3: must divide 4, the number of devices: 1, 2, 4. Write"),
        ({"devices_per_lane": 0}, r"devices_per_lane = 0: must be a whole number, 1 or more. Write devices_per_lane=1"),
        (TWO | {"spread": "pmap"}, r"Sweep.spread = 'pmap': has each device .* Write spread=\"shard_map\"."),
        (TWO | {"partition": "zero"}, r"Sweep.partition = 'zero': must be \"fsdp\", a function .* Write"),
        (
            TWO | {"partition": lambda path, shape: PartitionSpec("model")},
            r"Sweep.partition = .*'model'.* must name \"data\", the only axis there is, .* for params/.* Write",
        ),
        (
            TWO | {"partition": lambda path, shape: None},
            r"Sweep.partition = None: must give a PartitionSpec for params/",
        ),
        (TWO | {"partition": lambda path, shape: PartitionSpec("data")}, r"must split params/.* that 2 devices divide"),
    ],
)
def test_what_cannot_be_split_is_told(options, told):
    with pytest.raises(hpx.InputError, match=told):
        sweep(**{"devices": 4, **options}).plan()


def test_lanes_that_would_wait_for_each_other_on_a_cpu_are_told():
    """A batch that moves by one example is exchanged between neighbours, at which XLA has all devices of a CPU wait."""

    def step(key, w, batch, h):
        x = jax.numpy.roll(batch[0] + w[None], 1, axis=0)
        return w - h.rate * jax.grad(lambda w: ((x - w[None]) ** 2).mean())(w), {}

    x = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    moving = hpx.Program(
        lambda key, h: jax.numpy.zeros(8),
        step,
        lambda key, w, split, h: {"loss": ((split[0] - w[None]) ** 2).mean()},
        data=hpx.Data((x,), (x,)),
        steps=4,
    )
    with pytest.raises(hpx.RunError, match=r"moves examples from one device to the next .* Write devices=2, for one"):
        sweep(moving, **TWO).run(progress=False)
    one = sweep(moving, devices=1).run(progress=False)
    several = sweep(moving, **TWO | {"devices": 2}).run(progress=False)
    np.testing.assert_allclose(several.curves("valid/loss"), one.curves("valid/loss"), rtol=1e-5)


def test_what_several_devices_trained_is_used_on_one():
    data = hpx.data.from_arrays(DATA.train.x, DATA.train.y)
    whole = sweep(program(data=data), **TWO, partition="fsdp")
    found = whole.run(progress=False)
    assert found.test()["test/loss"] >= 0
    one = replace(whole, devices=1)
    assert [len(point) for point in one.models(found).points()] == [1, 1, 1]
    with pytest.raises(hpx.InputError, match="devices_per_lane = 2: must divide 1"):
        one.plan()


def test_another_number_of_devices_a_lane_is_another_sweep(tmp_path):
    sweep(**TWO).run(tmp_path / "run", progress=False)
    with pytest.raises(hpx.RunError, match="devices_per_lane: 2 there, 4 here"):
        sweep(**FOUR).run(tmp_path / "run", progress=False)
    with pytest.raises(hpx.RunError, match='partition: null there, "fsdp" here'):
        sweep(**TWO, partition="fsdp").run(tmp_path / "run", progress=False)


@pytest.mark.slow
def test_over_eight_devices(counted):
    with started("eight", "spanning", unset={"XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"}) as process:
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    counted(out.strip())
