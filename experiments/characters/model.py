"""A decoder-only transformer whose width, depth and number of heads are arguments, for studies of any of them."""

import jax.numpy as jnp
from flax import linen as nn


class Block(nn.Module):
    """Attention to what came before, and an MLP; each gets what a layer norm gives, and adds to its input."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x):
        causal = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        attend = nn.MultiHeadDotProductAttention(self.heads, use_bias=False, name="attention")
        x += attend(nn.LayerNorm(use_bias=False)(x), mask=causal)
        y = nn.Dense(4 * self.width, use_bias=False, name="up")(nn.LayerNorm(use_bias=False)(x))
        return x + nn.Dense(self.width, use_bias=False, name="down")(nn.gelu(y))


class Transformer(nn.Module):
    """Logits of the token behind each one, (batch, tokens, vocabulary). `heads` divides `width`.

    The matrix that reads logits is its own, not that of the embedding: studies over widths scale the two apart.
    """

    vocabulary: int
    width: int = 64
    depth: int = 2
    heads: int = 4

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(self.vocabulary, self.width, name="embed")(tokens)
        x += nn.Embed(tokens.shape[-1], self.width, name="place")(jnp.arange(tokens.shape[-1])[None])
        for layer in range(self.depth):
            x = Block(self.width, self.heads, name=f"block_{layer}")(x)
        return nn.Dense(self.vocabulary, use_bias=False, name="head")(nn.LayerNorm(use_bias=False)(x))
