"""A recurrent network over digits read pixel by pixel: gradients clipped by norm, in one program.

hpjax run experiments/axes/sequences.py --dir runs/sequences
"""

import optax
from flax import linen as nn

import hpjax as hpx


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        cell = nn.GRUCell(24, recurrent_kernel_init=hpx.nn.orthogonal)
        return nn.Dense(10)(nn.RNN(cell)(x.reshape(len(x), 16, 4))[:, -1])


space = hpx.Space(
    learning_rate=hpx.LogUniform(1e-1, 3.0),
    clip=hpx.Choice(0.1, 1.0, float("inf")),
    noise=hpx.LogUniform(1e-6, 1e-2),
    decay=hpx.Uniform(0, 0.99),
)

program = hpx.supervised(
    model=Recurrent(),
    optimizer=lambda h: optax.chain(
        hpx.optim.add_noise(h.noise), optax.clip_by_global_norm(h.clip), optax.sgd(h.learning_rate)
    ),
    average=lambda h: h.decay,
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(),
    batch_size=32,
    steps=300,
    eval_every=100,
)

sweep = hpx.Sweep(program, space, trials=16)
