"""Layers whose hyperparameters can be traced, for Linen and NNX, and initializers to choose among.

Flax asks ``if rate == 0.0`` and builds its arrays to measure; here a dropout rate, the number of units of a
layer and the number of layers may be hyperparameters that differ from lane to lane. Layers with ``rngs`` are
NNX modules, those without are Linen's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax import lax

from hpjax.checks import within
from hpjax.errors import InputError
from hpjax.initializers import (
    Initializer,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    masked,
    normal,
    orthogonal,
    scaled,
    uniform,
    zeros,
)

__all__ = [
    "Dense",
    "Dropout",
    "LayerNorm",
    "MultiHeadAttention",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "layers",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "scaled",
    "uniform",
    "zeros",
]


def _traced(value: Any) -> bool:
    return isinstance(value, jax.Array)


def _keep(key: jax.Array, rate: Any, shape: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Which elements stay, and what they are divided by; rates of 0 and 1 included."""
    keep = 1.0 - jnp.asarray(rate, jnp.result_type(float))
    # At rate 1 nothing stays, and a division by 0 would make the gradients NaN.
    return jax.random.bernoulli(key, keep, tuple(shape)), jnp.where(keep > 0, keep, 1)


class _LinenDropout(linen.Dropout):
    @linen.compact
    def __call__(self, inputs: Any, deterministic: bool | None = None, rng: jax.Array | None = None) -> Any:
        if not _traced(self.rate):
            return super().__call__(inputs, deterministic, rng)
        if linen.merge_param("deterministic", self.deterministic, deterministic):
            return inputs
        rng = self.make_rng(self.rng_collection) if rng is None else rng
        return _dropped(rng, self.rate, inputs, self.broadcast_dims)


# Flax names parameters and noise after the class.
_LinenDropout.__name__ = "Dropout"


class _NnxDropout(nnx.Dropout):
    def __call__(self, inputs: Any, *, deterministic: bool | None = None, rngs: Any = None) -> Any:
        if not _traced(self.rate):
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
    """Flax's ``Dropout``, with the same noise, where the rate may be traced; 0 and 1 included.

    Args:
      rate: the share of elements that are set to 0, in [0, 1].
      rngs: of an NNX module; without it the layer is Linen's.
      broadcast_dims, **settings: as for Flax.

    Raises:
      InputError: the rate lies outside [0, 1].

    N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.

    Example:
      >>> Dropout(0.5).apply({}, jnp.ones(3), deterministic=True)
      Array([1., 1., 1.], dtype=float32)
    """
    within("Dropout.rate", rate, 0, 1)
    settings["broadcast_dims"] = broadcast_dims
    return _LinenDropout(rate, **settings) if rngs is None else _NnxDropout(rate, rngs=rngs, **settings)


def MultiHeadAttention(*args: Any, dropout_rate: Any = 0.0, rngs: nnx.Rngs | None = None, **settings: Any) -> Any:  # noqa: N802
    """Flax's ``MultiHeadAttention``, with the same noise, where the dropout rate of the weights may be traced.

    Args:
      *args, **settings: as for Flax.
      dropout_rate: the share of attention weights that are set to 0, in [0, 1].
      rngs: of an NNX module; without it the layer is Linen's.

    Raises:
      InputError: the rate lies outside [0, 1].

    Example:
      >>> MultiHeadAttention(num_heads=2).init(jax.random.key(0), jnp.ones((1, 3, 4)))["params"]["out"]["kernel"].shape
      (2, 2, 4)
    """
    within("MultiHeadAttention.dropout_rate", dropout_rate, 0, 1)
    if _traced(dropout_rate):
        for name in ("attention_fn", "force_fp32_for_softmax"):
            if settings.get(name):
                raise InputError(
                    f"MultiHeadAttention.{name}", settings[name], "does not go with a traced rate", "Leave it out."
                )
        # Any rate but 0 makes Flax draw a key for the function that does the work; the rate itself goes there.
        settings["attention_fn"], dropout_rate = _attention(dropout_rate), 0.5
    settings["dropout_rate"] = dropout_rate
    return (
        linen.MultiHeadAttention(*args, **settings)
        if rngs is None
        else nnx.MultiHeadAttention(*args, rngs=rngs, **settings)
    )


def _attention(rate: Any) -> Callable[..., Any]:
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
            shape = (*[1] * (key.ndim - 2), *weights.shape[-2:]) if broadcast_dropout else weights.shape
            keep, divisor = _keep(dropout_rng, rate, shape)
            weights = weights * keep.astype(weights.dtype) / divisor.astype(weights.dtype)
        return jnp.einsum("...hqk,...khd->...qhd", weights, value.astype(weights.dtype), precision=precision)

    return attend


class _Dense(linen.Module):
    """A Linen layer whose first ``active`` of ``features`` units, and first ``inputs`` of its inputs, count."""

    features: int
    active: Any
    inputs: Any
    use_bias: bool
    kernel_init: Initializer
    bias_init: Initializer
    dtype: Any
    param_dtype: Any

    @linen.compact
    def __call__(self, x: Any) -> Any:
        shape = (x.shape[-1], self.features)
        if self.inputs is not None:
            within("Dense.inputs", self.inputs, 1, shape[0])
        kernel = self.param("kernel", masked(self.kernel_init, self.inputs, self.active), shape, self.param_dtype)
        bias = (
            self.param("bias", _biases(self.bias_init, self.active), (self.features,), self.param_dtype)
            if self.use_bias
            else None
        )
        x, kernel, bias = linen.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return _affine(x, kernel, bias, self.inputs, self.active)


_Dense.__name__ = "Dense"


class _Linear(nnx.Linear):
    """The same in NNX."""

    def __init__(self, inputs: Any, active: Any, kernel_init: Initializer, *sizes: int, **settings: Any) -> None:
        settings["bias_init"] = _biases(settings["bias_init"], active)
        super().__init__(*sizes, kernel_init=masked(kernel_init, inputs, active), **settings)
        self.active_inputs, self.active = inputs, active

    def __call__(self, inputs: Any, out_sharding: Any = None) -> Any:
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        return _affine(x, kernel, bias, self.active_inputs, self.active)


def _check_units(field: str, units: Any, most: int | None, masks: bool = False) -> None:
    """Raises ``InputError`` unless ``units``, where there are any given, is a whole number from 1 to ``most``."""
    if units is None:
        return
    if jnp.issubdtype(jnp.result_type(units), jnp.floating):
        raise InputError(field, units, "must be a whole number", "Write Int or LogInt for its domain.")
    if most is not None:
        within(field, units, 1, most, masks=masks)


def _biases(initializer: Initializer, active: Any) -> Initializer:
    """``initializer`` of one number a unit, with zeros for those that do not count."""
    return lambda key, shape, dtype=jnp.float32: _first(initializer(key, shape, dtype), active)


def _affine(x: Any, kernel: Any, bias: Any, inputs: Any, active: Any) -> Any:
    outputs = _first(x, inputs) @ kernel
    if bias is not None:
        outputs = outputs + bias.reshape(*[1] * (outputs.ndim - 1), -1)
    return _first(outputs, active)


def _first(x: Any, count: Any) -> Any:
    """``x`` with zeros behind the first ``count`` of its last axis."""
    if count is None:
        return x
    return jnp.where(_counting(x, count), x, 0)


def _counting(x: Any, count: Any) -> jax.Array:
    """Which of the last axis of ``x`` count, with as many axes."""
    counting: jax.Array = jnp.arange(x.shape[-1]) < count
    return counting.reshape(*[1] * (x.ndim - 1), -1)


class _LinenLayerNorm(linen.LayerNorm):
    active: Any = None

    @linen.compact
    def __call__(self, x: Any, *, mask: Any = None) -> Any:
        _check_units("LayerNorm.active", self.active, x.shape[-1])
        return _first(super().__call__(x, mask=_both(_counting(x, self.active), mask)), self.active)


_LinenLayerNorm.__name__ = "LayerNorm"


class _NnxLayerNorm(nnx.LayerNorm):
    def __init__(self, active: Any, num_features: int, **settings: Any) -> None:
        super().__init__(num_features, **settings)
        self.active = active

    def __call__(self, x: Any, *, mask: Any = None) -> Any:
        return _first(super().__call__(x, mask=_both(_counting(x, self.active), mask)), self.active)


def _both(counting: jax.Array, mask: Any) -> jax.Array:
    return counting if mask is None else counting & mask


def LayerNorm(  # noqa: N802  a layer, as in Flax
    active: Any = None, *, num_features: int | None = None, rngs: nnx.Rngs | None = None, **settings: Any
) -> Any:
    """Flax's ``LayerNorm`` over the first ``active`` units alone, what ``active`` was to the layer before.

    Args:
      active: how many units count, 1 to all of them; all by default. The others give 0.
      num_features: the most units, for NNX; where ``active`` is a number, the layer has that size.
      rngs: of an NNX module; without it the layer is Linen's.
      **settings: as for Flax.

    Raises:
      InputError: ``active`` lies outside the layer.

    J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer Normalization", 2016.

    Example:
      >>> LayerNorm(jnp.int32(2)).init_with_output(jax.random.key(0), jnp.array([[1.0, 3.0, 0.0]]))[0].round(2)
      Array([[-1.,  1.,  0.]], dtype=float32)
    """
    _check_units("LayerNorm.active", active, num_features)
    if _traced(active):
        for name in ("bias_init", "scale_init"):
            plain = linen.initializers.zeros_init() if name == "bias_init" else linen.initializers.ones_init()
            settings[name] = _biases(settings.get(name, plain), active)
    if rngs is None:
        return linen.LayerNorm(**settings) if active is None else _LinenLayerNorm(active=active, **settings)
    if num_features is None:
        raise InputError("LayerNorm.num_features", None, "must be given for an NNX module", "Write x.shape[-1].")
    if _traced(active):
        return _NnxLayerNorm(active, num_features, rngs=rngs, **settings)
    return nnx.LayerNorm(num_features if active is None else int(active), rngs=rngs, **settings)


def Dense(  # noqa: N802  a layer, as in Flax
    features: int,
    active: Any = None,
    *,
    inputs: Any = None,
    in_features: int | None = None,
    use_bias: bool = True,
    kernel_init: Initializer | None = None,
    bias_init: Initializer = linen.initializers.zeros_init(),
    dtype: Any = None,
    param_dtype: Any = jnp.float32,
    rngs: nnx.Rngs | None = None,
    name: str | None = None,
) -> Any:
    """A dense layer of ``features`` units of which the first ``active`` count: its size as a traced hyperparameter.

    The others give 0, start at 0 and stay there, so that a lane equals the small network alone, its parameters
    being those of the small one with zeros around. Where ``active`` is a number, the layer is Flax's own of that
    size: the same model makes a group for every size with ``static=True``.

    Args:
      features: the most units; static.
      active: how many count, 1 to ``features``; all by default.
      inputs: how many of the inputs count: what ``active`` was to the layer before.
      in_features: size of the input, for NNX.
      use_bias, kernel_init, bias_init, dtype, param_dtype: as in Flax. An initializer of ``hpx.nn`` scales with
        the units that count; ``lecun_normal`` is the default.
      rngs: of an NNX module; without it the layer is Linen's.
      name: of a Linen module.

    Units that do not count give 0, which what follows must take as nothing: an activation may make it another number,
    so tell the next layer its ``inputs``, and a norm its ``active``: ``hpx.nn.LayerNorm(h.units)``. A penalty of your
    own should have derivative 0 at 0, which ``jnp.abs`` has not.

    Raises:
      InputError: ``active`` or ``inputs`` lies outside the layer, or is no whole number.

    Example:
      >>> class MLP(linen.Module):
      ...     units: int
      ...     @linen.compact
      ...     def __call__(self, x):
      ...         x = linen.relu(Dense(256, self.units)(x))
      ...         return Dense(10, inputs=self.units)(x)
    """
    _check_units("Dense.active", active, features, masks=True)
    _check_units("Dense.inputs", inputs, in_features)
    kernel_init = lecun_normal if kernel_init is None else kernel_init
    settings: dict[str, Any] = {
        "use_bias": use_bias,
        "bias_init": bias_init,
        "dtype": dtype,
        "param_dtype": param_dtype,
    }
    small = None if active is None or _traced(active) else int(active)
    if small is not None:
        features, active = small, None
    if not _traced(inputs):
        in_features = in_features if inputs is None else int(inputs)
        inputs = None
    if rngs is None:
        if active is None and inputs is None:
            return linen.Dense(features, kernel_init=kernel_init, name=name, **settings)
        return _Dense(features, active, inputs, kernel_init=kernel_init, name=name, **settings)
    if in_features is None:
        raise InputError("Dense.in_features", None, "must be given for an NNX module", "Write in_features=x.shape[-1].")
    if active is None and inputs is None:
        return nnx.Linear(in_features, features, kernel_init=kernel_init, rngs=rngs, **settings)
    return _Linear(inputs, active, kernel_init, in_features, features, rngs=rngs, **settings)


def layers(block: Callable[[int, Any], Any], x: Any, count: Any, most: int) -> Any:
    """``x`` after the first ``count`` of ``most`` blocks: the depth as a traced hyperparameter.

    Args:
      block: ``block(i, x)``, which keeps the shape and dtype of ``x``; it makes its layers, or has them.
      x: array.
      count: how many blocks count, 0 to ``most``. Where it is a number, the others are not built at all.
      most: how many there are; static.

    Raises:
      InputError: ``count`` is greater than ``most``, or negative.

    Example:
      >>> layers(lambda i, x: x * 2, jnp.ones(()), count=3, most=8)
      Array(8., dtype=float32)
    """
    within("layers.count", count, 0, most, masks=True)
    for i in range(most if _traced(count) else int(count)):
        x = jnp.where(i < count, block(i, x), x) if _traced(count) else block(i, x)
    return x
