"""What ``plan`` accepts ``run`` completes: programs put together from the parts that real people's code has."""

import collections
import dataclasses
import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx, struct
from flax.core import freeze
from flax.training.train_state import TrainState
from hypothesis import given, settings
from hypothesis import strategies as st

import hpjax as hpx
from tests.support.completes import completes

RATES = (0.03, 0.1)
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = X.argmax(1)
STEPS = 4


# Programs of one's own


class Node:
    """A pytree node that its author registered, with a part that is no array."""

    def __init__(self, array, label):
        self.array, self.label = array, label


jax.tree_util.register_pytree_node(Node, lambda n: ((n.array,), n.label), lambda label, child: Node(*child, label))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["array"], meta_fields=["table"])
@dataclasses.dataclass
class Tabled:
    """A node whose static part is an array, which has no equality of its own."""

    array: Any
    table: Any


@struct.dataclass
class Agent:
    """A Flax dataclass with static fields."""

    weights: Any
    name: str = struct.field(pytree_node=False)
    act: Any = struct.field(pytree_node=False)


@dataclasses.dataclass
class Options:
    """A dataclass that is no pytree."""

    size: int = 2


Moments = collections.namedtuple("Moments", ["mean", "count", "kind"])


def train_state(key, h):
    net = nn.Dense(2)
    return TrainState.create(apply_fn=net.apply, params=net.init(key, X)["params"], tx=optax.adam(h.rate))


def boxed(key, h):
    return nn.Dense(2, kernel_init=nn.with_partitioning(nn.initializers.ones, ("data", None))).init(key, X)


# What a state may hold besides the weights: functions of (key, h).
PARTS = {
    "TrainState": train_state,
    "function": lambda key, h: [jnp.tanh, functools.partial(jnp.sum, axis=0), lambda x: x * h.rate],
    "text": lambda key, h: {"act": "tanh", "none": None, "type": jnp.float32, "flags": frozenset({"a"})},
    "dataclass": lambda key, h: Options(),
    "flax.struct": lambda key, h: Agent(jnp.ones(2), "agent", jnp.tanh),
    "Equinox": lambda key, h: eqx.nn.MLP(2, 2, 4, 1, key=key),
    "Equinox state": lambda key, h: eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch"),
    "nnx.split": lambda key, h: nnx.split(nnx.Linear(2, 2, rngs=nnx.Rngs(key))),
    "nnx.Module": lambda key, h: nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(key)), nnx.relu),
    "nnx.Optimizer": lambda key, h: nnx.Optimizer(
        nnx.Linear(2, 2, rngs=nnx.Rngs(key)), optax.adam(h.rate), wrt=nnx.Param
    ),
    "linen": lambda key, h: nn.Dense(3),
    "boxed": boxed,
    "optax": lambda key, h: optax.inject_hyperparams(optax.adam)(h.rate).init({"a": jnp.ones(2)}),
    "masked": lambda key, h: optax.masked(optax.adam(0.1), {"a": True, "b": False}).init({"a": key[None], "b": 1.0}),
    "keys": lambda key, h: (key, jax.random.split(key, 3), jax.random.PRNGKey(0)),
    "numbers": lambda key, h: {"int": 3, "float": 0.5, "bool": True, "complex": 1j, "numpy": np.int64(3)},
    "NumPy": lambda key, h: (np.arange(3), np.ones(2), np.float64(2), np.array(["a"])),
    "narrow": lambda key, h: [
        jnp.ones(2, t) for t in (jnp.bfloat16, jnp.float16, jnp.uint8, jnp.bool_, "float8_e4m3fn")
    ],
    "empty": lambda key, h: [jnp.zeros((0, 3)), np.zeros((2, 0), np.int8), {}, (), []],
    "named": lambda key, h: Moments(jnp.ones(2), 1, "mean"),
    "dicts": lambda key, h: (freeze({"a": jnp.ones(1)}), collections.OrderedDict(b=jnp.ones(1), a=1), {1: 1.0, 2: 2.0}),
    "registered": lambda key, h: Node(jnp.ones(2), "label"),
    "table": lambda key, h: Tabled(jnp.ones(2), np.arange(3)),
    "objects": lambda key, h: np.array([1, None], object),
    "infinite": lambda key, h: jnp.array([jnp.inf, jnp.nan]),
}
METRICS = {
    "float": lambda s: 1.5,
    "int": lambda s: 3,
    "bool": lambda s: True,
    "NumPy": lambda s: np.float64(2),
    "flag": lambda s: s["w"] > 0,
    "bfloat16": lambda s: s["w"].astype(jnp.bfloat16),
    "float16": lambda s: s["w"].astype(jnp.float16),
    "int8": lambda s: s["w"].astype(jnp.int8),
    "on the host": lambda s: jax.pure_callback(np.float32, jax.ShapeDtypeStruct((), "float32"), 2.0),
    "step": lambda s: s["w"],
}
REACTIONS = {
    "none": {},
    "changes": {"react": lambda s, m, h: ({**s, "seen": s["seen"] + 1}, False)},
    "remembers": {"react": lambda s, m, h: ({**s, "seen": m["valid/loss"].astype(jnp.float32)}, m["valid/loss"] < 0)},
    "NumPy": {"react": lambda s, m, h: (s, np.bool_(False))},
    "finishes": {"finish": lambda s, h: {**s, "seen": jnp.float32(7)}},
}
DATA = {
    "none": None,
    "arrays": (X, X[:4], X[:4]),
    "bytes": tuple(np.zeros((n, 3), np.uint8) for n in (6, 4, 4)),
    "pytree": ({"a": X, "b": (Y, [X[:, 0]])}, {"a": X}, {"a": X}),
    "double": (X.astype(float), jnp.asarray(X, jnp.bfloat16), X.astype(np.float16)),
    "no test": (X, None),
    "stream": hpx.data.stream(lambda: itertools.repeat({"a": X, "b": Y}), valid=X, test=X),
}
BATCHES = {
    "whole": {},
    "none": {"batch": lambda key, t, train, h: None},
    "static": {"batch": lambda key, t, train, h: {"f": jnp.tanh, "name": "batch", "t": t, "key": key}},
}
SWEEPS = {
    "grid": {"sampler": hpx.Grid()},
    "seeds": {"sampler": hpx.Grid(), "replicates": 2},
    "independent": {"sampler": hpx.Grid(), "randomness": "independent", "width": 1},
    "pmap": {"sampler": hpx.Grid(), "spread": "pmap", "segment": 1},
    "select": {
        "space": hpx.Space(rate=hpx.Choice(*RATES), act=hpx.Choice(jnp.tanh, nn.relu, select=True)),
        "sampler": hpx.Grid(),
    },
    "halving": {"trials": 4, "scheduler": hpx.Halving(2, 2)},
    "population": {"trials": 4, "scheduler": hpx.PBT(2)},
}
SPACE = hpx.Space(rate=hpx.Choice(*RATES))
WIDE = hpx.Space(rate=hpx.Uniform(*RATES))


def program(parts, metrics=(), reaction="none", data="none", batch="whole"):
    """Gradient descent on (w − 1)², and beside it everything that is named."""

    def init(key, h):
        made = {name: PARTS[name](key, h) for name in parts}
        return {"w": jnp.zeros(()), "seen": 0.0, "steps": 0, **made}

    def step(key, s, batch, h):
        zero = h.act(0.0) if "act" in h else 0.0
        after = {**s, "w": s["w"] - h.rate * 2 * (s["w"] - 1) + zero, "steps": s["steps"] + 1}
        return after, {"loss": (s["w"] - 1) ** 2, **{name: METRICS[name](s) for name in metrics}}

    def evaluate(key, s, split, h):
        return {"loss": (s["w"] - 1) ** 2, **{name: METRICS[name](s) for name in metrics}}

    data = hpx.Data(*DATA[data]) if isinstance(DATA[data], tuple) else DATA[data]
    changes = REACTIONS[reaction] | BATCHES[batch]
    predict = lambda s, x, h: (jax.tree.leaves(x)[0] * s["w"].astype("float32"), s["w"], "text")
    return hpx.Program(init, step, evaluate, data, steps=STEPS, eval_every=2, predict=predict, **changes)


def sweep_of(program, how="grid"):
    arguments = {"space": WIDE if "trials" in SWEEPS[how] else SPACE} | SWEEPS[how]
    return hpx.Sweep(program, **arguments)


def check_program(parts, metrics, how, **kinds):
    made = program(parts, metrics, **kinds)
    like = made.init(jax.random.key(1), hpx.Hparams({"rate": 0.1}))
    result, refusal = completes(sweep_of(made, how), like)
    assert result is not None, refusal
    if how in ("halving", "population"):
        return
    for trial in result:
        np.testing.assert_allclose(trial.predict(X)[0][0], X * np.float32(trial.restore()["w"]), rtol=1e-6)
        w = 1 - (1 - 2 * trial.hparams["rate"]) ** STEPS
        assert trial.restore()["w"] == pytest.approx(w, rel=1e-5)
        assert trial.metrics["valid/loss"] == pytest.approx((w - 1) ** 2, rel=1e-4)


def test_a_state_with_every_part_at_once_trains():
    check_program(list(PARTS), list(METRICS), "grid", reaction="changes", data="pytree", batch="static")


# All lanes share the batches of a stream; a sweep refuses this before there is a plan.
EXCLUDED = [("stream", "independent")]


def composed():
    """Arguments of ``check_program``."""
    return st.fixed_dictionaries(
        {
            "parts": st.lists(st.sampled_from(list(PARTS)), unique=True, max_size=6),
            "metrics": st.lists(st.sampled_from(list(METRICS)), unique=True, max_size=4),
            "how": st.sampled_from(list(SWEEPS)),
            "reaction": st.sampled_from(list(REACTIONS)),
            "data": st.sampled_from(list(DATA)),
            "batch": st.sampled_from(list(BATCHES)),
        }
    ).filter(lambda given: (given["data"], given["how"]) not in EXCLUDED)


@settings(max_examples=5)
@given(composed())
def test_programs_of_ones_own_that_plan_accepts_complete(arguments):
    check_program(**arguments)


@pytest.mark.slow
@settings(max_examples=60)
@given(composed())
def test_many_programs_of_ones_own_that_plan_accepts_complete(arguments):
    check_program(**arguments)


def nested_mesh(s):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.lax.with_sharding_constraint(s["w"], jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def host(**options):
    return lambda s: jax.pure_callback(np.float32, jax.ShapeDtypeStruct((), "float32"), s["w"], **options)


def printing(s):
    jax.debug.print("{}", s["w"], ordered=True)
    return s["w"]


KEPT = []


def keeping(s):
    KEPT.append(s["w"])
    return KEPT[0]


# Parts that cannot be had, by the clause that says so.
REFUSED_PARTS = {
    "int4": (lambda key, h: jnp.zeros(2, jnp.int4), r"state\['int4'\] of Program.init is int4, of which several share"),
    "shape": (
        lambda key, h: jax.ShapeDtypeStruct((2,), "float32"),
        r"state\['shape'\] of Program.init is a ShapeDtype",
    ),
    "wide": (
        lambda key, h: np.array([1, 2**31]),
        r"state\['wide'\] = 2147483648: must lie in -2147483648 … 2147483647",
    ),
}
REFUSED_METRICS = {
    "callback": (host(), "for many lanes at once, with pure_callback, Program.step fails:(?s:.*)vmap_method"),
    "mesh": (nested_mesh, "for many lanes at once, with sharding_constraint, the program fails"),
    "ordered": (printing, "for many lanes at once, with debug_.*, side effects, the program fails"),
    "kept": (keeping, r"uses an array, float32\[\], that an earlier call of its functions computed"),
    "large": (lambda s: 2**40, "metric 'large' of Program.step fails:\n  OverflowError"),
    "complex": (lambda s: 1j * s["w"], "metric 'complex' of Program.step must be a scalar number, got complex64"),
}


@pytest.mark.parametrize("name", REFUSED_PARTS)
def test_a_part_that_no_state_can_have_is_refused_by_name(name, monkeypatch):
    monkeypatch.setitem(PARTS, name, REFUSED_PARTS[name][0])
    with pytest.raises((hpx.ProgramError, hpx.InputError), match=REFUSED_PARTS[name][1]):
        sweep_of(program([name])).plan()


@pytest.mark.parametrize("name", REFUSED_METRICS)
def test_what_lanes_cannot_share_is_refused_before_anything_compiles(name, monkeypatch):
    monkeypatch.setitem(METRICS, name, REFUSED_METRICS[name][0])
    with pytest.raises(hpx.ProgramError, match=REFUSED_METRICS[name][1]):
        sweep_of(program([], [name])).plan()


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (lambda key, s, split, h: {"loss": s["nope"]}, "Program.test fails:(?s:.*)KeyError"),
        (lambda key, s, split, h: {"loss": "low"}, "metric 'loss' of Program.test must be a number, got str"),
        (lambda key, s, split, h: {"loss": split.sum(1)}, r"of Program.test must be a scalar number, got float32\[4\]"),
        (lambda key, s, split, h: None, "Program.test must give its metrics as a dict of scalars, got NoneType"),
    ],
)
def test_a_function_for_the_test_split_that_fails_is_refused_before_anything_trains(test, message):
    made = dataclasses.replace(program([], data="arrays"), test=test)
    with pytest.raises(hpx.ProgramError, match=message):
        sweep_of(made).plan()


def test_a_prediction_has_none_for_outputs_without_a_row_an_example_and_names_what_fails():
    made = dataclasses.replace(
        program([], data="arrays"), predict=lambda s, x, h: {"y": 2 * x, "aux": s["w"], "n": 3.0}
    )
    found = sweep_of(made).run(progress=False).best.predict(X[:5])
    assert found["aux"] is None
    assert found["n"] is None
    np.testing.assert_array_equal(found["y"][0], 2 * X[:5])
    failing = dataclasses.replace(made, predict=lambda s, x, h: s["nope"])
    with pytest.raises(hpx.ProgramError, match=r"Program.predict fails:(?s:.*)KeyError"):
        sweep_of(failing).run(progress=False).best.predict(X[:5])


def test_an_error_within_a_jitted_function_names_the_function_of_the_program():
    made = dataclasses.replace(program([]), step=jax.jit(lambda key, s, batch, h: (s, {"loss": s["nope"]})))
    with pytest.raises(hpx.ProgramError, match=r"^Program.step fails:(?s:.*)KeyError: 'nope'"):
        sweep_of(made).plan()
