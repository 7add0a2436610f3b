"""Sweeps whose lanes span several devices, and what their compiled programs exchange among them.

python -m tests.support.spans NAME NUMBER DIRECTORY trains one of ``HOSTED`` with so many devices a lane, as one of two
hosts of two devices each.
"""

import os
import re
import sys
from dataclasses import replace

import jax
import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx
from hpjax.engine.hlo import COLLECTIVES
from hpjax.engine.hlo_text import computations
from hpjax.sweep.planning.planner import plan_first_round
from hpjax.sweep.planning.programs import GroupPrograms, mesh_of
from tests.support.compare import same_bits
from tests.support.networks import Dense, difference, make_data
from tests.support.plain import SEED, train_alone

DATA = make_data("vectors")
RATES = (1e-3, 1e-2, 3e-2)
FOUR = {"devices": 4, "devices_per_lane": 4}
TWO = {"devices": 4, "devices_per_lane": 2}
WIDE = 64  # so that a kernel between two layers is large enough to be split
PARAMETERS = (5 + 1) * WIDE + (WIDE + 1) * WIDE + (WIDE + 1) * 3  # of Net()


class Net(nn.Module):
    """Batch statistics, dropout and layers that are large enough to be split; in float64 where that is enabled."""

    norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        x = Dense(WIDE, use_bias=not self.norm)(x)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, param_dtype=float)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.tanh(x))
        return Dense(3)(nn.tanh(Dense(WIDE)(x)))


class Block(nn.Module):
    """A layer to scan over, whose kernel may have axes with names."""

    width: int
    names: tuple[str | None, ...] | None

    @nn.compact
    def __call__(self, x, _=None):
        normal = nn.initializers.lecun_normal()
        kernel = normal if self.names is None else nn.with_partitioning(normal, self.names)
        return nn.tanh(Dense(self.width, use_bias=False, kernel_init=kernel)(x)), None


class Deep(nn.Module):
    """Layers that are one loop, and each of which computes its activations anew in the backward pass."""

    layers: int = 2
    width: int = WIDE
    names: tuple[str | None, ...] | None = None

    @nn.compact
    def __call__(self, x, train=False):
        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        block = nn.remat(Block, prevent_cse=False)
        scanned = nn.scan(block, length=self.layers, metadata_params={nn.PARTITION_NAME: "layers"}, **axes)
        x, _ = scanned(self.width, self.names)(Dense(self.width, use_bias=False)(x), None)
        return Dense(3, use_bias=False)(x)


def program(model=None, **options):
    sgd = lambda h: optax.sgd(h.rate, 0.9)
    settings = {"optimizer": sgd, "batch_size": 16, "steps": 12, "eval_every": 4, "data": DATA, **options}
    return hpx.supervised(
        model=model or Net(),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        **{name: value for name, value in settings.items() if value is not None},
    )


def sweep(trained=None, **options):
    space = hpx.Space(rate=hpx.LogUniform(1e-4, 1))
    points = hpx.Manual([{"rate": rate} for rate in RATES])
    return hpx.Sweep(trained or program(), space, **{"sampler": points, "width": 1, "seed": SEED, **options})


def as_if_alone(model, plain=None, **options):
    """How far a sweep's final parameters and losses are from a plain loop's, relative to the largest number.

    ``plain`` is the model of the plain loop, where that takes another one.
    """
    found = sweep(program(model), **options).run(progress=False)
    apart = []
    for rate, trial in zip(RATES, found, strict=True):
        params, losses = train_alone(DATA, model=plain or model, optimizer=optax.sgd(rate, 0.9))
        ours, params = trial.restore()["params"], nn.meta.unbox(params)
        assert jax.tree.structure(ours) == jax.tree.structure(params)
        apart.append(difference(ours, params))
        np.testing.assert_allclose(found.curves("valid/loss")[trial.id, 0], losses, rtol=1e-9)
    return max(apart)


def assert_same(a, b):
    """Two results agree in every bit."""
    assert (a.lane_status == b.lane_status).all()
    assert a.lineage == b.lineage
    assert all(same_bits(a.curves(name), b.curves(name)) for name in a.metrics)
    for trial in range(len(a)):
        pairs = zip(a.leaves(trial, 0), b.leaves(trial, 0), strict=True)
        assert all(same_bits(x, y) for (_, x), (_, y) in pairs)
        found = [{name: [*map(tuple, own)] for name, own in each[trial].artifacts.items()} for each in (a, b)]
        assert found[0].keys() == found[1].keys()
        for name, own in found[0].items():
            assert all(s == t and same_bits(x, y) for (s, x), (t, y) in zip(own, found[1][name], strict=True))


def executable(of, name="advance", spec=None):
    """A compiled function of a sweep, or of one with other devices, which need not be there."""
    spec = spec or of.spec
    plan = plan_first_round(spec)
    programs = GroupPrograms(spec, mesh_of(spec), (None, None))
    h = programs.hparams(plan, plan.groups[0], plan.points)
    return programs.compile(plan, 0, h).lower(name).traced.compile()


def compiled(of, name="advance", spec=None):
    """The text of what ``executable`` gives."""
    return executable(of, name, spec).as_text()


def collectives(text):
    """The collectives in the text of a compiled program: kind, shapes that it gives, and groups of devices."""
    found = []
    for instructions in computations(text)[0].values():
        for each in instructions.values():
            if each.opcode.startswith(COLLECTIVES) and not each.opcode.endswith("-done"):
                found.append((each.opcode, [kind.shape for kind in each.types], groups(each.attributes)))
    return found


def groups(attributes):
    """The sets of devices that exchange arrays, from a collective's replica groups in any of XLA's notations."""
    if (pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes)) is not None:
        return {frozenset(map(int, pair)) for pair in re.findall(r"(\d+),(\d+)", pairs.group(1))}
    if (listed := re.search(r"replica_groups=\{(\{.*?\})\}", attributes)) is not None:
        return {frozenset(map(int, each.split(","))) for each in re.findall(r"\{([\d,]+)\}", listed.group(1))}
    if (named := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", attributes)) is not None:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named.group(1))}
        within = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", named.group(2))]
        devices = np.moveaxis(
            np.arange(np.prod([*sizes.values()])).reshape(*sizes.values()), within, range(len(within))
        )
        shared = int(np.prod(devices.shape[: len(within)]))
        return {frozenset(column.tolist()) for column in devices.reshape(shared, -1).T}
    counts = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    assert counts is not None, attributes
    shape, dims, order = ([int(n) for n in (part or "").split(",") if n] for part in counts.groups())
    devices = np.arange(np.prod(dims)).reshape(dims).transpose(order or None).reshape(shape)
    return {frozenset(row.tolist()) for row in devices.reshape(-1, shape[-1])}


def assert_within_lanes(text, devices_per_lane):
    """No two devices of different lanes exchange anything."""
    for _, _, own in collectives(text):
        for group in own:
            assert len({device // devices_per_lane for device in group}) == 1, own


def elsewhere(of, folder, devices):
    """The result of a sweep that is interrupted after a few events, and goes on with another number of devices."""
    for number, _ in enumerate(of.events(folder, checkpoint_seconds=0.0), start=1):
        if number == 5:
            break
    then = replace(of, devices=devices)
    assert next(iter(then.events(folder, checkpoint_seconds=0.0))).kind == "resumed"
    return then.run(folder, progress=False)


def eight():
    """Law 1 on meshes of 1 × 8 and 2 × 4 devices, and no exchange between lanes."""
    assert len(jax.devices()) == 8
    with jax.enable_x64(True):
        for devices_per_lane in (4, 8):
            for partition in (None, "fsdp"):
                options = {"devices_per_lane": devices_per_lane, "partition": partition}
                assert as_if_alone(Net(norm=True), **options) < 1e-9
                assert_within_lanes(compiled(sweep(**options)), devices_per_lane)
    print("lanes that span 4 and 8 of 8 devices train as alone, to 1e-9 in float64, and exchange nothing")


def raced(devices_per_lane):
    """A population whose lanes move between devices."""
    noted = program(artifacts=lambda params: {"kernel": params["Dense_1"]["kernel"]})
    many = {"sampler": hpx.Sobol(), "trials": 6, "scheduler": hpx.PBT(every=4), "partition": "fsdp"}
    return sweep(noted, devices_per_lane=devices_per_lane, devices=4, artifacts="best:1", **many)


def streamed(devices_per_lane):
    """Batches that a stream draws in parts; says on standard output how many examples this host drew."""
    given = DATA

    def batches(number, total):
        for step in range(12):
            rows = np.arange(16 * step, 16 * (step + 1)).reshape(total, -1)[number] % len(given.train.y)
            print("drawn", len(rows), flush=True)
            yield given.train.x[rows], given.train.y[rows]

    valid = given.valid.x, given.valid.y
    trained = program(batch_size=None, data=hpx.data.stream(batches, valid=valid, block=3))
    return sweep(trained, devices_per_lane=devices_per_lane, devices=4)


HOSTED = {"raced": raced, "streamed": streamed}

if __name__ == "__main__":
    name, number, directory = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 2)
    hpx.distributed.initialize(
        heartbeat_timeout_seconds=10, coordinator_bind_address=os.environ["JAX_COORDINATOR_ADDRESS"]
    )
    for event in HOSTED[name](int(number)).events(directory, checkpoint_seconds=0.0):
        print(event.kind, getattr(event, "group", -1), getattr(event, "step", 0), flush=True)
