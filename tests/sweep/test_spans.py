"""Sweeps whose lanes span several devices: models whose axes have names, whatever a sweep may have, and bad input."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import PartitionSpec

import hpjax as hpx
from tests.support.networks import Dense
from tests.support.plain import FromNnx
from tests.support.spans import DATA, FOUR, TWO, WIDE, Deep, as_if_alone, program, sweep

FSDP = TWO | {"partition": "fsdp"}


def split(of):
    """The arrays of a lane's state that are split, by the ends of their names, and how."""
    plan = of.plan()
    pairs = zip(plan.shapes[0].names, plan.partitions[0], strict=True)
    return [("/".join(map(str, name[-2:])), tuple(spec)) for name, spec in pairs if spec]


# Models, against a plain loop


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
    def __init__(self, rngs, named=True):
        normal = nnx.initializers.lecun_normal()
        first = nnx.with_partitioning(normal, (None, "data")) if named else normal
        self.first = nnx.Linear(5, WIDE, kernel_init=first, param_dtype=float, rngs=rngs)
        self.middle = nnx.Linear(WIDE, WIDE, kernel_init=normal, param_dtype=float, rngs=rngs)
        self.last = nnx.Linear(WIDE, 3, param_dtype=float, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.middle(nnx.tanh(self.first(x)))))


NNX = lambda h, rngs: NnxNamed(rngs)
COLUMNS = (None, "data")
MODELS = {
    "layers that are one loop": (Deep(), FSDP, [("Dense_0/kernel", (None, "data"))]),
    "the same with names": (Deep(names=COLUMNS), TWO, [("Dense_0/kernel", (None, None, "data"))]),
    "names": (Named(), TWO, [("Dense_0/kernel", COLUMNS), ("Dense_1/kernel", COLUMNS)]),
    "names, and split by size": (Named(), FSDP, [("Dense_1/kernel", ("data",))]),
    "NNX": (NNX, TWO, [("first/kernel", COLUMNS)]),
    "NNX, split by size": (NNX, FSDP, [("middle/kernel", ("data",))]),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_train_as_alone(name):
    """Weights are split as expected, momentum like them, and a plain loop finds the same ones, without boxes."""
    model, options, expected = MODELS[name]
    # Without a mesh Flax makes no variables with names.
    plain = FromNnx(lambda rngs: NnxNamed(rngs, named=False)) if model is NNX else None
    with jax.enable_x64(True), nn.logical_axis_rules([("embed", None), ("mlp", "data")]):
        assert split(sweep(program(model), **options)) == 2 * expected
        assert as_if_alone(model, plain, **options) < 1e-9


# Whatever a sweep may have, against one device


OTHERS = {
    "a batch that the devices do not divide": (program(batch_size=10), FOUR),
    "fewer examples than devices": (program(batch_size=3), FOUR),
    "microbatches": (program(microbatch=8), TWO),
    "evaluations in parts": (program(eval_batch_size=8), TWO),
    "folds, several at once": (program(), TWO | {"folds": 3, "width": 3}),
    "own randomness": (program(), TWO | {"randomness": "independent"}),
    "an average, and early stopping": (program(average=0.9, early_stopping=hpx.EarlyStopping(patience=1)), TWO),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_one_device_computes(name):
    trained, options = OTHERS[name]
    with jax.enable_x64(True):
        several = sweep(trained, partition="fsdp", **options).run(progress=False)
        one = sweep(trained, **options | {"devices": 1, "devices_per_lane": 1}).run(progress=False)
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


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"devices_per_lane": 3},
            r"must divide 4, .*: 1, 2, 4. Write devices_per_lane=2, or devices=3.",
        ),
        ({"devices_per_lane": 0}, r"devices_per_lane = 0: must be a whole number, 1 or more. Write devices_per_lane=1"),
        (TWO | {"spread": "pmap"}, r"Sweep.spread = 'pmap': has each device .* Write spread=\"shard_map\"."),
        (TWO | {"partition": "zero"}, r"Sweep.partition = 'zero': must be \"fsdp\", a function .* Write"),
        (
            TWO | {"partition": lambda path, shape: PartitionSpec("model")},
            r"Sweep.partition = .*'model'.* must name \"data\", the only axis there is, .* for params/.* Return",
        ),
        (
            TWO | {"partition": lambda path, shape: None},
            r"Sweep.partition = None: must give a PartitionSpec for params/",
        ),
        (
            TWO | {"partition": lambda path, shape: PartitionSpec("data")},
            r"must split params/.*, along an axis that 2 devices divide. Return .*PartitionSpec\(",
        ),
    ],
)
def test_what_cannot_be_split_is_told(options, told):
    with pytest.raises(hpx.InputError, match=told):
        sweep(**{"devices": 4, **options}).plan()


class Odd(nn.Module):
    """A layer whose kernel has names on axes, of which "data" is on one that two devices do not divide, or on two."""

    names: tuple

    @nn.compact
    def __call__(self, x, train=False):
        normal = nn.initializers.lecun_normal()
        return Dense(3, kernel_init=nn.with_partitioning(normal, self.names))(nn.Dense(8)(x))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((None, "data"), r"the shape of params/.*/kernel = .8, 3.: must have an axis .data. that 2 devices divide"),
        (("data", "data"), r"the model's axes of params/.*/kernel = .*: must have one axis of the name .data. at most"),
    ],
)
def test_names_that_cannot_be_followed_are_told(names, told):
    with pytest.raises(hpx.InputError, match=told):
        sweep(program(Odd(names)), **TWO).plan()
    assert sweep(program(Odd(names)), devices=1).plan().trials == 3, "they have no effect on one device a lane"


def mixed(key, batch, h, order):
    """Half of each example and half of another one, in an order of a batch's."""
    other = order(key, batch.x)
    return batch._replace(x=0.5 * (batch.x + other))


def test_examples_in_another_order():
    """Reversed they move from device to device, which the plan refuses; in a random order they are gathered."""
    reverse = program(augment=lambda key, batch, h: mixed(key, batch, h, lambda key, x: x[::-1]))
    with pytest.raises(hpx.InputError, match=r"Sweep.devices = 4: must be 2.*; or have it gather examples in another"):
        sweep(reverse, **TWO).plan()
    shuffle = lambda key, x: x[jax.random.permutation(key, len(x))]
    random = program(augment=lambda key, batch, h: mixed(key, batch, h, shuffle))
    with jax.enable_x64(True):
        one, several = (sweep(random, **options).run(progress=False) for options in ({"devices": 1}, TWO))
        np.testing.assert_allclose(several.curves("valid/loss"), one.curves("valid/loss"), rtol=1e-9)


def test_an_interrupted_run_goes_on_with_as_many_devices_a_lane_alone(tmp_path):
    events = sweep(**FSDP).events(tmp_path, checkpoint_seconds=0)
    next(event for event in events if event.kind == "segment")
    events.close()
    with pytest.raises(hpx.RunError, match='devices_per_lane: 2 there, 1 here\n  partition: "fsdp" there, null here'):
        sweep(devices=2).run(tmp_path, progress=False)
    with pytest.raises(hpx.RunError, match="devices_per_lane: 2 there, 4 here"):
        sweep(**FOUR, partition="fsdp").run(tmp_path, progress=False)
    resumed = sweep(**FSDP).run(tmp_path, progress=False)
    whole = sweep(**FSDP).run(progress=False)
    np.testing.assert_array_equal(resumed.curves("valid/loss"), whole.curves("valid/loss"))


def test_exported_parameters_have_plain_names(tmp_path):
    from safetensors.numpy import load_file

    with nn.logical_axis_rules([("embed", None), ("mlp", "data")]):
        result = sweep(program(Named()), **TWO).run(progress=False)
    result.best.export(tmp_path / "best.safetensors")
    arrays = load_file(tmp_path / "best.safetensors")
    layers = [f"params.Dense_{i}.{name}" for i in range(4) for name in ("bias", "kernel")]
    assert sorted(arrays) == layers
    assert arrays["params.Dense_1.kernel"].shape == (WIDE, WIDE)


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
    refused = r"Sweep.devices = 4: must be 2.*moves examples from one device to the next .* Write devices=2, for one"
    with pytest.raises(hpx.InputError, match=refused):
        sweep(moving, **TWO).plan()
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
