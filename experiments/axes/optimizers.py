"""Optimizers side by side, each with hyperparameters of its own: conditional, and a group each.

hpjax run experiments/axes/optimizers.py --dir runs/optimizers
"""

import optax
from flax import linen as nn

import hpjax as hpx

MAKE = {
    "sgd": lambda h: hpx.optim.sgd(h.learning_rate, h.momentum, nesterov=True),
    "adamw": lambda h: optax.adamw(h.learning_rate, h.b1, h.b2, weight_decay=h.weight_decay),
    "rmsprop": lambda h: optax.rmsprop(h.learning_rate, h.decay),
    "lion": lambda h: optax.lion(h.learning_rate, weight_decay=h.weight_decay),
}

space = (
    hpx.Space(optimizer="sgd", learning_rate=hpx.LogUniform(1e-2, 1.0), momentum=hpx.ReverseLogUniform(0.5, 0.99))
    | hpx.Space(
        optimizer="adamw",
        learning_rate=hpx.LogUniform(1e-4, 1e-1),
        b1=hpx.ReverseLogUniform(0.5, 0.99),
        b2=hpx.ReverseLogUniform(0.9, 0.9999),
        weight_decay=hpx.LogUniform(1e-4, 1e-1),
    )
    | hpx.Space(optimizer="rmsprop", learning_rate=hpx.LogUniform(1e-4, 1e-1), decay=hpx.ReverseLogUniform(0.5, 0.99))
    | hpx.Space(optimizer="lion", learning_rate=hpx.LogUniform(1e-5, 1e-2), weight_decay=hpx.LogUniform(1e-3, 1.0))
)

program = hpx.supervised(
    model=nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)]),
    optimizer=lambda h: MAKE[h.optimizer](h),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(),
    batch_size=64,
    steps=500,
    eval_every=100,
)

sweep = hpx.Sweep(program, space, trials=64)
