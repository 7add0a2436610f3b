"""How do learning rate, momentum, weight decay and width decide how well an MLP reads digits?

hpjax run experiments/digits/sweep.py --dir runs/digits --test
"""

import optax
from flax import linen as nn

import hpjax as hpx


class MLP(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.Dense(10)(x)


space = hpx.Space(
    learning_rate=hpx.LogUniform(1e-4, 1.0, default=0.1),
    momentum=hpx.ReverseLogUniform(0.5, 0.99, default=0.9),
    weight_decay=hpx.LogUniform(1e-6, 1e-2, default=1e-4),
    hidden=hpx.Choice(32, 64, 128, default=64),
)

program = hpx.supervised(
    model=lambda h: MLP(h.hidden),
    optimizer=lambda h: optax.chain(
        optax.add_decayed_weights(h.weight_decay),
        optax.sgd(h.learning_rate, h.momentum),
    ),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(),
    batch_size=64,
    steps=2_000,
    eval_every=100,
)

sweep = hpx.Sweep(program, space, trials=256, objective=hpx.minimize("valid/loss"), seed=0)
