"""What losses and metrics may take by name, against plain loops that call Flax and Optax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key, step_key
from tests.support.plain import SEED, cross_entropy, drawn, train_alone
from tests.support.programs import blobs, classifier

STEPS, BATCH = 6, 16
ONE = hpx.Space(learning_rate=0.1, strength=hpx.Choice(0.01, 0.1))


def trained(space=ONE, **arguments):
    program = classifier(
        **{
            "model": nn.Dense(3),
            "optimizer": lambda h: optax.sgd(h.learning_rate),
            "metrics": {},
            "steps": STEPS,
            "eval_every": 2,
        }
        | arguments
    )
    return hpx.Sweep(program, space, sampler=hpx.Grid(), seed=SEED, width=1).run(progress=False)


class Dense(nn.Dense):
    """A linear model that may be told whether it trains."""

    def __call__(self, x, train=False):
        return super().__call__(x)


@pytest.mark.parametrize("microbatch", [None, 4])
def test_a_loss_that_takes_params_and_h_is_that_of_a_plain_loop(microbatch):
    """Weight norm in the loss of each example, with a strength that is traced."""

    def loss(outputs, y, params, h):
        return cross_entropy(outputs, y) + h.strength * sum(jnp.sum(w**2) for w in jax.tree.leaves(params))

    result = trained(loss=loss, microbatch=microbatch, eval_every=2 * (BATCH // (microbatch or BATCH)))
    for trial in result:
        strength = trial.hparams["strength"]
        params, losses = train_alone(
            blobs(),
            model=Dense(3),
            optimizer=optax.sgd(0.1),
            steps=STEPS,
            batch_size=BATCH,
            eval_every=2,
            penalty=lambda p, strength=strength: strength * sum(jnp.sum(w**2) for w in jax.tree.leaves(p)),
        )
        np.testing.assert_allclose(trial.restore()["params"]["kernel"], params["kernel"], rtol=1e-5)
        norm = sum(np.sum(w**2) for w in jax.tree.leaves(trial.restore()["params"]))
        assert trial.metrics["valid/loss"] == pytest.approx(losses[-1] + strength * norm, rel=1e-5)


class Field(nn.Module):
    """A function of one number."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(1)(jnp.tanh(nn.Dense(8)(x)))[:, 0]


def residual(params, x):
    """Of u' = −u at each point, by differentiating the model."""
    u = lambda t: Field().apply({"params": params}, t[None, None])[0]
    return jax.vmap(lambda t: jax.grad(u)(t) + u(t))(x[:, 0])


def test_a_physics_loss_differentiates_the_model_at_its_inputs():
    x = np.linspace(0, 1, 40)[:, None].astype(np.float32)
    data = hpx.data.from_arrays(x, np.zeros(40), valid=(x[::2], np.zeros(20)), test=(x, np.zeros(40)))
    result = trained(
        model=Field(),
        data=data,
        loss=lambda outputs, y, *, x, params: residual(params, x) ** 2,
        metrics={"error": lambda outputs, y, x: jnp.abs(outputs - jnp.exp(-x[:, 0]))},
        eval_batch_size=7,
    )
    key, model = lane_key(SEED, 0), Field()
    params = model.init(purpose_key(key, "init"), jnp.zeros((1, 1)))["params"]
    index, _ = drawn(0, 40, BATCH, STEPS)
    for t in range(STEPS):
        gradient = jax.grad(lambda p, t=t: jnp.mean(residual(p, data.train.x[index[t]]) ** 2))(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    for name, layer in params.items():
        np.testing.assert_allclose(result[0].restore()["params"][name]["kernel"], layer["kernel"], rtol=1e-4)
    valid = jnp.asarray(data.valid.x)
    expected = float(jnp.mean(residual(params, valid) ** 2))
    assert result[0].metrics["valid/loss"] == pytest.approx(expected, rel=1e-4)
    error = np.abs(model.apply({"params": params}, valid) - np.exp(-valid[:, 0])).mean()
    assert result[0].metrics["valid/error"] == pytest.approx(error, rel=1e-5)


def test_the_key_is_a_fold_of_the_step_s_own_with_0():
    def noisy(outputs, y, key):
        return jnp.sum(outputs**2, -1) * 0 + jax.random.uniform(key, y.shape)

    result = trained(loss=noisy, eval_batch_size=9)
    key, size = lane_key(SEED, 0), BATCH
    keys = [step_key(purpose_key(key, "step"), t) for t in (4, 5)]
    expected = np.mean([jax.random.uniform(jax.random.fold_in(k, 0), (size,)).mean() for k in keys])
    assert result[0].metrics["train/loss"] == pytest.approx(expected, rel=1e-6)
    base = jax.random.fold_in(step_key(purpose_key(key, "evaluate"), STEPS), 0)
    parts = [jax.random.uniform(jax.random.fold_in(base, i), (9,)) for i in range(2)]
    assert result[0].metrics["valid/loss"] == pytest.approx(np.mean(parts), rel=1e-6)


def test_x_is_what_the_model_gets_after_augmentation():
    result = trained(
        augment=lambda key, batch, h: batch._replace(x=batch.x * 0 + 3),
        metrics={"x": lambda outputs, y, x: x.mean(-1)},
    )
    assert result[0].metrics["train/x"] == pytest.approx(3)
    assert result[0].metrics["valid/x"] == pytest.approx(blobs().valid.x.mean(), rel=1e-5)


def scaled(outputs, y, h, power=1.0):
    return h.strength * cross_entropy(outputs, y) ** power


def plain(outputs, y):
    return cross_entropy(outputs, y)


@pytest.mark.parametrize(
    "loss",
    [
        scaled,
        lambda h: scaled,
        lambda h: lambda outputs, y, *, h: scaled(outputs, y, h),
        functools.partial(scaled, power=1.0),
        jax.jit(scaled),
    ],
)
def test_h_is_given_to_every_kind_of_function(loss):
    result = trained(loss=loss, optimizer=optax.sgd(0.0))
    values = [trial.metrics["valid/loss"] for trial in result]
    assert values[1] == pytest.approx(10 * values[0], rel=1e-5)


def test_a_bound_argument_stays():
    loss = functools.partial(scaled, h=hpx.Hparams({"strength": 2.0}))
    first, second = trained(loss=loss, optimizer=optax.sgd(0.0))
    assert first.metrics["valid/loss"] == second.metrics["valid/loss"]


def test_functions_that_are_options_of_a_choice_take_what_each_names():
    space = hpx.Space(learning_rate=0.0, strength=0.5, loss=hpx.Choice(scaled, plain, select=True))
    first, second = trained(space, loss=lambda h: h.loss)
    assert second.metrics["valid/loss"] == pytest.approx(2 * first.metrics["valid/loss"], rel=1e-5)


def test_a_function_of_the_host_takes_arguments_by_name():
    def own(outputs, y, *, x, h):
        return x.mean(-1) + float(h.strength)

    result = trained(metrics={"own": hpx.metrics.on_host(own)})
    for trial in result:
        expected = blobs().valid.x.mean() + trial.hparams["strength"]
        assert trial.metrics["valid/own"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("field", ["loss", "metrics", "split_metrics"])
def test_an_argument_that_is_not_known_is_refused(field):
    def needs(outputs, y, temperature):
        return outputs[:, 0]

    given = {field: needs if field == "loss" else {"own": needs}}
    with pytest.raises(hpx.InputError, match=r"takes temperature: it may take x, params, key, h"):
        classifier(**given)


def test_microbatches_of_a_loss_that_draws_train_another_way():
    """Which a study of batch sizes asks before it chooses between whole batches and microbatches."""
    plain_loss, drawing = (classifier(loss=loss) for loss in (plain, lambda outputs, y, key: plain(outputs, y)))
    assert (plain_loss.batches.alike, drawing.batches.alike) == (True, False)


def contrastive(outputs, y):
    """NT-Xent of neighbours: T. Chen et al., "A Simple Framework for Contrastive Learning", ICML 2020."""
    units = outputs / jnp.linalg.norm(outputs, axis=-1, keepdims=True)
    similar = units @ units.T - 1e9 * jnp.eye(len(units))
    return optax.softmax_cross_entropy_with_integer_labels(similar, jnp.arange(len(units)) ^ 1)


def test_a_contrastive_loss_is_that_of_a_plain_loop():
    """Pairs of views are neighbours in the batch, which the augmentation makes."""

    def views(key, batch, h=None):
        x = jnp.repeat(batch[0][:8], 2, axis=0)
        return x + 0.1 * jax.random.normal(key, x.shape), batch[1]

    result = trained(
        loss=contrastive, augment=lambda key, batch, h: type(batch)(*views(key, batch)), eval_batch_size=18
    )
    params, losses = train_alone(
        blobs(),
        model=Dense(3),
        optimizer=optax.sgd(0.1),
        loss=contrastive,
        steps=STEPS,
        batch_size=BATCH,
        eval_every=2,
        augment=lambda key, x, y: views(key, (x, y)),
    )
    np.testing.assert_allclose(result[0].restore()["params"]["kernel"], params["kernel"], rtol=1e-4, atol=1e-6)
    assert result[0].metrics["valid/loss"] == pytest.approx(losses[-1], rel=1e-5)


class Denoiser(nn.Module):
    """Predicts the noise from a noisy point and its level."""

    @nn.compact
    def __call__(self, x, train=False):
        noisy, level = x
        return nn.Dense(2)(jnp.concatenate([noisy, level[:, None]], -1))


def noised(key, clean):
    """Points at levels of noise, and the noise: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020."""
    level = jax.random.uniform(jax.random.fold_in(key, 0), (len(clean),))
    noise = jax.random.normal(jax.random.fold_in(key, 1), clean.shape)
    return (clean * (1 - level[:, None]) + noise * level[:, None], level), noise


def test_an_augmentation_makes_inputs_that_the_data_does_not_have():
    clean = np.random.default_rng(0).normal(size=(36, 2)).astype(np.float32)
    valid = jax.tree.map(np.asarray, noised(jax.random.key(5), clean))
    with pytest.raises(hpx.InputError, match=r"Give data.test as many arrays as valid, or test=None"):
        trained(data=hpx.data.from_arrays(clean, np.zeros(36), valid=valid), augment=lambda key, batch, h: batch)
    result = trained(
        model=Denoiser(),
        data=hpx.data.from_arrays(clean, np.zeros(36), valid=valid, test=None),
        loss=lambda outputs, y: jnp.sum((outputs - y) ** 2, -1),
        augment=lambda key, batch, h: type(batch)(*noised(key, batch.x)),
        eval_batch_size=36,
    )
    params, losses = train_alone(
        hpx.Data(hpx.data.Examples(clean, np.zeros(36)), hpx.data.Examples(*valid)),
        model=Denoiser(),
        optimizer=optax.sgd(0.1),
        loss=lambda outputs, y: jnp.sum((outputs - y) ** 2, -1),
        steps=STEPS,
        batch_size=BATCH,
        eval_every=2,
        augment=lambda key, x, y: noised(key, x),
    )
    np.testing.assert_allclose(
        result[0].restore()["params"]["Dense_0"]["kernel"], params["Dense_0"]["kernel"], rtol=1e-5
    )
    assert result[0].metrics["valid/loss"] == pytest.approx(losses[-1], rel=1e-5)
    expected = Denoiser().apply({"params": params}, valid[0])
    np.testing.assert_allclose(result[0].predict(valid[0])[0], expected, rtol=1e-4, atol=1e-6)
