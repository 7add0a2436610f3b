"""Twelve hyperparameters of an MLP as axes of one compiled program.

hpjax run experiments/axes/mlp.py --dir runs/mlp
"""

import jax
import optax
from flax import linen as nn

import hpjax as hpx

STEPS = 500


class MLP(nn.Module):
    h: hpx.Hparams

    @nn.compact
    def __call__(self, x, train):
        h = self.h
        init = hpx.nn.scaled(h.scheme, h.scale)

        def block(i, x):
            x = h.activation(hpx.nn.Dense(64, h.units, inputs=h.units, kernel_init=init)(x))
            return hpx.nn.Dropout(h.dropout, deterministic=not train)(x)

        x = h.activation(hpx.nn.Dense(64, h.units, kernel_init=init)(x))
        return hpx.nn.Dense(10, inputs=h.units)(hpx.nn.layers(block, x, h.layers, most=3))


def optimizer(h):
    rate = hpx.optim.warmup_cosine_decay_schedule(0.0, h.learning_rate, h.warmup, STEPS)
    return optax.chain(
        optax.clip_by_global_norm(h.clip),
        optax.add_decayed_weights(h.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
        hpx.optim.sgd(rate, h.momentum, h.nesterov),
    )


space = hpx.Space(
    learning_rate=hpx.LogUniform(1e-2, 1.0),
    warmup=hpx.Int(0, 20),
    momentum=hpx.ReverseLogUniform(0.5, 0.99),
    nesterov=hpx.Choice(False, True),
    clip=hpx.Choice(0.5, 2.0, float("inf")),
    weight_decay=hpx.LogUniform(1e-6, 1e-3),
    dropout=hpx.Uniform(0, 0.5),
    smoothing=hpx.Uniform(0, 0.2),
    activation=hpx.Choice(nn.relu, nn.tanh, nn.gelu, select=True),
    scheme=hpx.Choice(hpx.nn.he_normal, hpx.nn.glorot_uniform, hpx.nn.orthogonal, select=True),
    scale=hpx.LogUniform(0.5, 2.0),
    units=hpx.LogInt(8, 64),
    layers=hpx.Int(0, 3),
    noise=hpx.Uniform(0, 0.2),
)

program = hpx.supervised(
    model=lambda h: MLP(h),
    optimizer=optimizer,
    loss=lambda h: hpx.losses.cross_entropy(smoothing=h.smoothing),
    metrics={"accuracy": hpx.metrics.accuracy},
    augment=lambda key, batch, h: batch._replace(x=batch.x + h.noise * jax.random.normal(key, batch.x.shape)),
    monitor=["gradient_norm", "dead_units"],
    data=hpx.data.digits(),
    batch_size=64,
    steps=STEPS,
    eval_every=100,
)

sweep = hpx.Sweep(program, space, trials=64, objective=hpx.maximize("valid/accuracy"))
