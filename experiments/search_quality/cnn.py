"""The convolutional network of MNIST-1D with five hyperparameters: the other training of quality.py.

S. Greydanus and D. Kobak, "Scaling down deep learning with MNIST-1D", ICML 2024.
"""

import optax
from flax import linen as nn

import hpjax as hpx


class CNN(nn.Module):
    """Three convolutions over 40 places and a dense layer, as in the paper, with 16 channels."""

    dropout: float

    @nn.compact
    def __call__(self, x, train):
        x = x[..., None]
        for size in (5, 3, 3):
            x = nn.relu(nn.Conv(16, (size,), 2, padding=1)(x))
        x = hpx.nn.Dropout(self.dropout, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(10)(x)


space = hpx.Space(
    learning_rate=hpx.LogUniform(1e-4, 1.0),
    b1=hpx.ReverseLogUniform(0.3, 0.999),
    b2=hpx.ReverseLogUniform(0.5, 0.9999),
    weight_decay=hpx.LogUniform(1e-4, 10.0),
    dropout=hpx.Uniform(0, 0.9),
)


def sweep_on(path):
    """The sweep on the archive that MNIST-1D comes as, ``x_train``, ``y_train``, ``x_test``, ``y_test``."""
    program = hpx.supervised(
        model=lambda h: CNN(h.dropout),
        optimizer=lambda h: optax.adamw(h.learning_rate, h.b1, h.b2, weight_decay=h.weight_decay),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=hpx.data.from_npz(path),
        batch_size=64,
        steps=200,
        eval_every=50,
    )
    return hpx.Sweep(program, space)
