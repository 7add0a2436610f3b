"""Initializers under names of their own, to choose among, and scaled by a traced number: see ``hpx.nn``."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

from hpjax.core.errors import InputError
from hpjax.core.hparams import Selected

Initializer = Callable[..., jax.Array]


def _named(name: str, make: Callable[[], Initializer], fan: str = "") -> Initializer:
    """Flax's initializer under its name, and which fan its scale follows."""

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return make()(key, tuple(shape), dtype)

    init.__name__ = init.__qualname__ = name
    init.__doc__ = f"``flax.linen.initializers.{name}()(key, shape, dtype)``."
    init.fan = fan  # type: ignore[attr-defined]
    return init


glorot_normal = _named("glorot_normal", linen.initializers.glorot_normal, "fan_avg")
glorot_uniform = _named("glorot_uniform", linen.initializers.glorot_uniform, "fan_avg")
he_normal = _named("he_normal", linen.initializers.he_normal, "fan_in")
he_uniform = _named("he_uniform", linen.initializers.he_uniform, "fan_in")
lecun_normal = _named("lecun_normal", linen.initializers.lecun_normal, "fan_in")
lecun_uniform = _named("lecun_uniform", linen.initializers.lecun_uniform, "fan_in")
normal = _named("normal", linen.initializers.normal)
uniform = _named("uniform", linen.initializers.uniform)
zeros = _named("zeros", linen.initializers.zeros_init)


def orthogonal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """``flax.linen.initializers.orthogonal()(key, shape, dtype)``, up to rounding, without LAPACK.

    Flax's asks LAPACK for a QR decomposition, and several of those in one program can wait for each other forever
    where XLA has few threads (seen with jax 0.10 on two cores). Gram and Schmidt's columns, twice over, are the same.

    A. Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014.
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    drawn = jax.random.normal(key, (max(rows, columns), min(rows, columns)), dtype)
    basis = _orthonormal(drawn)
    result: jax.Array = (basis.T if rows < columns else basis).reshape(shape)
    return result


def orthogonal_within(key: jax.Array, shape: Sequence[int], dtype: Any, rows: Any, columns: Any) -> jax.Array:
    """An orthogonal matrix of ``rows`` × ``columns``, which may be traced, in the corner of one of ``shape``."""
    inside = (jnp.arange(shape[0]) < rows)[:, None] & (jnp.arange(shape[1]) < columns)[None]
    drawn = jnp.where(inside, jax.random.normal(key, tuple(shape), dtype), 0)
    return jnp.where(rows < columns, _orthonormal(drawn.T).T, _orthonormal(drawn))


def _orthonormal(drawn: jax.Array) -> jax.Array:
    """Gram and Schmidt's orthonormal columns of ``drawn``; columns of zeros stay so."""

    def orthogonalize(j: Any, basis: jax.Array) -> jax.Array:
        # Columns behind j are zero in ``basis`` still, and so take nothing away.
        column = drawn[:, j]
        for _ in range(2):
            column = column - basis @ (basis.T @ column)
        return basis.at[:, j].set(column / jnp.maximum(jnp.linalg.norm(column), 1e-30))

    basis: jax.Array = lax.fori_loop(0, drawn.shape[1], orthogonalize, jnp.zeros_like(drawn))
    return basis


def scaled(initializer: Initializer, scale: Any) -> Initializer:
    """``initializer`` whose numbers are multiplied by ``scale``, which may be traced.

    Example:
      >>> scaled(normal, 2.0)(jax.random.key(0), (3, 4)).shape
      (3, 4)
    """

    if isinstance(initializer, Selected):
        return Selected(initializer.index, tuple(scaled(option, scale) for option in initializer.options))
    return Scaled(initializer, scale)


@dataclass(frozen=True)
class Scaled:
    """An initializer and the number that it is multiplied by."""

    initializer: Initializer
    scale: Any

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        """``initializer(key, shape, dtype)`` times the scale."""
        return self.initializer(key, shape, dtype) * jnp.asarray(self.scale, dtype)


def masked(initializer: Initializer, inputs: Any, active: Any) -> Initializer:
    """``initializer`` for the small kernel in the corner of the large one: zeros outside, drawn as the small one is.

    Raises:
      InputError: how the numbers of the initializer depend on its shape is not known.
    """
    if isinstance(initializer, Selected):
        return Selected(initializer.index, tuple(masked(option, inputs, active) for option in initializer.options))
    if isinstance(initializer, Scaled):
        return Scaled(masked(initializer.initializer, inputs, active), initializer.scale)
    if initializer is not orthogonal and not hasattr(initializer, "fan"):
        raise InputError(
            "Dense.kernel_init",
            getattr(initializer, "__name__", type(initializer).__name__),
            "must be an initializer of hpx.nn where units are masked, since its scale follows the units that count",
            "Use hpx.nn.lecun_normal and its kin; one of your own says what it depends on: init.fan = 'fan_in', "
            "'fan_out', 'fan_avg' or ''.",
        )

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        fan_in, fan_out = shape
        rows, columns = fan_in if inputs is None else inputs, fan_out if active is None else active
        if initializer is orthogonal:
            return orthogonal_within(key, shape, dtype, rows, columns)
        fans = {"fan_in": (fan_in, rows), "fan_out": (fan_out, columns), "fan_avg": (fan_in + fan_out, rows + columns)}
        full, part = fans.get(initializer.fan, (1, 1))  # type: ignore[attr-defined]
        drawn = initializer(key, shape, dtype) * jnp.sqrt(full / part).astype(dtype)
        inside = (jnp.arange(fan_in) < rows)[:, None] & (jnp.arange(fan_out) < columns)[None]
        return jnp.where(inside, drawn, 0)

    return init
