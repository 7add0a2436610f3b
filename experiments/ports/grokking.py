"""Grokking: a transformer that learns a + b modulo p from a part of all pairs: [--smoke] [--out FOLDER]."""

import agreement
import jax.numpy as jnp
import optax
from flax import linen as nn

import hpjax as hpx

P, loss = 31, optax.softmax_cross_entropy_with_integer_labels


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Embed(P + 1, 64)(x) + nn.Embed(3, 64)(jnp.arange(3))
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadAttention(4)(h, mask=nn.make_causal_mask(jnp.ones(x.shape[:2])))
        x = x + nn.Dense(64)(nn.gelu(nn.Dense(256)(nn.LayerNorm()(x))))
        return nn.Dense(P)(x[:, -1])


def adamw(h):
    return optax.adamw(optax.warmup_constant_schedule(0, h.lr, 10), b2=0.98, weight_decay=h.decay)


a, b = jnp.divmod(jnp.arange(P * P), P)
data = hpx.data.from_arrays(jnp.stack([a, b, jnp.full_like(a, P)], axis=1), (a + b) % P, valid=0.5, test=None)
program = hpx.supervised(model=Transformer(), optimizer=adamw, loss=loss, metrics={"accuracy": hpx.metrics.accuracy},
    data=data, batch_size=len(data.train.y), steps=1_000, eval_every=100)  # fmt: skip
sweep = hpx.Sweep(program, hpx.Space(lr=hpx.LogUniform(3e-4, 3e-3), decay=hpx.LogUniform(0.01, 1)), trials=4)


def alone(h, lane):
    params, batch = Transformer().init(lane.key("init"), data.valid.x), len(data.train.y)
    return lane.losses(lambda p, b, key: loss(Transformer().apply(p, b.x), b.y).mean(), params, adamw(h), batch)


if __name__ == "__main__":
    agreement.main(sweep, alone)
