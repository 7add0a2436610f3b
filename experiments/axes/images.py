"""A convolutional network: kernel, stride, padding and pooling make groups; the rest shares their programs.

hpjax run experiments/axes/images.py --dir runs/images
"""

import functools
import operator

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import hpjax as hpx


class Net(nn.Module):
    kernel: int
    stride: int
    padding: str
    pool: str
    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (self.kernel, self.kernel), self.stride, self.padding)(x.reshape(-1, 8, 8, 1))
        x = nn.BatchNorm(not train, momentum=self.momentum, epsilon=self.epsilon)(x)
        x = (nn.max_pool if self.pool == "max" else nn.avg_pool)(nn.relu(x), (2, 2), strides=(2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


def mixup(key, batch, h):
    """H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018."""
    share = jax.random.beta(key, h.mixup, h.mixup, (len(batch.x), 1))
    y = jax.nn.one_hot(batch.y, 10)
    return batch._replace(x=share * batch.x + (1 - share) * batch.x[::-1], y=share * y + (1 - share) * y[::-1])


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy(logits, y if y.ndim == logits.ndim else jax.nn.one_hot(y, 10))


def error(logits, y):
    return (logits.argmax(-1) != (y if y.ndim == 1 else y.argmax(-1))).astype(jnp.float32)


shared = {
    "learning_rate": hpx.LogUniform(1e-2, 1.0),
    "momentum": hpx.ReverseLogUniform(0.5, 0.99),
    "epsilon": hpx.LogUniform(1e-5, 1e-1),
    "mixup": hpx.LogUniform(0.1, 1.0),
}
base = {"kernel": 3, "stride": 1, "padding": "SAME", "pool": "max"}
changes = ({}, {"kernel": 2}, {"stride": 2}, {"padding": "VALID"}, {"pool": "avg"})
# One change at a time: five groups instead of sixteen.
space = functools.reduce(operator.or_, (hpx.Space(**shared, **(base | change)) for change in changes))

program = hpx.supervised(
    model=lambda h: Net(h.kernel, h.stride, h.padding, h.pool, h.momentum, h.epsilon),
    optimizer=lambda h: optax.sgd(h.learning_rate, 0.9),
    loss=lambda logits, y: cross_entropy(logits, y),
    metrics={"error": error},
    augment=mixup,
    data=hpx.data.digits(),
    batch_size=32,
    steps=100,
    eval_every=50,
)

sweep = hpx.Sweep(program, space, trials=16, objective=hpx.minimize("valid/error"))
