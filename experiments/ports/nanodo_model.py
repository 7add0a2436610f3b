"""What nanodo.py moves unchanged: the model and the optimizer, in the way of nanodo's model.py and optimizer.py."""

from functools import partial

import jax.numpy as jnp
import optax
from flax import linen as nn

D, H, L, N, V, F = 64, 4, 40, 2, 128, 128  # nanodo's letters: width, heads, context, blocks, vocabulary, hidden units


def fsdp(*axes):
    return nn.with_partitioning(nn.initializers.xavier_uniform(), axes)


class CausalAttn(nn.Module):
    @nn.compact
    def __call__(self, x):
        multilinear = partial(nn.DenseGeneral, (H, D // H), use_bias=False, kernel_init=fsdp("data", None, None))
        q, k, v = (multilinear(name=name)(x) for name in ("query", "key", "value"))
        att = jnp.einsum("...qhd,...khd->...hqk", q / (D // H) ** 0.5, k)
        att = jnp.where(jnp.tril(jnp.ones((L, L), bool)), att, jnp.finfo(att.dtype).min)
        out = jnp.einsum("...hqk,...khd->...qhd", nn.softmax(att), v)
        return nn.DenseGeneral(D, (-2, -1), use_bias=False, kernel_init=fsdp(None, None, "data"), name="out")(out)


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        linear = partial(nn.Dense, use_bias=False, kernel_init=fsdp("data", None))
        return linear(D)(nn.gelu(linear(F)(x)))


class TBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        x += CausalAttn()(nn.LayerNorm(use_bias=False)(x))
        return x + Mlp()(nn.LayerNorm(use_bias=False)(x))


class TransformerDo(nn.Module):
    def setup(self):
        self.embed = nn.Embed(V, D, embedding_init=fsdp(None, "data"))
        self.pos_embed = nn.Embed(L, D, embedding_init=fsdp(None, "data"))
        self.blocks = [nn.remat(TBlock)() for _ in range(N)]
        self.out_ln = nn.LayerNorm(use_bias=False)

    def __call__(self, y):
        x = self.embed(y) + self.pos_embed(jnp.arange(L))
        for block in self.blocks:
            x = block(x)
        return self.embed.attend(self.out_ln(x))


def get_optimizer(peak_learning_rate, weight_decay, num_train_steps, warmup_steps):
    schedules = [
        optax.linear_schedule(0.1 * peak_learning_rate, peak_learning_rate, warmup_steps),
        optax.cosine_decay_schedule(peak_learning_rate, num_train_steps - warmup_steps, alpha=0.1),
    ]
    schedule = optax.join_schedules(schedules, [warmup_steps])
    return optax.MultiSteps(optax.adamw(schedule, b2=0.98, eps=1e-9, weight_decay=weight_decay), 1)
