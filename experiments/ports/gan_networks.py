"""What gan.py moves unchanged: the networks of a DCGAN with their states, its train step and its two losses."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training import train_state

LATENTS = 16


class TrainState(train_state.TrainState):
    batch_stats: Any

    def __call__(self, params, x):
        variables = {"params": params, "batch_stats": self.batch_stats}
        return self.apply_fn(variables, x, training=True, mutable=["batch_stats"])


class Generator(nn.Module):
    @nn.compact
    def __call__(self, z, training):
        x = nn.ConvTranspose(32, (4, 4), padding="VALID", use_bias=False)(z[:, None, None, :])
        x = nn.relu(nn.BatchNorm(not training, momentum=0.9)(x))
        return nn.tanh(nn.ConvTranspose(1, (4, 4), (2, 2), use_bias=False)(x))


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, x, training):
        x = nn.leaky_relu(nn.Conv(16, (4, 4), (2, 2), use_bias=False)(x), 0.2)
        x = nn.BatchNorm(not training, momentum=0.9)(nn.Conv(32, (4, 4), (2, 2), use_bias=False)(x))
        return nn.Conv(1, (2, 2), padding="VALID", use_bias=False)(nn.leaky_relu(x, 0.2)).reshape(-1)


def begin(key, *learning_rates):
    nets, examples = (Generator(), Discriminator()), (jnp.ones((1, LATENTS)), jnp.ones((1, 8, 8, 1)))
    adams = [optax.adam(rate, b1=0.5, b2=0.9) for rate in learning_rates]
    inits = [jax.jit(partial(net.init, training=False)) for net in nets]
    variables = [init(key, example) for init, example in zip(inits, examples, strict=True)]
    return tuple(
        TrainState.create(apply_fn=n.apply, tx=tx, **v) for n, tx, v in zip(nets, adams, variables, strict=True)
    )


def bce(logits, real):
    return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, real)).mean()


def loss_g(params_g, g, d, z):
    fake, stats_g = g(params_g, z)
    logits, stats_d = d(d.params, fake)
    return bce(logits, 1), (stats_g, stats_d)


def loss_d(params_d, d, g, x, z):
    fake, stats_g = g(g.params, z)
    real_logits, stats_d = d(params_d, x)
    fake_logits, stats_d = d.replace(**stats_d)(params_d, fake)
    return bce(real_logits, 1) + bce(fake_logits, 0), (stats_g, stats_d)


@jax.jit
def train_step(key, g, d, x):
    key_g, key_d = jax.random.split(key)
    z = jax.random.normal(key_g, (len(x), LATENTS))
    (g_loss, (stats_g, stats_d)), grads = jax.value_and_grad(loss_g, has_aux=True)(g.params, g, d, z)
    g, d = g.apply_gradients(grads=grads, **stats_g), d.replace(**stats_d)
    z = jax.random.normal(key_d, (len(x), LATENTS))
    (d_loss, (stats_g, stats_d)), grads = jax.value_and_grad(loss_d, has_aux=True)(d.params, d, g, x, z)
    state = g.replace(**stats_g), d.apply_gradients(grads=grads, **stats_d)
    return state, {"g_loss": g_loss, "d_loss": d_loss}


@partial(jax.jit, static_argnames="count")
def generate(g, key, count):
    variables = {"params": g.params, "batch_stats": g.batch_stats}
    return g.apply_fn(variables, jax.random.normal(key, (count, LATENTS)), training=False)


@jax.jit
def energy_distance(a, b):
    """The energy distance between two sets of images (Székely and Rizzo 2013), 0 for sets of one distribution."""

    def mean_distance(a, b):
        squares = ((a[:, None] - b) ** 2).sum(axis=(2, 3, 4))
        return jnp.sqrt(squares).mean()

    return 2 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b)
