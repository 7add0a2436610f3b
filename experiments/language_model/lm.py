"""A decoder-only transformer of any size, and its training: what sweep.py trains, and plan_*.py plan."""

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx


class Block(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, _=None):
        y = nn.LayerNorm(use_bias=False)(x)
        causal = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        x += nn.MultiHeadDotProductAttention(max(self.width // 64, 2), use_bias=False)(y, mask=causal)
        y = nn.LayerNorm(use_bias=False)(x)
        return x + nn.Dense(self.width, use_bias=False)(nn.gelu(nn.Dense(4 * self.width, use_bias=False)(y))), None


class Transformer(nn.Module):
    """Layers are one loop, which compiles once; in the backward pass each computes its activations anew."""

    layers: int
    width: int
    tokens: int
    vocabulary: int

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(self.vocabulary, self.width)
        x = embed(tokens) + nn.Embed(self.tokens, self.width)(jnp.arange(self.tokens)[None])
        block = nn.remat(Block, prevent_cse=False)
        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        x, _ = nn.scan(block, length=self.layers, **axes)(self.width)(x, None)
        return embed.attend(nn.LayerNorm(use_bias=False)(x))


def program(model, data, batch_size, steps, **options):
    """Next tokens by AdamW, whose rate rises and falls."""
    return hpx.supervised(
        model=model,
        optimizer=lambda h: optax.adamw(
            hpx.optim.warmup_cosine_decay_schedule(0.0, h.learning_rate, h.warmup, steps), weight_decay=h.weight_decay
        ),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=data,
        batch_size=batch_size,
        steps=steps,
        **options,
    )


def space(steps):
    return hpx.Space(
        learning_rate=hpx.LogUniform(1e-4, 1e-2),
        warmup=hpx.LogUniform(0.01 * steps, 0.2 * steps),
        weight_decay=hpx.LogUniform(1e-3, 1e-1),
    )


def described(layers, width, trials, devices_per_lane):
    """A sweep that is planned only, with GPT-2's vocabulary, sequences of 1,024 tokens, and batches of 64."""
    steps = 10_000
    tokens = np.zeros((64, 1_024), np.int32)
    return hpx.Sweep(
        program(
            Transformer(layers, width, tokens=1_024, vocabulary=50_257),
            hpx.data.from_arrays(tokens, tokens, valid=(tokens, tokens), test=None),
            batch_size=64,
            steps=steps,
            eval_every=1_000,
            compute_dtype="bfloat16",
        ),
        space(steps),
        trials=trials,
        width=1,
        devices_per_lane=devices_per_lane,
        partition="fsdp",
    )
