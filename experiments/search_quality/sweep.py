"""An MLP on digits with five hyperparameters, searched by Bayes in rounds: one of the problems of quality.py.

hpjax run experiments/search_quality/sweep.py --dir runs/search
"""

import optax
from flax import linen as nn

import hpjax as hpx


class MLP(nn.Module):
    dropout: float

    @nn.compact
    def __call__(self, x, train):
        x = hpx.nn.Dropout(self.dropout, deterministic=not train)(nn.relu(nn.Dense(64)(x)))
        return nn.Dense(10)(x)


space = hpx.Space(
    learning_rate=hpx.LogUniform(1e-4, 10.0),
    momentum=hpx.ReverseLogUniform(0.3, 0.999),
    weight_decay=hpx.LogUniform(1e-6, 1e-1),
    dropout=hpx.Uniform(0, 0.9),
    smoothing=hpx.Uniform(0, 0.5),
)

program = hpx.supervised(
    model=lambda h: MLP(h.dropout),
    optimizer=lambda h: optax.chain(optax.add_decayed_weights(h.weight_decay), optax.sgd(h.learning_rate, h.momentum)),
    loss=lambda h: hpx.losses.cross_entropy(smoothing=h.smoothing),
    metrics={"nll": optax.softmax_cross_entropy_with_integer_labels, "accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(),
    batch_size=64,
    steps=200,
    eval_every=50,
)

sweep = hpx.Sweep(program, space, trials=128, rounds=4, sampler=hpx.Bayes(), objective=hpx.minimize("valid/nll"))
