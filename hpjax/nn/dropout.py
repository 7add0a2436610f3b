"""Dropout of units and of attention weights, at a rate that can be traced."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax import lax

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.nn.masks import traced


def _keep(key: jax.Array, rate: Any, shape: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Returns a mask of the elements to keep, bool ``shape``, and the number () to divide them by."""
    keep = 1.0 - jnp.asarray(rate, jnp.result_type(float))
    # At rate 1 nothing is kept, and a division by 0 would make the gradients NaN.
    return jax.random.bernoulli(key, keep, tuple(shape)), jnp.where(keep > 0, keep, 1)


class _LinenDropout(linen.Dropout):
    @linen.compact
    def __call__(self, inputs: Any, deterministic: bool | None = None, rng: jax.Array | None = None) -> Any:
        if not traced(self.rate):
            return super().__call__(inputs, deterministic, rng)
        if linen.merge_param("deterministic", self.deterministic, deterministic):
            return inputs
        rng = self.make_rng(self.rng_collection) if rng is None else rng
        return _dropped(rng, self.rate, inputs, self.broadcast_dims)


# Flax names parameters and noise after the class.
_LinenDropout.__name__ = "Dropout"


class _NnxDropout(nnx.Dropout):
    def __call__(self, inputs: Any, *, deterministic: bool | None = None, rngs: Any = None) -> Any:
        if not traced(self.rate):
            return super().__call__(inputs, deterministic=deterministic, rngs=rngs)
        if self.deterministic if deterministic is None else deterministic:
            return inputs
        source = self.rngs if rngs is None else rngs
        key = source[self.rng_collection]() if isinstance(source, nnx.Rngs) else source()
        return _dropped(key, self.rate, inputs, self.broadcast_dims)


def _dropped(key: jax.Array, rate: Any, inputs: Any, broadcast_dims: Sequence[int]) -> Any:
    shape = [1 if axis in broadcast_dims else size for axis, size in enumerate(inputs.shape)]
    mask, divisor = _keep(key, rate, shape)
    mask = jnp.broadcast_to(mask, inputs.shape)
    return lax.select(mask, inputs / divisor.astype(inputs.dtype), jnp.zeros_like(inputs))


def Dropout(  # noqa: N802  a layer, as in Flax
    rate: Any, broadcast_dims: Sequence[int] = (), *, rngs: nnx.Rngs | None = None, **settings: Any
) -> Any:
    """Returns Flax's ``Dropout`` at a rate that can be traced; it draws the same noise as Flax's.

    N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.

    Args:
      rate: the share of elements that are set to 0, in [0, 1]; float32 () where it is traced.
      broadcast_dims: axes along which all elements share one draw, as in Flax.
      rngs: the ``Rngs`` of an NNX module; without them the layer is a Linen module.
      **settings: further arguments of Flax's layer.

    Returns:
      A module that maps an array to one of equal shape and dtype.

    Raises:
      InputError: the rate lies outside [0, 1].

    Example:
      >>> Dropout(0.5).apply({}, jnp.ones(3), deterministic=True)
      Array([1., 1., 1.], dtype=float32)
    """
    check_bounds("Dropout.rate", rate, 0, 1)
    settings["broadcast_dims"] = broadcast_dims
    return _LinenDropout(rate, **settings) if rngs is None else _NnxDropout(rate, rngs=rngs, **settings)


def MultiHeadAttention(*args: Any, dropout_rate: Any = 0.0, rngs: nnx.Rngs | None = None, **settings: Any) -> Any:  # noqa: N802
    """Returns Flax's ``MultiHeadAttention`` at a dropout rate that can be traced; it draws the same noise as Flax's.

    A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017.

    Args:
      *args: positional arguments of Flax's layer.
      dropout_rate: the share of attention weights that are set to 0, in [0, 1]; float32 () where it is traced.
      rngs: the ``Rngs`` of an NNX module; without them the layer is a Linen module.
      **settings: keyword arguments of Flax's layer. ``attention_fn`` and ``force_fp32_for_softmax`` cannot be combined
        with a traced rate.

    Returns:
      A module that maps float (..., length, features) to float (..., length, features).

    Raises:
      InputError: the rate lies outside [0, 1], or is traced and combined with a setting that needs a number.

    Example:
      >>> MultiHeadAttention(num_heads=2).init(jax.random.key(0), jnp.ones((1, 3, 4)))["params"]["out"]["kernel"].shape
      (2, 2, 4)
    """
    check_bounds("MultiHeadAttention.dropout_rate", dropout_rate, 0, 1)
    if traced(dropout_rate):
        for name in ("attention_fn", "force_fp32_for_softmax"):
            if settings.get(name):
                raise InputError(
                    f"MultiHeadAttention.{name}",
                    settings[name],
                    "cannot be combined with a traced dropout rate",
                    f"Remove {name}=..., or write Choice(0.0, 0.1, static=True) for the rate in the space.",
                )
        # Flax draws a dropout key only if ``dropout_rate > 0``, which a tracer cannot answer. So Flax gets a constant
        # that makes it draw the key, and our attention function, which gets the key, knows the traced rate.
        settings["attention_fn"], dropout_rate = _attention(dropout_rate), 0.5
    settings["dropout_rate"] = dropout_rate
    return (
        linen.MultiHeadAttention(*args, **settings)
        if rngs is None
        else nnx.MultiHeadAttention(*args, rngs=rngs, **settings)
    )


def _attention(rate: Any) -> Callable[..., Any]:
    """Returns an ``attention_fn`` for Flax that drops weights at ``rate``, in [0, 1], and ignores Flax's own rate."""

    # Flax's signature, name by name: it passes only those of its settings that the signature names.
    def attend(
        query: Any,
        key: Any,
        value: Any,
        mask: Any = None,
        dropout_rng: Any = None,
        broadcast_dropout: bool = True,
        deterministic: bool = False,
        dtype: Any = None,
        precision: Any = None,
        is_causal: bool = False,
        **_: Any,
    ) -> Any:
        if is_causal:
            causal = jnp.tril(jnp.ones((query.shape[-3], key.shape[-3]), bool))
            mask = causal if mask is None else mask & causal
        weights = linen.dot_product_attention_weights(
            query, key, mask=mask, deterministic=True, dtype=dtype, precision=precision
        )
        if not deterministic:
            # Flax's default draws one mask for all examples and heads.
            shape = (*[1] * (key.ndim - 2), *weights.shape[-2:]) if broadcast_dropout else weights.shape
            keep, divisor = _keep(dropout_rng, rate, shape)
            weights = weights * keep.astype(weights.dtype) / divisor.astype(weights.dtype)
        return jnp.einsum("...hqk,...khd->...qhd", weights, value.astype(weights.dtype), precision=precision)

    return attend
