"""Plans of sweeps whose lanes span several devices."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import hpjax as hpx
from hpjax.engine import sharding
from tests.support.spans import DATA, PARAMETERS, WIDE, program, sweep

TWO = {"devices": 4, "devices_per_lane": 2}


def calling(call, where):
    """A sweep of a program one of whose functions makes a call with a number of its batch or split."""

    def with_call(name, value):
        return call(value) if name == where else 0.0

    def step(key, w, batch, h):
        return w - h.rate * with_call("step", w + batch.x.mean()), {}

    def evaluate(key, w, split, h):
        return {"loss": w + with_call("evaluate", w + split.x.mean())}

    own = hpx.Program(lambda key, h: jnp.zeros(()), step, evaluate, data=DATA, steps=2)
    return sweep(own, **TWO)


NUMBER = jax.ShapeDtypeStruct((), np.float32)
CALLS = {
    "pure_callback": lambda x: jax.pure_callback(np.float32, NUMBER, x, vmap_method="sequential"),
    "io_callback": lambda x: jax.experimental.io_callback(np.float32, NUMBER, x),
    "debug_print": lambda x: jax.debug.print("{}", x) or 0.0,
}


@pytest.mark.parametrize("where", ["step", "evaluate"])
@pytest.mark.parametrize("name", CALLS)
def test_what_jax_does_not_divide_is_told_before_anything_compiles(name, where):
    whole = calling(CALLS[name], where)
    told = rf"devices_per_lane = 2: must be 1 with {name}.* Write devices_per_lane=1, or a program without {name}\."
    with pytest.raises(hpx.InputError, match=told):
        whole.plan()
    assert set(replace(whole, devices_per_lane=1).run(progress=False).statuses) == {"complete"}


def test_an_error_of_the_function_that_splits_is_told_with_its_line():
    def halves(path, shape):
        return PartitionSpec(*[None] * shape[2], "data")

    with pytest.raises(
        hpx.ProgramError, match=r"Sweep.partition fails:\n  test_spans.py:\d+: .*shape\[2\](?s:.*)IndexError"
    ):
        sweep(**TWO, partition=halves).plan()


def test_a_program_that_fails_on_one_device_too_is_told_as_ever():
    told = "for many lanes at once, with pure_callback, Program.step fails:(?s:.*)vmap_method"
    with pytest.raises(hpx.ProgramError, match=told):
        calling(lambda x: jax.pure_callback(np.float32, NUMBER, x), "step").plan()


def test_metrics_of_numpy_are_computed_of_the_whole_batch():
    """On a CPU, where they are no callbacks of JAX's; and on fewer devices they can be read."""
    median = hpx.metrics.on_host(lambda outputs, y: np.median(outputs[:, 0] - y))
    own = program(metrics={"median": median}, split_metrics={"all": median}, steps=2, eval_every=2)
    one, several = sweep(own, devices=1), sweep(own, **TWO)
    found, expected = several.run(progress=False), one.run(progress=False)
    for name in expected.metrics:
        np.testing.assert_allclose(found.curves(name), expected.curves(name), rtol=1e-5)
    assert [len(points) for points in replace(several, devices=1).models(found).points()] == [1, 1, 1]


def lines(plan):
    """What a plan says of lanes that span devices, without the rest of its head."""
    told = str(plan).split("\n\n")[0].splitlines()
    return told[3:-1]


KIB = 4 * WIDE**2 / 2**10  # of the kernel between two layers, which is split
ALL = 4 * PARAMETERS / 2**10
HEAD = "each lane spans 2 devices, which divide its batches: a mesh of 2 × 2 devices, lanes × data"


def test_plans_say_what_is_split_and_exchanged():
    plan = sweep(**TWO).plan()
    assert lines(plan) == [
        HEAD,
        f"0 of 12 arrays of a lane's state are split, {2 * ALL:.1f} KiB of {2 * ALL:.1f} KiB are on each device",
        f"in a step they exchange about {ALL:.1f} KiB a lane, by the sizes of its parameters: {ALL:.1f} KiB of "
        "gradients (all-reduce); plan(measure=True) compiles and counts",
    ]
    plan = sweep(**TWO, partition="fsdp").plan()
    assert lines(plan) == [
        HEAD,
        f"2 of 12 arrays of a lane's state are split, {2 * ALL - KIB:.1f} KiB of {2 * ALL:.1f} KiB are on each device",
        "  params/Dense_*/kernel along axis 0: 2 arrays",  # weights and momentum
        f"in a step they exchange about {ALL + KIB:.1f} KiB a lane, by the sizes of its parameters: {ALL:.1f} KiB of "
        f"gradients (all-reduce), {KIB:.1f} KiB of split weights (all-gather); plan(measure=True) compiles and counts",
    ]
    assert plan.shapes[0].lane_bytes - plan.lane_bytes(0) == KIB * 2**10
    rows = sweep(**TWO, partition=lambda path, shape: PartitionSpec("data" if shape[0] == WIDE else None)).plan()
    assert lines(rows)[2:] == [
        "  params/Dense_*/bias along axis 0: 4 arrays",
        "  params/Dense_*/kernel along axis 0: 4 arrays",
        "what they exchange in a step XLA decides, since a function splits arrays; plan(measure=True) compiles and "
        "counts",
    ]
    nothing = sweep(**TWO, partition=lambda path, shape: PartitionSpec()).plan()
    assert lines(nothing) == lines(sweep(**TWO).plan()), "gradients alone"


def test_plans_tell_apart_what_groups_split():
    """Of arrays (8, size), (16, size), ... those of 4,096 numbers or more, along the axis that is longer."""
    own = hpx.Program(
        lambda key, h: {name: jnp.zeros((2 ** (i + 3), h.size)) for i, name in enumerate("abcdefghij")},
        lambda key, w, batch, h: (w, {}),
        lambda key, w, split, h: {"loss": w["a"].sum()},
        steps=1,
    )
    space = hpx.Space(size=hpx.Choice(2, 2**9))
    plan = hpx.Sweep(own, space, sampler=hpx.Grid(), **TWO, partition="fsdp").plan()
    few, many = lines(plan)[1:5], lines(plan)[5:]
    assert few[0].startswith("group 0: 2 of 10 arrays of a lane's state are split")
    assert few[1:3] == ["  i along axis 0: 1 array", "  j along axis 0: 1 array"]
    assert few[3].startswith("group 0: in a step they exchange")
    assert many[0].startswith("group 1: 10 of 10 arrays of a lane's state are split")
    assert many[1:-2] == [f"  {name} along axis {int(name <= 'f')}: 1 array" for name in "abcdefgh"]
    assert many[-2] == "  and 2 others"


LENGTH = 2**13
WHOLE = 4 * LENGTH  # bytes


def large(monkeypatch, memory, length=LENGTH, **options):
    """A sweep of a program whose state is one array of float32, on devices of so many bytes."""
    monkeypatch.setattr(sharding, "memory", lambda: memory)
    own = hpx.Program(
        lambda key, h: jnp.zeros(length),
        lambda key, w, batch, h: (w - h.rate * w, {}),
        lambda key, w, split, h: {"loss": (w**2).sum()},
        data=options.pop("data", None),
        steps=2,
    )
    return sweep(own, **{"devices": 4, **options})


# The state, and as much for gradients, divided by the number, is to fit: 2 * WHOLE / number <= memory.
TOO_LARGE = {
    "four": (WHOLE // 2, {}, 'Write devices_per_lane=4, partition="fsdp"; or a smaller model or batch.'),
    "eight": (WHOLE // 2 - 1, {}, 'Write devices_per_lane=8, partition="fsdp" on 8 devices; or a smaller'),
    "more than two": (WHOLE // 2 - 1, TWO | {"partition": "fsdp"}, 'Write devices_per_lane=8, partition="fsdp" on 8'),
    "with data": (WHOLE + 4095, {"data": True}, 'Write devices_per_lane=4, partition="fsdp"; or'),
    "data alone": (
        4095,
        {"data": True},
        r"Write a smaller model or batch, or give the data batch by batch: hpx\.data\.",
    ),
    "what is not split": (
        2**10,
        {"length": 2**10},
        r"takes 4\.0 KiB and the data 0 B\. Write a smaller model or batch\.",
    ),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_lane_that_does_not_fit(name, monkeypatch):
    memory, options, told = TOO_LARGE[name]
    if "data" in options:  # of 4 KiB, which each device has whole
        x = np.zeros(2**9, np.float32)
        options = options | {"data": hpx.Data(x, x)}
    whole = large(monkeypatch, memory, **options)
    for use in (whole.plan, lambda: whole.run(progress=False)):
        with pytest.raises(hpx.ProgramError, match=f"group 0 does not fit: of each device's .* {told}"):
            use()


@pytest.mark.parametrize(
    ("memory", "options", "number"),
    [
        (WHOLE, {}, 2),
        (2 * WHOLE - 1, {}, 2),
        (2 * WHOLE, {}, None),
        (WHOLE, TWO, 2),  # which split nothing yet
        (WHOLE // 2, TWO | {"partition": "fsdp"}, 4),
        (WHOLE, TWO | {"partition": "fsdp"}, None),
    ],
)
def test_a_lane_that_likely_does_not_fit(memory, options, number, monkeypatch):
    found = [hint for hint in large(monkeypatch, memory, **options).plan().hints if "likely does not fit" in hint]
    assert [f'Write devices_per_lane={number}, partition="fsdp"; or' in hint for hint in found] == [True] * (
        number is not None
    )
