"""A layer norm over the units that are used, whose number can be traced."""

from typing import Any

import jax
from flax import linen, nnx

from hpjax.core.errors import InputError
from hpjax.nn.masks import biases, check_units, first, inside, traced


class _LinenLayerNorm(linen.LayerNorm):
    active: Any = None

    @linen.compact
    def __call__(self, x: Any, *, mask: Any = None) -> Any:
        check_units("LayerNorm.active", self.active, x.shape[-1])
        return first(super().__call__(x, mask=_both(inside(x, self.active), mask)), self.active)


# Flax names parameters after the class.
_LinenLayerNorm.__name__ = "LayerNorm"


class _NnxLayerNorm(nnx.LayerNorm):
    def __init__(self, active: Any, num_features: int, **settings: Any) -> None:
        super().__init__(num_features, **settings)
        self.active = active

    def __call__(self, x: Any, *, mask: Any = None) -> Any:
        return first(super().__call__(x, mask=_both(inside(x, self.active), mask)), self.active)


def _both(own: jax.Array, mask: Any) -> jax.Array:
    return own if mask is None else own & mask


def LayerNorm(  # noqa: N802  a layer, as in Flax
    active: Any = None, *, num_features: int | None = None, rngs: nnx.Rngs | None = None, **settings: Any
) -> Any:
    """Returns Flax's ``LayerNorm`` over the first ``active`` units, a number that can be traced.

    J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer Normalization", 2016.

    Args:
      active: number of units that are used, at least 1: the ``active`` of the layer before; int32 () where it is
        traced; None uses all. The outputs of the others are 0.
      num_features: the largest number of units; needed for NNX. Where ``active`` is a number, the NNX layer has that
        size.
      rngs: the ``Rngs`` of an NNX module; without them the layer is a Linen module.
      **settings: further arguments of Flax's layer.

    Returns:
      A module that maps float (..., units) to float (..., units).

    Raises:
      InputError: ``active`` lies outside the layer, or ``num_features`` is missing.

    Example:
      >>> LayerNorm(jnp.int32(2)).init_with_output(jax.random.key(0), jnp.array([[1.0, 3.0, 0.0]]))[0].round(2)
      Array([[-1.,  1.,  0.]], dtype=float32)
    """
    check_units("LayerNorm.active", active, num_features)
    if traced(active):
        for name in ("bias_init", "scale_init"):
            default = linen.initializers.zeros_init() if name == "bias_init" else linen.initializers.ones_init()
            settings[name] = biases(settings.get(name, default), active)
    if rngs is None:
        return linen.LayerNorm(**settings) if active is None else _LinenLayerNorm(active=active, **settings)
    if num_features is None:
        raise InputError(
            "LayerNorm.num_features", None, "must be given for an NNX module", "Write num_features=x.shape[-1]."
        )
    if traced(active):
        return _NnxLayerNorm(active, num_features, rngs=rngs, **settings)
    return nnx.LayerNorm(num_features if active is None else int(active), rngs=rngs, **settings)
