"""A layer norm over the units that count."""

from typing import Any

import jax
from flax import linen, nnx

from hpjax.core.errors import InputError
from hpjax.nn.masks import biases, check_units, counting, first, traced


class _LinenLayerNorm(linen.LayerNorm):
    active: Any = None

    @linen.compact
    def __call__(self, x: Any, *, mask: Any = None) -> Any:
        check_units("LayerNorm.active", self.active, x.shape[-1])
        return first(super().__call__(x, mask=_both(counting(x, self.active), mask)), self.active)


_LinenLayerNorm.__name__ = "LayerNorm"


class _NnxLayerNorm(nnx.LayerNorm):
    def __init__(self, active: Any, num_features: int, **settings: Any) -> None:
        super().__init__(num_features, **settings)
        self.active = active

    def __call__(self, x: Any, *, mask: Any = None) -> Any:
        return first(super().__call__(x, mask=_both(counting(x, self.active), mask)), self.active)


def _both(own: jax.Array, mask: Any) -> jax.Array:
    return own if mask is None else own & mask


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
    check_units("LayerNorm.active", active, num_features)
    if traced(active):
        for name in ("bias_init", "scale_init"):
            plain = linen.initializers.zeros_init() if name == "bias_init" else linen.initializers.ones_init()
            settings[name] = biases(settings.get(name, plain), active)
    if rngs is None:
        return linen.LayerNorm(**settings) if active is None else _LinenLayerNorm(active=active, **settings)
    if num_features is None:
        raise InputError("LayerNorm.num_features", None, "must be given for an NNX module", "Write x.shape[-1].")
    if traced(active):
        return _NnxLayerNorm(active, num_features, rngs=rngs, **settings)
    return nnx.LayerNorm(num_features if active is None else int(active), rngs=rngs, **settings)
