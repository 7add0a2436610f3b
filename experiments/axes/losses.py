"""The loss: focal γ, smoothing and the weight of a class share one program; another loss or precision is a group.

hpjax run experiments/axes/losses.py --dir runs/losses
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import hpjax as hpx


def cross_entropy(h):
    """The class weights say how much more an eight counts than the other digits."""
    weights = [h.eights if digit == 8 else 1.0 for digit in range(10)]
    return hpx.losses.cross_entropy(smoothing=h.smoothing, focal=h.focal, weights=weights)


def huber(h):
    return lambda logits, y: optax.huber_loss(logits, jax.nn.one_hot(y, 10), delta=h.delta)


LOSSES = {"cross_entropy": cross_entropy, "huber": huber}

space = hpx.Space(learning_rate=hpx.LogUniform(1e-2, 1.0), dtype=hpx.Choice("float32", "bfloat16")) & (
    hpx.Space(
        loss="cross_entropy",
        smoothing=hpx.Uniform(0, 0.2),
        focal=hpx.Uniform(0, 3),
        eights=hpx.LogUniform(0.5, 4.0),
    )
    | hpx.Space(loss="huber", delta=hpx.LogUniform(0.05, 1.0))
)

program = hpx.supervised(
    model=lambda h: nn.Sequential([nn.Dense(32, dtype=h.dtype), nn.relu, nn.Dense(10, dtype=jnp.float32)]),
    optimizer=lambda h: optax.sgd(h.learning_rate, 0.9),
    loss=lambda h: LOSSES[h.loss](h),
    metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(),
    batch_size=64,
    steps=300,
    eval_every=100,
)

sweep = hpx.Sweep(program, space, trials=32, objective=hpx.maximize("valid/accuracy"))
