"""What a takeover renews, what it keeps, and which hyperparameters can change, of states of many kinds."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.engine.dataflow import Flow, flows
from tests.support.programs import blobs

SPACE = hpx.Space(rate=hpx.LogUniform(1e-3, 1), scale=hpx.Uniform(0.5, 2))


def plan(program, space=SPACE, **more):
    arguments = {"trials": 4, "scheduler": hpx.PBT(every=2)} | more
    return hpx.Sweep(program, space, **arguments).plan()


def supervised(optimizer, model=None):
    loss, data = optax.softmax_cross_entropy_with_integer_labels, blobs()
    return hpx.supervised(
        model=model or nn.Dense(3), optimizer=optimizer, loss=loss, data=data, batch_size=16, steps=8, eval_every=2
    )


def own(init, step):
    """A program of a user's own."""
    return hpx.Program(
        init, lambda k, s, b, h: (step(s, h), {}), lambda k, s, d, h: {"loss": s["w"]}, steps=8, eval_every=2
    )


def sgd(s, rate):
    return s["w"] - rate * (s["w"] - 1)


def schedule(h):
    return optax.linear_schedule(h.rate, 0.0, 8)


# What is in the state, by the names of arrays: renewed ones, and hyperparameters that cannot change.
RATE = "opt_state/hyperparams/learning_rate"
SUPERVISED = {
    "built anew": (lambda h: optax.sgd(h.rate), [], {}),
    "injected": (lambda h: optax.inject_hyperparams(optax.sgd)(learning_rate=h.rate), [RATE], {}),
    "computed": (lambda h: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1 * h.rate**2), [RATE], {}),
    "a schedule": (lambda h: optax.inject_hyperparams(optax.sgd)(learning_rate=schedule(h)), [], {}),
    "several steps": (
        lambda h: optax.MultiSteps(optax.inject_hyperparams(optax.sgd)(h.rate), 2).gradient_transformation(),
        ["opt_state/inner_opt_state/hyperparams/learning_rate"],
        {},
    ),
    "finite only": (
        lambda h: optax.apply_if_finite(optax.inject_hyperparams(optax.sgd)(h.rate), 3),
        ["opt_state/inner_state/hyperparams/learning_rate"],
        {},
    ),
    "an estimate": (lambda h: optax.contrib.prodigy(estim_lr0=h.rate), [], {"rate": "opt_state/estim_lr"}),
}


def found(plan):
    (takeover,), (shapes,) = plan.takeovers, plan.shapes
    return ["/".join(map(str, shapes.names[i])) for i in takeover.renewed], dict(takeover.kept)


@pytest.mark.parametrize("name", SUPERVISED)
def test_what_optimizers_keep_of_hyperparameters(name):
    optimizer, renewed, kept = SUPERVISED[name]
    made = plan(supervised(optimizer))
    assert found(made) == (renewed, kept)
    assert made.free == {"rate", "scale"} - kept.keys()


class Scaled(nn.Module):
    scale: float

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, kernel_init=nn.initializers.variance_scaling(self.scale, "fan_in", "normal"))(x)


def test_weights_that_begin_at_a_scale_stay_as_trained_and_the_scale_with_them():
    made = plan(supervised(lambda h: optax.sgd(h.rate), lambda h: Scaled(h.scale)))
    assert found(made) == ([], {"scale": "params/Dense_0/kernel"})
    assert made.free == {"rate"}
    (told,) = [hint for hint in made.hints if "takes over" in hint]
    assert told == (
        "scale decides how params/Dense_0/kernel begins, which training then changes: a trial that goes on from the "
        "state of another takes over its scale, too, and the scheduler cannot change it."
    )


def noise(key):
    return jax.random.normal(key)


def with_noise(c):
    """An ``init`` of weights that are noise, and of ``c``."""
    return lambda key, h: {"w": noise(key), "c": c(key, h)}


def by_c(s, h):
    return s | {"w": sgd(s, s["c"])}


OWN = {
    "a constant of it": (with_noise(lambda k, h: 2 * h.rate), by_c, ["c"], {}),
    "the number itself": (with_noise(lambda k, h: h.rate), by_c, ["c"], {}),
    "of two": (with_noise(lambda k, h: h.rate * h.scale), by_c, ["c"], {}),
    "in a jitted step": (with_noise(lambda k, h: h.rate), jax.jit(by_c), ["c"], {}),
    "in a condition": (
        with_noise(lambda k, h: h.rate),
        lambda s, h: jax.lax.cond(s["w"] > 0, lambda s: by_c(s, None), lambda s: s, s),
        ["c"],
        {},
    ),
    "overwritten": (
        with_noise(lambda k, h: h.rate),
        lambda s, h: {"w": sgd(s, h.rate), "c": h.rate + 1},
        [],
        {},
    ),
    "overwritten now and then": (
        with_noise(lambda k, h: h.rate),
        lambda s, h: {"w": sgd(s, h.rate), "c": jnp.where(s["w"] > 0, h.rate + 1, s["c"])},
        [],
        {},
    ),
    "decayed": (
        with_noise(lambda k, h: h.rate),
        lambda s, h: {"w": sgd(s, s["c"]), "c": 0.9 * s["c"]},
        [],
        {"rate": "c"},
    ),
    "the start of training": (
        lambda k, h: {"w": 1.0 * h.rate},
        lambda s, h: {"w": sgd(s, h.scale)},
        [],
        {"rate": "w"},
    ),
    "fixed noise at a scale": (
        with_noise(lambda k, h: h.scale * noise(k)),
        lambda s, h: s | {"w": sgd(s, h.rate) + s["c"]},
        [],
        {"scale": "c"},
    ),
    "none": (lambda k, h: {"w": noise(k)}, lambda s, h: {"w": sgd(s, h.rate)}, [], {}),
}


@pytest.mark.parametrize("name", OWN)
def test_what_a_user_s_own_init_makes_of_hyperparameters(name):
    init, step, renewed, kept = OWN[name]
    made = plan(own(init, step))
    assert found(made) == (renewed, kept)
    assert made.free == {"rate", "scale"} - kept.keys()


def test_nothing_is_traced_for_it_where_no_trial_goes_on_from_another():
    program = supervised(lambda h: optax.inject_hyperparams(optax.sgd)(learning_rate=h.rate))
    for scheduler in (None, hpx.Halving(2, 2)):
        assert found(plan(program, scheduler=scheduler)) == ([], {})


X = jnp.zeros(3)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, y: x, Flow(frozenset({0}), 0)),
        (lambda x, y: x.astype(x.dtype) + 0 * y, Flow(frozenset({0, 1}))),
        (lambda x, y: jnp.asarray(x, jnp.float32).reshape(3), Flow(frozenset({0}), 0)),
        (lambda x, y: jax.jit(lambda a, b: b)(y, x), Flow(frozenset({0}), 0)),
        (lambda x, y: jax.checkpoint(lambda a: a * 1.5)(x), Flow(frozenset({0}))),
        (lambda x, y: jnp.where(y > 0, x, x), Flow(frozenset({0}), 0)),
        (lambda x, y: jnp.where(y > 0, x, -x), Flow(frozenset({0, 1}))),
        (lambda x, y: jax.lax.cond(y[0] > 0, lambda a: a, lambda a: a + 1, x), Flow(frozenset({0, 1}))),
        (lambda x, y: jax.lax.cond(y[0] > 0, lambda a: a, lambda a: a, x), Flow(frozenset({0}), 0)),
        (lambda x, y: jax.lax.scan(lambda c, _: (c + y, None), x, length=2)[0], Flow(frozenset({0, 1}))),
        (lambda x, y: jax.lax.fori_loop(0, 3, lambda i, c: c * 2, x), Flow(frozenset({0}))),
        (lambda x, y: jnp.ones(3), Flow()),
        (lambda x, y: x[:2], Flow(frozenset({0}))),
        (lambda x, y: x.astype(jnp.float16), Flow(frozenset({0}))),
        (lambda x, y: jax.nn.relu(x), Flow(frozenset({0}))),
    ],
)
def test_flows(function, expected):
    assert flows(function, X, X) == [expected]
