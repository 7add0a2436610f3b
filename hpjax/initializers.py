"""Initializers under names of their own, to choose among, and scaled by a traced number: see ``hpx.nn``."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

Initializer = Callable[..., jax.Array]


def _initializer(make: Callable[..., Initializer], fan: str = "", **settings: Any) -> Callable[[str], Initializer]:
    def named(name: str) -> Initializer:
        def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
            return make(**settings)(key, tuple(shape), dtype)

        init.__name__ = init.__qualname__ = name
        init.__doc__ = f"``flax.linen.initializers.{name}()(key, shape, dtype)``."
        init.fan = fan  # type: ignore[attr-defined]
        return init

    return named


glorot_normal = _initializer(linen.initializers.glorot_normal, "fan_avg")("glorot_normal")
glorot_uniform = _initializer(linen.initializers.glorot_uniform, "fan_avg")("glorot_uniform")
he_normal = _initializer(linen.initializers.he_normal, "fan_in")("he_normal")
he_uniform = _initializer(linen.initializers.he_uniform, "fan_in")("he_uniform")
lecun_normal = _initializer(linen.initializers.lecun_normal, "fan_in")("lecun_normal")
lecun_uniform = _initializer(linen.initializers.lecun_uniform, "fan_in")("lecun_uniform")
normal = _initializer(linen.initializers.normal)("normal")
uniform = _initializer(linen.initializers.uniform)("uniform")
zeros = _initializer(linen.initializers.zeros_init)("zeros")


def orthogonal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """``flax.linen.initializers.orthogonal()(key, shape, dtype)``, up to rounding, without LAPACK.

    Flax's asks LAPACK for a QR decomposition, and several of those in one program can wait for each other forever
    where XLA has few threads (seen with jax 0.10 on two cores). Gram and Schmidt's columns, twice over, are the same.

    A. Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014.
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    drawn = jax.random.normal(key, (max(rows, columns), min(rows, columns)), dtype)

    def orthogonalize(j: Any, basis: jax.Array) -> jax.Array:
        # Columns behind j are zero in ``basis`` still, and so take nothing away.
        column = drawn[:, j]
        for _ in range(2):
            column = column - basis @ (basis.T @ column)
        return basis.at[:, j].set(column / jnp.linalg.norm(column))

    basis = lax.fori_loop(0, drawn.shape[1], orthogonalize, jnp.zeros_like(drawn))
    result: jax.Array = (basis.T if rows < columns else basis).reshape(shape)
    return result


def scaled(initializer: Initializer, scale: Any) -> Initializer:
    """``initializer`` whose numbers are multiplied by ``scale``, which may be traced.

    Example:
      >>> scaled(normal, 2.0)(jax.random.key(0), (3, 4)).shape
      (3, 4)
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return initializer(key, shape, dtype) * jnp.asarray(scale, dtype)

    init.fan = getattr(initializer, "fan", "")  # type: ignore[attr-defined]
    return init
