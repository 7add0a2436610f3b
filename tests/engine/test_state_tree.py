"""What is no array in a program's state is kept apart, and comes back."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState

import hpjax as hpx
from hpjax.engine.artifacts import named_arrays
from hpjax.engine.state_tree import difference, split_state

X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32)
RATES = (0.03, 0.1)
STEPS = 5


def squared(outputs):
    return jnp.square(outputs[:, 0] - Y).mean()


def flax_state():
    """Flax's own TrainState: the apply function of a module, and an optimizer that closes over the rate."""

    def init(key, h):
        net = nn.Dense(1)
        params = net.init(key, X)["params"]
        return TrainState.create(apply_fn=net.apply, params=params, tx=optax.adam(h.rate))

    def loss(state, params):
        return squared(state.apply_fn({"params": params}, X))

    def step(key, state, batch, h):
        value, slope = jax.value_and_grad(lambda params: loss(state, params))(state.params)
        return state.apply_gradients(grads=slope), {"loss": value}

    return init, step, lambda state: loss(state, state.params)


class Net(eqx.Module):
    """A module whose activation is a leaf, and whose name is a static field."""

    layer: eqx.nn.Linear
    activation: object
    name: str = eqx.field(static=True)

    def __call__(self, x):
        return self.activation(jax.vmap(self.layer)(x))


def equinox_state():
    """A whole Equinox module and the state of its optimizer."""

    def init(key, h):
        net = Net(eqx.nn.Linear(3, 1, key=key), jnp.tanh, "net")
        return net, optax.adam(h.rate).init(eqx.filter(net, eqx.is_inexact_array))

    def step(key, state, batch, h):
        net, opt_state = state
        value, slope = eqx.filter_value_and_grad(lambda net: squared(net(X)))(net)
        updates, opt_state = optax.adam(h.rate).update(slope, opt_state)
        return (eqx.apply_updates(net, updates), opt_state), {"loss": value}

    return init, step, lambda state: squared(state[0](X))


class Numbers(eqx.Module):
    """A module with Python numbers as leaves, which its code uses as such: those of its layers, and its own."""

    layer: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    shifts: int
    negative: bool
    scale: float

    def __init__(self, key):
        self.layer, self.norm = eqx.nn.Linear(3, 1, key=key), eqx.nn.BatchNorm(1, "batch", mode="batch", momentum=0.5)
        self.drop, self.shifts, self.negative, self.scale = eqx.nn.Dropout(0.5), 2, True, 0.5

    def __call__(self, x, state, key):
        x, state = self.norm(self.layer(x), state)
        for _ in range(self.shifts):
            x = x + 1
        return self.drop(-x if self.negative else x * self.scale, key=key), state


def equinox_numbers():
    """A module with numbers and its state, beside a number of the program's own, which is an array."""

    def init(key, h):
        return *eqx.nn.make_with_state(Numbers)(key), 0

    def outputs(net, state, key):
        call = jax.vmap(net, (0, None, 0), (0, None), axis_name="batch")
        found, state = call(X, state, jax.random.split(key, len(X)))
        return squared(found), state

    def step(key, state, batch, h):
        net, statistics, steps = state
        (value, statistics), slope = eqx.filter_value_and_grad(outputs, has_aux=True)(net, statistics, key)
        net = eqx.apply_updates(net, jax.tree.map(lambda g: -h.rate / (1 + steps) * g, slope))
        return (net, statistics, steps + 1), {"loss": value}

    return init, step, lambda state: outputs(eqx.nn.inference_mode(state[0]), state[1], jax.random.key(0))[0]


def nnx_state():
    """The split of an NNX module, whose graph definition is static, in a dict with strings, None and functions."""

    def init(key, h):
        graph, params = nnx.split(nnx.Linear(3, 1, rngs=nnx.Rngs(key)))
        opt_state = optax.adam(h.rate).init(params)
        return {"graph": graph, "params": params, "opt": opt_state, "act": "tanh", "none": None, "f": [jnp.tanh, 2]}

    def outputs(state, params):
        return state["f"][0](nnx.merge(state["graph"], params, copy=True)(X)) if state["act"] == "tanh" else None

    def step(key, state, batch, h):
        value, slope = jax.value_and_grad(lambda params: squared(outputs(state, params)))(state["params"])
        updates, opt = optax.adam(h.rate).update(slope, state["opt"])
        return state | {"params": optax.apply_updates(state["params"], updates), "opt": opt}, {"loss": value}

    return init, step, lambda state: squared(outputs(state, state["params"]))


PARTS = {"TrainState": flax_state, "Equinox": equinox_state, "numbers": equinox_numbers, "NNX": nnx_state}


@pytest.fixture(scope="module", params=PARTS)
def trained(request):
    init, step, loss = PARTS[request.param]()
    program = hpx.Program(
        init,
        step,
        lambda key, s, split, h: {"loss": loss(s)},
        steps=STEPS,
        data=hpx.Data(X, X, X),
        batch=lambda key, t, train, h: None,
        predict=lambda s, x, h: jnp.full(len(x), loss(s)),
    )
    sweep = hpx.Sweep(program, hpx.Space(rate=hpx.Choice(*RATES)), sampler=hpx.Grid())
    return (init, step, loss), sweep.run(progress=False)


def plain(init, step, rate):
    """The state that a plain loop ends with."""
    h = hpx.Hparams({"rate": rate})
    state = init(hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "init"), h)
    for t in range(STEPS):
        state, _ = step(hpx.keys.step_key(hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "step"), t), state, None, h)
    return state


def test_a_state_with_static_parts_trains_as_in_a_plain_loop(trained):
    (init, step, loss), result = trained
    for trial, rate in zip(result, RATES, strict=True):
        expected = float(loss(plain(init, step, rate)))
        np.testing.assert_allclose(trial.metrics["valid/loss"], expected, rtol=1e-5)
        np.testing.assert_allclose(trial.predict(X[:3])[0], expected, rtol=1e-5)


def test_restore_like_gives_the_users_own_structure_back(trained):
    (init, step, loss), result = trained
    like = init(jax.random.key(1), hpx.Hparams({"rate": 0.5}))
    state = result[1].restore(like=like)
    assert type(state) is type(like)
    np.testing.assert_allclose(loss(state), loss(plain(init, step, RATES[1])), rtol=1e-5)
    again, _ = step(jax.random.key(0), state, None, hpx.Hparams({"rate": RATES[1]}))  # it trains on
    assert float(loss(again)) != float(loss(state))


def test_the_test_split_sees_the_whole_state(trained):
    _, result = trained
    assert result.test()["test/loss"] == pytest.approx(result.best.metrics["valid/loss"], rel=1e-6)


def constant(**state):
    """A program whose state never changes, apart from what its step says."""

    def program(step=lambda s: s):
        return hpx.Program(
            lambda key, h: {"w": jnp.zeros(2), **state},
            lambda key, s, batch, h: (step(s), {"loss": h.rate}),
            lambda key, s, split, h: {"loss": s["w"].sum() + h.rate},
            steps=2,
        )

    return program


def run(program):
    return hpx.Sweep(program, hpx.Space(rate=hpx.Uniform(0.1, 1)), trials=2).run(progress=False)


def test_a_key_that_a_program_closes_over_may_be_in_its_state():
    key = jax.random.key(7)
    program = constant(key=key, half=0.5)(lambda s: s | {"key": jax.random.split(s["key"])[0]})
    expected = jax.random.split(jax.random.split(key)[0])[0]
    np.testing.assert_array_equal(run(program)[0].restore()["key"], jax.random.key_data(expected))


def test_restore_like_of_typed_keys_and_of_shapes():
    program = hpx.Program(
        lambda key, h: {"key": key, "f": jnp.tanh},
        lambda key, s, batch, h: ({**s, "key": key}, {}),
        lambda key, s, split, h: {"loss": h.rate},
        steps=3,
    )
    like = {"key": jax.eval_shape(lambda: jax.random.key(0)), "f": jnp.sin}
    state = run(program)[0].restore(like=like)
    expected = hpx.keys.step_key(hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "step"), 2)
    assert (jax.random.key_data(state["key"]) == jax.random.key_data(expected)).all()
    assert state["f"] is jnp.sin


def test_restore_like_another_state_is_refused_by_name():
    best = run(constant()()).best
    with pytest.raises(hpx.InputError, match="'v': must be a part of the state, whose arrays are w"):
        best.restore(like={"v": jnp.zeros(2)})
    with pytest.raises(hpx.InputError, match=r"restore.like\['w'\] = \(3,\): must have the shape \(2,\)"):
        best.restore(like={"w": jnp.zeros(3)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act": "tanh"}, r"Program.step changes the structure of the state in state\['act'\], .* 'relu' to 'tanh'"),
        ({"act": None}, "Program.step changes the structure of the state from"),
        ({"f": jnp.sin}, r"state\['f'\], which is no array"),
        ({"w": jnp.zeros(3)}, r"Program.step changes state\['w'\] from float32\[2\] to float32\[3\]"),
    ],
)
def test_a_step_that_changes_what_is_no_array_is_refused(change, message):
    with pytest.raises(hpx.ProgramError, match=message):
        run(constant(act="relu", f=jnp.tanh)(lambda s: s | change))


@pytest.mark.parametrize("after", [lambda n: n + 1, lambda n: n + jnp.asarray(1)])
def test_a_number_of_an_equinox_module_that_changes_is_refused_with_what_to_type(after):
    class Counted(eqx.Module):
        calls: int

    program = constant(net=Counted(0))(lambda s: s | {"net": Counted(after(s["net"].calls))})
    with pytest.raises(hpx.ProgramError, match=r"state\['net'\].calls, which is no array, from 0 to .* jnp.asarray"):
        run(program)


def test_a_number_of_the_state_that_sets_a_shape_is_named():
    with pytest.raises(hpx.ProgramError, match=r"Program.step, to which numbers .* \(state\['size'\]\), fails"):
        run(constant(size=3)(lambda s: {**s, "w": s["w"] + jnp.zeros(s["size"]).sum()}))


def test_a_weakly_typed_number_takes_the_type_of_the_step_as_in_scan():
    def step(key, s, batch, h):
        return {"total": s["total"] + h.rate, "calls": s["calls"] + 1, "half": s["half"] * jnp.bfloat16(2)}, {}

    program = hpx.Program(
        lambda key, h: {"total": 0, "calls": 0, "half": 1.0},
        step,
        lambda key, s, split, h: {"loss": s["total"]},
        steps=5,
    )
    result = run(program)
    state = result[0].restore()
    body = lambda s, _: (step(None, s, None, hpx.Hparams({"rate": jnp.float32(result[0].hparams["rate"])}))[0], None)
    expected, _ = jax.lax.scan(body, {"total": 0, "calls": 0, "half": 1.0}, None, 5)
    for name, value in expected.items():
        assert (state[name].dtype, float(state[name])) == (value.dtype, float(value))


def test_functions_are_alike_by_name_and_values_by_equality():
    def tree(**parts):
        return split_state({"w": 1.0, **parts})[1]

    def closure(value):
        return lambda: value

    assert difference(tree(f=closure(1)), tree(f=closure(2))) is None
    assert difference(tree(f=closure(1)), tree(f=jnp.sin)) is not None
    assert difference(tree(f="a"), tree(f="b")) is not None
    assert difference(tree(f="a"), tree()) is not None
    words = np.array(["a", "b"])
    assert difference(tree(f=words), tree(f=words.copy())) is None
    assert difference(tree(f=words), tree(f=words[::-1])) is not None


def test_numbers_of_an_equinox_module_are_artifacts_like_others():
    found = named_arrays({"net": eqx.nn.Dropout(0.5), "n": 3})
    assert {name: float(array) for name, array in found.items()} == {"net/p": 0.5, "net/inference": 0, "n": 3}
