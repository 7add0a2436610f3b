"""Flax's VAE example, whose model takes a key ``z_rng``, on scikit-learn's digits: [--smoke] [--out FOLDER]."""

import agreement
import jax
import optax
from flax import linen as nn

import hpjax as hpx


class VAE(nn.Module):
    @nn.compact
    def __call__(self, x, z_rng):
        hidden = nn.relu(nn.Dense(500)(x))
        mean, logvar = nn.Dense(20, name="mean")(hidden), nn.Dense(20, name="logvar")(hidden)
        z = mean + jax.numpy.exp(0.5 * logvar) * jax.random.normal(z_rng, logvar.shape)
        return nn.Dense(64)(nn.relu(nn.Dense(500)(z))), mean, logvar


def loss(outputs, y, x):
    kld = -0.5 * (1 + outputs[2] - outputs[1] ** 2 - jax.numpy.exp(outputs[2])).sum(axis=-1)
    return optax.sigmoid_binary_cross_entropy(outputs[0], x).sum(axis=-1) + kld


program = hpx.supervised(model=VAE(), optimizer=lambda h: optax.adam(h.learning_rate), loss=loss,
    data=hpx.data.digits(), batch_size=128, steps=300, eval_every=100)  # fmt: skip
sweep = hpx.Sweep(program, hpx.Space(learning_rate=hpx.LogUniform(1e-4, 1e-2)), trials=8)


def alone(h, lane):
    def mean_loss(params, batch, key):
        return loss(VAE().apply({"params": params}, batch.x, z_rng=jax.random.fold_in(key, 4)), None, batch.x).mean()

    params = jax.jit(VAE().init)(lane.key("init"), lane.data.valid.x, z_rng=lane.key("init"))["params"]
    return lane.losses(mean_loss, params, optax.adam(h.learning_rate), size=128)


if __name__ == "__main__":
    agreement.main(sweep, alone)
