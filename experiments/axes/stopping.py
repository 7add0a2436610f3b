"""Plateaus, early stopping and cross-validation: what a trial does of its own after an evaluation.

hpjax run experiments/axes/stopping.py --dir runs/stopping
"""

import optax
from flax import linen as nn

import hpjax as hpx

program = hpx.supervised(
    model=nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)]),
    optimizer=lambda h: optax.chain(
        optax.sgd(h.learning_rate, 0.9),
        hpx.optim.reduce_on_plateau(h.factor, h.plateau, h.cooldown),
    ),
    early_stopping=lambda h: hpx.EarlyStopping(h.patience, h.min_delta),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(),
    batch_size=64,
    steps=1_000,
    eval_every=50,
)

space = hpx.Space(
    learning_rate=hpx.LogUniform(1e-2, 1.0),
    factor=hpx.Uniform(0.1, 0.7),
    plateau=hpx.Int(1, 4),
    cooldown=hpx.Int(0, 2),
    patience=hpx.Int(2, 8),
    min_delta=hpx.LogUniform(1e-5, 1e-2),
)

sweep = hpx.Sweep(program, space, trials=16, folds=5, objective=hpx.minimize("valid/best_loss"))
