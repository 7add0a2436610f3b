"""A small transformer on sequences of 32 tokens that are generated: which of ten tokens is the most frequent?"""

import numpy as np
from workload import Arrays, Workload, split

TOKENS, LENGTH, WIDTH = 10, 32, 64


def sequences() -> Arrays:
    rng = np.random.default_rng(0)
    y = rng.integers(TOKENS, size=1152)
    noise = rng.integers(TOKENS, size=(len(y), LENGTH))
    return split(np.where(rng.uniform(size=noise.shape) < 0.25, y[:, None], noise), y, valid=128)


def model():
    from flax import linen as nn

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, x):
            place = self.param("place", nn.initializers.normal(0.02), (LENGTH, WIDTH))
            x = nn.Embed(TOKENS, WIDTH)(x) + place
            for _ in range(2):
                y = nn.LayerNorm()(x)
                x = x + nn.MultiHeadDotProductAttention(num_heads=4)(y, y)
                x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(4 * WIDTH)(nn.LayerNorm()(x))))
            return nn.Dense(TOKENS)(nn.LayerNorm()(x).mean(1))

    return Transformer()


def optimizer(h):
    import optax

    return optax.adamw(h["learning_rate"], weight_decay=h["weight_decay"])


sweep = Workload(
    model,
    optimizer,
    sequences,
    batch=16,
    steps=20,
    ranges={"learning_rate": (1e-4, 1e-2), "weight_decay": (1e-5, 1e-1)},
    logarithmic=("learning_rate", "weight_decay"),
)
