"""Initializers as named functions that a ``Choice`` can hold, and their scaling by a traced number: see ``hpx.nn``."""

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


_DOCSTRING = """Returns ``flax.linen.initializers.{flax}()(key, shape, dtype)``.

{paper}Args:
  key: a random key, shape ().
  shape: shape of the result.
  dtype: dtype of the result.

Returns:
  Float ``shape``.

Example:
  >>> {name}(jax.random.key(0), (3, 4)).shape
  (3, 4)
"""
GLOROT = """X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
AISTATS 2010."""
HE = """K. He, X. Zhang, S. Ren and J. Sun, "Delving Deep into Rectifiers", ICCV 2015."""
LECUN = """Y. LeCun, L. Bottou, G. Orr and K.-R. Müller, "Efficient BackProp", 1998."""


def _named(name: str, make: Callable[[], Initializer], fan: str = "", paper: str = "") -> Initializer:
    """Returns Flax's initializer as a function that has its name.

    Args:
      name: the name, which tables and manifests show.
      make: makes Flax's initializer.
      fan: the fan that its scale follows: ``"fan_in"``, ``"fan_out"``, ``"fan_avg"``, or ``""`` for none.
      paper: where it was proposed.
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return make()(key, tuple(shape), dtype)

    init.__name__ = init.__qualname__ = name
    init.__doc__ = _DOCSTRING.format(name=name, flax=make.__name__, paper=f"{paper}\n\n" if paper else "")
    init.fan = fan  # type: ignore[attr-defined]
    return init


glorot_normal = _named("glorot_normal", linen.initializers.glorot_normal, "fan_avg", GLOROT)
glorot_uniform = _named("glorot_uniform", linen.initializers.glorot_uniform, "fan_avg", GLOROT)
he_normal = _named("he_normal", linen.initializers.he_normal, "fan_in", HE)
he_uniform = _named("he_uniform", linen.initializers.he_uniform, "fan_in", HE)
lecun_normal = _named("lecun_normal", linen.initializers.lecun_normal, "fan_in", LECUN)
lecun_uniform = _named("lecun_uniform", linen.initializers.lecun_uniform, "fan_in", LECUN)
normal = _named("normal", linen.initializers.normal)
uniform = _named("uniform", linen.initializers.uniform)
zeros = _named("zeros", linen.initializers.zeros_init)


def orthogonal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Returns ``flax.linen.initializers.orthogonal()(key, shape, dtype)``, up to rounding, without LAPACK.

    Flax's initializer calls a QR decomposition of LAPACK. Several of those in one program can wait for each other
    forever where XLA has few threads (seen with jax 0.10 on two cores). Gram-Schmidt orthogonalization, done twice,
    gives the same matrix.

    A. Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014.

    Args:
      key: a random key, shape ().
      shape: shape of the result; all axes but the last count as rows.
      dtype: dtype of the result.

    Returns:
      Float ``shape`` with orthonormal columns, or orthonormal rows where there are fewer of those.

    Example:
      >>> w = orthogonal(jax.random.key(0), (4, 2))
      >>> bool(jnp.allclose(w.T @ w, jnp.eye(2), atol=1e-6))
      True
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    drawn = jax.random.normal(key, (max(rows, columns), min(rows, columns)), dtype)
    basis = _orthonormal(drawn)
    result: jax.Array = (basis.T if rows < columns else basis).reshape(shape)
    return result


def orthogonal_within(key: jax.Array, shape: Sequence[int], dtype: Any, rows: Any, columns: Any) -> jax.Array:
    """Returns a matrix of zeros with an orthogonal matrix in its upper left corner.

    Args:
      key: a random key, shape ().
      shape: (rows, columns) of the whole matrix.
      dtype: dtype of the result.
      rows, columns: size of the orthogonal matrix, int32 () where they are traced.
    """
    inside = (jnp.arange(shape[0]) < rows)[:, None] & (jnp.arange(shape[1]) < columns)[None]
    drawn = jnp.where(inside, jax.random.normal(key, tuple(shape), dtype), 0)
    return jnp.where(rows < columns, _orthonormal(drawn.T).T, _orthonormal(drawn))


def _orthonormal(drawn: jax.Array) -> jax.Array:
    """Returns the orthonormal columns that Gram-Schmidt makes of ``drawn``; columns of zeros stay zero."""

    def orthogonalize(j: Any, basis: jax.Array) -> jax.Array:
        # Columns of ``basis`` from j on are still zero, and so subtract nothing.
        column = drawn[:, j]
        # Once is not enough in float32: rounding leaves the columns visibly less than orthogonal.
        for _ in range(2):
            column = column - basis @ (basis.T @ column)
        return basis.at[:, j].set(column / jnp.maximum(jnp.linalg.norm(column), 1e-30))

    basis: jax.Array = lax.fori_loop(0, drawn.shape[1], orthogonalize, jnp.zeros_like(drawn))
    return basis


def scaled(initializer: Initializer, scale: Any) -> Initializer:
    """Returns ``initializer`` with its numbers multiplied by ``scale``.

    Args:
      initializer: ``initializer(key, shape, dtype)``, one of ``hpx.nn``, of Flax or of your own.
      scale: the factor; float32 () where it is traced.

    Returns:
      An initializer, ``init(key, shape, dtype) -> array``.

    Example:
      >>> scaled(normal, 2.0)(jax.random.key(0), (3, 4)).shape
      (3, 4)
    """

    if isinstance(initializer, Selected):
        return Selected(initializer.index, tuple(scaled(option, scale) for option in initializer.options))
    return Scaled(initializer, scale)


@dataclass(frozen=True)
class Scaled:
    """An initializer and the number () that its values are multiplied by."""

    initializer: Initializer
    scale: Any

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        """Returns ``initializer(key, shape, dtype)`` times the scale."""
        return self.initializer(key, shape, dtype) * jnp.asarray(self.scale, dtype)


def masked(initializer: Initializer, inputs: Any, active: Any) -> Initializer:
    """Returns an initializer of a kernel of which only the upper left corner is used; the rest is zero.

    The numbers in the corner have the scale that ``initializer`` gives a kernel of the corner's size.

    Args:
      initializer: an initializer of ``hpx.nn``, or a function with an attribute ``fan``.
      inputs, active: rows and columns of the corner, int32 () where they are traced; None for all.

    Raises:
      InputError: it is not known how the scale of ``initializer`` depends on the shape.
    """
    if isinstance(initializer, Selected):
        return Selected(initializer.index, tuple(masked(option, inputs, active) for option in initializer.options))
    if isinstance(initializer, Scaled):
        return Scaled(masked(initializer.initializer, inputs, active), initializer.scale)
    if initializer is not orthogonal and not hasattr(initializer, "fan"):
        raise InputError(
            "Dense.kernel_init",
            getattr(initializer, "__name__", type(initializer).__name__),
            "must be an initializer of hpx.nn where units are masked, since its scale follows the units that are used",
            "Write kernel_init=hpx.nn.lecun_normal; for an initializer of your own say what its scale depends on: "
            "init.fan = 'fan_in', 'fan_out', 'fan_avg' or ''.",
        )

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        fan_in, fan_out = shape
        rows, columns = fan_in if inputs is None else inputs, fan_out if active is None else active
        if initializer is orthogonal:
            return orthogonal_within(key, shape, dtype, rows, columns)
        # Flax scales by the fan of the whole kernel: rescale to that of the corner.
        fans = {"fan_in": (fan_in, rows), "fan_out": (fan_out, columns), "fan_avg": (fan_in + fan_out, rows + columns)}
        full, part = fans.get(initializer.fan, (1, 1))  # type: ignore[attr-defined]
        drawn = initializer(key, shape, dtype) * jnp.sqrt(full / part).astype(dtype)
        inside = (jnp.arange(fan_in) < rows)[:, None] & (jnp.arange(fan_out) < columns)[None]
        return jnp.where(inside, drawn, 0)

    return init
