"""Batch sizes that share one program, each for as many epochs, with Adam's memory held at as many examples.

hpjax run experiments/axes/batch_size.py --dir runs/batch_size
"""

import optax
from flax import linen as nn

import hpjax as hpx

EXAMPLES, EPOCHS = 1257, 8


def steps(h):
    return EPOCHS * EXAMPLES // h.batch_size


program = hpx.supervised(
    model=nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)]),
    optimizer=lambda h: optax.adam(
        hpx.optim.cosine_decay_schedule(h.learning_rate, steps(h)),
        b2=hpx.optim.half_life(h.memory, h.batch_size),
    ),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(),
    batch_size=lambda h: h.batch_size,
    microbatch=16,
    steps=steps,
    eval_every=100,  # microbatches: every 1,600 examples
)

space = hpx.Space(
    batch_size=hpx.Choice(16, 32, 64, 128, 256),
    learning_rate=hpx.LogUniform(1e-3, 1e-1),
    memory=hpx.LogInt(1_000, 100_000),
)

sweep = hpx.Sweep(program, space, trials=40)
