"""Strings and functions in the variables of models and in the states of optimizers; against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import hpjax as hpx

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
Y = np.sin(X.sum(1))
INIT = hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "init")
STEPS = 3


def sweep(model, optimizer=lambda h: optax.sgd(h.rate), loss=hpx.metrics.squared_error, **settings):
    program = hpx.supervised(
        model=model,
        optimizer=optimizer,
        loss=loss,
        data=hpx.data.from_arrays(X, Y, valid=(X, Y), test=(X, Y)),
        batch_size=8,
        steps=STEPS,
        **settings,
    )
    return hpx.Sweep(program, hpx.Space(rate=hpx.Choice(0.1, 0.3)), sampler=hpx.Grid())


def losses(*arguments, **settings):
    return [trial.metrics["valid/loss"] for trial in sweep(*arguments, **settings).run(progress=False)]


def plain_losses(outputs, params, optimizer=optax.sgd):
    """The losses of both rates after steps on all examples, in a loop without jit, where anything may be a leaf."""

    def loss(params):
        return jnp.square(outputs(params) - Y).mean()

    found = []
    for rate in (0.1, 0.3):
        own, state = params, optimizer(rate).init(params)
        for _ in range(STEPS):
            updates, state = optimizer(rate).update(jax.grad(loss)(own), state, own)
            own = optax.apply_updates(own, updates)
        found.append(float(loss(own)))
    return pytest.approx(found, rel=1e-5)


def clipped(rate):
    """Gradient descent whose last part keeps a function and a name in its state, and goes by both."""

    def update(updates, state, params=None):
        if state["name"] == "clipped":
            updates = jax.tree.map(state["function"], updates)
        return updates, {**state, "steps": state["steps"] + 1}

    init = lambda params: {"name": "clipped", "function": jnp.tanh, "steps": jnp.zeros((), jnp.int32)}
    return optax.chain(optax.sgd(rate, momentum=0.9), optax.GradientTransformation(init, update))


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x)[:, 0]


@pytest.mark.parametrize("settings", [{}, {"microbatch": 4, "keep": "best", "eval_every": 1}])
def test_the_state_of_an_optimizer_may_hold_a_name_and_a_function(settings):
    params = Dense().init(INIT, X)
    expected = plain_losses(lambda params: Dense().apply(params, X), params, clipped)
    assert losses(Dense(), lambda h: clipped(h.rate), **settings) == expected


class Named(nn.Module):
    """A model with a name and a function among its variables, and a convolution, whose kernels are rewritten."""

    @nn.compact
    def __call__(self, x):
        name = self.variable("about", "name", lambda: "tanh")
        function = self.variable("about", "function", lambda: jnp.tanh)
        calls = self.variable("calls", "n", lambda: 0)
        if self.is_mutable_collection("calls") and not self.is_initializing():
            calls.value = calls.value + 1
        x = nn.Conv(2, (3,))(x[..., None]).reshape(len(x), -1)
        return nn.Dense(1)(function.value(x) if name.value == "tanh" else x)[:, 0]


class NamedNnx(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 1, rngs=rngs)
        self.name, self.function = nnx.Variable("tanh"), nnx.Variable(jnp.tanh)

    def __call__(self, x):
        x = self.dense(x)[:, 0]
        return self.function.get_value()(x) if self.name.get_value() == "tanh" else x


@pytest.mark.parametrize("settings", [{}, {"microbatch": 4, "keep": "best", "eval_every": 1}])
def test_variables_of_a_linen_model_may_be_names_and_functions(settings):
    variables = Named().init(INIT, X)
    rest = {name: variables[name] for name in ("about", "calls")}
    expected = plain_losses(lambda params: Named().apply({"params": params, **rest}, X), variables["params"])
    result = sweep(Named(), **settings).run(progress=False)
    assert [trial.metrics["valid/loss"] for trial in result] == expected
    state = result[0].restore()
    assert state["stats"] == {"calls": {"n": STEPS * (2 if settings else 1)}}
    loss = lambda outputs: float(jnp.square(outputs - Y).mean())
    assert loss(result[0].predict(X)[0]) == pytest.approx(result[0].metrics["valid/loss"], rel=1e-5)
    begun = losses(Named(), optax.sgd(0.0), init_from=result[0])
    assert begun == pytest.approx([result[0].metrics["valid/loss"]] * 2, rel=1e-5)


def test_variables_of_an_nnx_model_may_be_names_and_functions():
    graph, params, rest = nnx.split(NamedNnx(nnx.Rngs(INIT)), nnx.Param, ...)
    expected = plain_losses(lambda params: nnx.merge(graph, params, rest, copy=True)(X), params)
    assert losses(lambda h, rngs: NamedNnx(rngs), microbatch=4) == expected


def test_a_model_may_sow_and_return_names():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(1)(nn.Conv(2, (3,))(x[..., None]).reshape(len(x), -1))[:, 0]
            self.sow("about", "name", "net")
            return {"name": "outputs", "values": x}

    def loss(outputs, y, sown):
        found = outputs["name"], *sown["about"]["name"]
        return jnp.square(outputs["values"] - y) if found == ("outputs", "net") else jnp.nan

    params = Net().init(INIT, X)["params"]
    expected = plain_losses(lambda params: Net().apply({"params": params}, X)["values"], params)
    assert losses(Net(), loss=loss) == expected


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("first", "later", "from 'first' to 'later'. Begin it with a number or an array"),
        (None, 1.0, "from None to an array"),
        ("first", 1.0, "from 'first' to an array"),
        (1.0, "later", "from an array to 'later'"),
    ],
)
def test_what_is_no_array_and_changes_is_refused_by_name(before, after, message):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            value = self.variable("about", "value", lambda: before)
            if self.is_mutable_collection("about") and not self.is_initializing():
                value.value = after
            return nn.Dense(1)(x)[:, 0]

    with pytest.raises(hpx.InputError, match=f"supervised.model = 'about/value': .* {message}"):
        sweep(Net()).plan()
