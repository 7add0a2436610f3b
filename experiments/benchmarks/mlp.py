"""MLPs on digits: SGD with momentum, each trial with a learning rate, momentum and weight decay of its own."""

from functools import partial

import numpy as np
from workload import Arrays, Workload, split


def digits() -> Arrays:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return split(x[order] / 16, y[order], valid=270)


def model(hidden: int):
    from flax import linen as nn

    class MLP(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = nn.relu(nn.Dense(hidden)(x))
            return nn.Dense(10)(x)

    return MLP()


def optimizer(h):
    import optax

    return optax.chain(optax.add_decayed_weights(h["weight_decay"]), optax.sgd(h["learning_rate"], h["momentum"]))


def of(hidden: int, batch: int, steps: int) -> Workload:
    return Workload(
        partial(model, hidden),
        optimizer,
        digits,
        batch,
        steps,
        {"learning_rate": (0.01, 0.3), "momentum": (0.5, 0.98), "weight_decay": (1e-6, 1e-3)},
        ("learning_rate", "weight_decay"),
    )


HIDDEN = 64
sweep = of(HIDDEN, batch=64, steps=300)
tiny = of(16, batch=64, steps=300)
many = of(16, batch=32, steps=50)
# Of 20 seconds to a minute, and of one to three minutes, as the machines of the records have them.
long, longer = (of(HIDDEN, batch=64, steps=steps) for steps in (6_000, 18_000))


def flops(hidden: int = HIDDEN) -> float:
    """Returns the FLOP of a trial's step: forward, backward to the weights, and to activations but the inputs."""
    layers = [(64, hidden), (hidden, hidden), (hidden, 10)]
    products = 2 * sum(a * b for a, b in layers) + sum(a * b for a, b in layers[1:])
    return 2.0 * products * sweep.batch
