"""A CNN on images of 28×28 that are generated: noise around a prototype for each of ten classes."""

import numpy as np
from mlp import optimizer
from workload import Arrays, Workload, split


def images() -> Arrays:
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=1088)
    # Prototypes of 7×7 enlarged, so that neighbouring pixels are alike as in pictures.
    prototypes = np.kron(rng.normal(size=(10, 7, 7)), np.ones((4, 4)))
    x = prototypes[y] + rng.normal(size=(len(y), 28, 28))
    return split(x[..., None], y, valid=64)


def model():
    from flax import linen as nn

    class CNN(nn.Module):
        @nn.compact
        def __call__(self, x):
            for channels in (16, 32):
                x = nn.max_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), strides=(2, 2))
            return nn.Dense(10)(nn.relu(nn.Dense(64)(x.reshape(len(x), -1))))

    return CNN()


sweep = Workload(
    model,
    optimizer,
    images,
    batch=32,
    steps=10,
    ranges={"learning_rate": (1e-3, 0.03), "momentum": (0.5, 0.9), "weight_decay": (1e-6, 1e-3)},
    logarithmic=("learning_rate", "weight_decay"),
)
