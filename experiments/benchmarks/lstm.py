"""An LSTM over 64 steps of waves that are generated: which of ten frequencies is it?"""

import numpy as np
from transformer import optimizer
from workload import Arrays, Workload, split

LENGTH, FEATURES = 64, 4


def waves() -> Arrays:
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=1152)
    phase = rng.uniform(0, 2 * np.pi, size=(len(y), 1, 1)) + np.arange(FEATURES)
    x = np.sin(0.1 * (y + 1)[:, None, None] * np.arange(LENGTH)[None, :, None] + phase)
    return split(x + 0.3 * rng.normal(size=x.shape), y, valid=128)


def model():
    from flax import linen as nn

    class LSTM(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(10)(nn.RNN(nn.OptimizedLSTMCell(64))(x).mean(1))

    return LSTM()


sweep = Workload(
    model,
    optimizer,
    waves,
    batch=32,
    steps=20,
    ranges={"learning_rate": (3e-3, 3e-2), "weight_decay": (1e-5, 1e-1)},
    logarithmic=("learning_rate", "weight_decay"),
)
