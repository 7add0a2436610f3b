"""The latent size of an autoencoder as a masked axis: one program for all sizes.

hpjax run experiments/axes/autoencoder.py --dir runs/autoencoder
"""

import optax
from flax import linen as nn

import hpjax as hpx


class Autoencoder(nn.Module):
    latent: int

    @nn.compact
    def __call__(self, x):
        code = hpx.nn.Dense(32, self.latent)(nn.relu(nn.Dense(64)(x)))
        return nn.Dense(64)(nn.relu(hpx.nn.Dense(64, inputs=self.latent)(code)))


digits = hpx.data.digits()
data = hpx.Data(*(split._replace(y=split.x) for split in (digits.train, digits.valid, digits.test)), name="digits")

program = hpx.supervised(
    model=lambda h: Autoencoder(h.latent),
    optimizer=lambda h: optax.adam(h.learning_rate),
    loss=hpx.metrics.squared_error,
    penalty=lambda params, h: h.l1 * hpx.losses.l1(params),
    monitor=["sparsity"],
    data=data,
    batch_size=64,
    steps=500,
    eval_every=100,
)

space = hpx.Space(latent=hpx.LogInt(1, 32), learning_rate=hpx.LogUniform(1e-4, 1e-2), l1=hpx.LogUniform(1e-8, 1e-4))

sweep = hpx.Sweep(program, space, trials=32)
