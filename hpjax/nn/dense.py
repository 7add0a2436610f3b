"""A dense layer whose number of units can be traced."""

from typing import Any

import jax.numpy as jnp
from flax import linen, nnx

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.nn.initializers import Initializer, lecun_normal, masked
from hpjax.nn.masks import biases, check_units, first, traced


class _Dense(linen.Module):
    """A Linen layer that uses the first ``active`` of its ``features`` units and the first ``inputs`` of its inputs."""

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
            check_bounds("Dense.inputs", self.inputs, 1, shape[0])
        kernel = self.param("kernel", masked(self.kernel_init, self.inputs, self.active), shape, self.param_dtype)
        bias = (
            self.param("bias", biases(self.bias_init, self.active), (self.features,), self.param_dtype)
            if self.use_bias
            else None
        )
        x, kernel, bias = linen.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return _affine(x, kernel, bias, self.inputs, self.active)


# Flax names parameters after the class.
_Dense.__name__ = "Dense"


class _Linear(nnx.Linear):
    """An NNX layer that uses the first ``active`` of its units and the first ``inputs`` of its inputs."""

    def __init__(self, inputs: Any, active: Any, kernel_init: Initializer, *sizes: int, **settings: Any) -> None:
        settings["bias_init"] = biases(settings["bias_init"], active)
        super().__init__(*sizes, kernel_init=masked(kernel_init, inputs, active), **settings)
        self.active_inputs, self.active = inputs, active

    def __call__(self, inputs: Any, out_sharding: Any = None) -> Any:
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        return _affine(x, kernel, bias, self.active_inputs, self.active)


def _affine(x: Any, kernel: Any, bias: Any, inputs: Any, active: Any) -> Any:
    outputs = first(x, inputs) @ kernel
    if bias is not None:
        outputs = outputs + bias.reshape(*[1] * (outputs.ndim - 1), -1)
    return first(outputs, active)


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
    """Returns a dense layer of which the first ``active`` of ``features`` units are used: a size that can be traced.

    The unused units output 0, and their weights start at 0 and stay there. So a lane computes what the small network
    computes alone, and its parameters are those of the small network, padded with zeros. Where ``active`` is a number,
    the layer is Flax's own layer of that size: with ``static=True`` in the space, the same model makes one group for
    each size.

    An activation may turn the 0 of an unused unit into another number. Therefore pass the number of units to the next
    layer as ``inputs``, and to a norm as ``active``: ``hpx.nn.LayerNorm(h.units)``. A penalty of your own must have
    derivative 0 at 0, which ``jnp.abs`` does not, or it moves unused weights.

    Args:
      features: the largest number of units; static.
      active: number of units that are used, 1 to ``features``; int32 () where it is traced; None uses all.
      inputs: number of inputs that are used: the ``active`` of the layer before; None uses all.
      in_features: size of the last axis of the input; needed for NNX.
      use_bias, dtype, param_dtype, bias_init: as in Flax.
      kernel_init: an initializer of ``hpx.nn``, whose scale follows the units that are used; ``lecun_normal`` by
        default.
      rngs: the ``Rngs`` of an NNX module; without them the layer is a Linen module.
      name: the name of a Linen module.

    Returns:
      A module that maps float (..., inputs) to float (..., features).

    Raises:
      InputError: ``active`` or ``inputs`` lies outside the layer or is no whole number, or ``in_features`` is missing.

    Example:
      >>> class MLP(linen.Module):
      ...     units: int
      ...     @linen.compact
      ...     def __call__(self, x):
      ...         x = linen.relu(Dense(256, self.units)(x))
      ...         return Dense(10, inputs=self.units)(x)
    """
    check_units("Dense.active", active, features, masks=True)
    check_units("Dense.inputs", inputs, in_features)
    kernel_init = lecun_normal if kernel_init is None else kernel_init
    settings: dict[str, Any] = {
        "use_bias": use_bias,
        "bias_init": bias_init,
        "dtype": dtype,
        "param_dtype": param_dtype,
    }
    small = None if active is None or traced(active) else int(active)
    if small is not None:
        features, active = small, None
    if not traced(inputs):
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
