"""Eight CPU devices: ways of spreading, and runs that go on with other devices. A process of its own."""

import dataclasses
import itertools
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx
from hpjax.engine.compile import compiling
from hpjax.sweep.planning import programs as groups
from tests.support import spans
from tests.support.compare import same_bits
from tests.support.killed import SWEEPS

jax.config.update("jax_num_cpu_devices", 8)

COLLECTIVES = ("all-gather", "all-reduce", "collective-permute", "all-to-all", "reduce-scatter", "collective-broadcast")


class CNN(nn.Module):
    """Convolutions of one and of two axes, pooling, batch statistics and dropout."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Conv(4, (3, 3), feature_group_count=2)(x))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(3)(nn.Conv(2, (3,))(x.reshape(len(x), -1, 4)).reshape(len(x), -1))


def images():
    rng = np.random.default_rng(0)
    return hpx.data.from_arrays(rng.normal(size=(60, 8, 8, 1)).astype(np.float32), rng.integers(0, 3, 60))


def convolutional(spread):
    program = hpx.supervised(
        model=CNN(),
        optimizer=lambda h: optax.sgd(h.rate, 0.9),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=DATA,
        batch_size=8,
        steps=6,
        eval_every=2,
    )
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1e3))  # some diverge
    # 19 lanes do not divide by 8 devices, nor by chunks of 2.
    return hpx.Sweep(program, space, trials=19, width=2, spread=spread)


DATA = images()


def assert_same(a, b):
    """Two results agree in every bit."""
    assert a.lineage == b.lineage
    assert (a.lane_status == b.lane_status).all()
    assert (a.lane_step == b.lane_step).all()
    for metric in ("step", *a.metrics):
        assert same_bits(a.curves(metric), b.curves(metric)), metric
    for trial, replicate in itertools.product(range(len(a)), range(a.lane_status.shape[1])):
        if a.lane_status[trial, replicate] != "diverged":
            pairs = zip(a.leaves(trial, replicate), b.leaves(trial, replicate), strict=True)
            assert all(same_bits(x, y) for (_, x), (_, y) in pairs)


def watched(sweep):
    """The result, and the text of every program that its lanes ran."""
    texts = []

    def compile(*arguments):
        compiled = compiling(*arguments)
        texts.append(compiled.wait().advance.compiled.as_text())
        return compiled

    groups.compiling = compile
    result = sweep.run(progress=False)
    groups.compiling = compiling
    return result, texts


def spreading():
    """Both ways give the same bits, and no device ever waits for another."""
    assert len(jax.devices()) == 8
    results = {}
    for spread in ("shard_map", "pmap"):
        results[spread], texts = watched(convolutional(spread))
        assert len(texts) == 1
        assert all(word in texts[0] for word in ("convolution", "num_partitions=8"))
        assert not any(word in texts[0] for word in COLLECTIVES)
    assert {"diverged", "complete"} == set(results["pmap"].statuses)
    assert_same(results["shard_map"], results["pmap"])
    sweep = SWEEPS["population"]
    assert_same(sweep.run(progress=False), dataclasses.replace(sweep, spread="pmap").run(progress=False))
    print("spread over 8 devices: shard_map and pmap agree in every bit, no collective in a segment")


def resuming(folder):
    """Resumes runs that began on 4 devices on 1, 2 and 8, with the other way of spreading."""
    ways = (("halving", "shard_map", "pmap", (1, 8)), ("population", "pmap", "shard_map", (2,)))
    for name, spread, other, numbers in ways:
        expected = SWEEPS[name].run(progress=False)
        for devices in numbers:
            directory = Path(folder) / f"{name}-{spread}-{devices}"
            first = dataclasses.replace(SWEEPS[name], devices=4, spread=spread)
            for number, _ in enumerate(first.events(directory, checkpoint_seconds=0.0), start=1):
                if number == 11:
                    break
            then = dataclasses.replace(SWEEPS[name], devices=devices, spread=other)
            assert next(iter(then.events(directory, checkpoint_seconds=0.0))).kind == "resumed"
            assert_same(expected, then.run(directory, progress=False))
    print("resumed on 1, 2 and 8 devices after 4, and in the other way of spreading: every bit the same")


if __name__ == "__main__":
    {"spreading": spreading, "resuming": lambda: resuming(sys.argv[2]), "spanning": spans.eight}[sys.argv[1]]()
