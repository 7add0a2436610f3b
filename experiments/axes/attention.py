"""A small transformer over the rows of a digit: attention dropout, layer norm's ε, clipping, rates by label.

hpjax run experiments/axes/attention.py --dir runs/attention
"""

import jax
import optax
from flax import linen as nn

import hpjax as hpx


class Transformer(nn.Module):
    dropout: float
    epsilon: float

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(32, name="embed")(x.reshape(len(x), 8, 8))
        x += self.param("place", nn.initializers.normal(0.1), (1, 8, 32))
        attend = hpx.nn.MultiHeadAttention(num_heads=4, dropout_rate=self.dropout, deterministic=not train)
        x += attend(nn.LayerNorm(epsilon=self.epsilon)(x))
        x += nn.Dense(32)(nn.gelu(nn.Dense(64)(nn.LayerNorm(epsilon=self.epsilon)(x))))
        return nn.Dense(10, name="head")(x.mean(1))


def label(params):
    """Which rate each parameter has: "head", or "body" for all others."""
    return jax.tree.map_with_path(lambda path, _: "head" if path[0].key == "head" else "body", params)


space = hpx.Space(
    head_rate=hpx.LogUniform(1e-4, 1e-1),
    body_rate=hpx.LogUniform(1e-4, 1e-2),
    clip=hpx.LogUniform(1e-4, 1.0),
    dropout=hpx.Uniform(0, 0.5),
    epsilon=hpx.LogUniform(1e-6, 1e-1),
)

program = hpx.supervised(
    model=lambda h: Transformer(h.dropout, h.epsilon),
    optimizer=lambda h: optax.chain(
        optax.clip(h.clip),
        optax.multi_transform({"head": optax.adam(h.head_rate), "body": optax.adam(h.body_rate)}, label),
    ),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(),
    batch_size=32,
    steps=200,
    eval_every=100,
)

sweep = hpx.Sweep(program, space, trials=16)
