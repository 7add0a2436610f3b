"""A dense layer whose number of units may be traced."""

from typing import Any

import jax.numpy as jnp
from flax import linen, nnx

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.nn.initializers import Initializer, lecun_normal, masked
from hpjax.nn.masks import biases, check_units, first, traced


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
            check_bounds("Dense.inputs", self.inputs, 1, shape[0])
        kernel = self.param("kernel", masked(self.kernel_init, self.inputs, self.active), shape, self.param_dtype)
        bias = (
            self.param("bias", biases(self.bias_init, self.active), (self.features,), self.param_dtype)
            if self.use_bias
            else None
        )
        x, kernel, bias = linen.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return _affine(x, kernel, bias, self.inputs, self.active)


_Dense.__name__ = "Dense"


class _Linear(nnx.Linear):
    """The same in NNX."""

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
