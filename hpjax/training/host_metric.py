"""Metrics that NumPy computes on the host, called from a compiled program."""

import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from hpjax.core.arrays import Array, at_least_float32
from hpjax.core.format import show

# Whether what is traced now is one of several parts of an evaluation, whose values are averaged.
_in_parts: ContextVar[bool] = ContextVar("in_parts", default=False)


@contextmanager
def evaluating_in_parts(several: bool) -> Iterator[None]:
    """Has metrics that are traced in this block warn if they give one number for each of several parts of a split."""
    token = _in_parts.set(several)
    try:
        yield
    finally:
        _in_parts.reset(token)


def on_host(function: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Returns a metric for ``supervised`` that calls a function of NumPy arrays, such as scikit-learn's.

    It is slow: the function is called for each lane separately, and the device waits: of ``split_metrics`` once an
    evaluation, of ``metrics`` at every step and for every part of an evaluation. If the function raises an error or
    returns another shape, its values are NaN: that lane diverges, its neighbours keep every bit, and a
    ``RuntimeWarning`` names the first error. The function must not call JAX.

    Args:
      function: ``function(outputs, y)`` of one lane's batch: NumPy arrays (batch, ...) or pytrees of them, of which
        bfloat16 and other narrow floats are float32. It may take further arguments by name as losses do; a key is
        uint32 (2,). In ``split_metrics`` it returns one number for the split. In ``metrics`` it returns one value for
        each example, (batch,), or one number for the batch, (), which then counts for each of its examples; where a
        split is evaluated in several parts (``eval_batch_size``), such numbers are averaged over the parts, of which
        the last is filled up with copies of its last example, and a ``RuntimeWarning`` says so.

    Returns:
      ``metric(outputs, y)`` whose values are floats of JAX's default dtype, (batch,); its gradient is 0.

    Example:
      >>> metric = on_host(lambda outputs, y: np.median(np.abs(outputs - y)))
      >>> metric(jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 1.0, 1.0]))
      Array([1., 1., 1.], dtype=float32)
    """
    failed, averaged = threading.Lock(), threading.Lock()

    def safely(arguments: Any, shape: tuple[int, ...], dtype: Any, in_parts: bool) -> Array:
        outputs, y, more = arguments
        try:
            values = np.asarray(function(outputs, y, **more), dtype)
            if values.shape not in ((), shape):
                allowed = " or ".join(str(list(each)) for each in dict.fromkeys(((), shape)))
                raise ValueError(f"it returned shape {list(values.shape)}, and must return {allowed}")
        except Exception as error:
            if failed.acquire(blocking=False):  # never released, so that only the first error is reported
                _warn_of_error(function, error)
            return np.full(shape, np.nan, dtype)
        if in_parts and values.shape != shape and averaged.acquire(blocking=False):
            _warn_of_mean(function)
        return np.broadcast_to(values, shape)

    def call(shape: tuple[int, ...], *arguments: Any) -> jax.Array:
        leaves, tree = jax.tree.flatten(jax.tree.map(_plain, jax.lax.stop_gradient(arguments)))
        values, in_parts = jax.ShapeDtypeStruct(shape, jnp.result_type(float)), _in_parts.get()

        def compute(*leaves: Any) -> Array:
            arguments = jax.tree.unflatten(tree, [np.asarray(leaf).copy() for leaf in leaves])
            return safely(arguments, values.shape, values.dtype, in_parts)

        def fill(_: Any, out: Any, *leaves: Any) -> None:
            np.asarray(out)[...] = compute(*leaves)

        # On CPUs pure_callback copies large arguments in XLA's own threads, and hangs if all of these wait for a copy.
        found: jax.Array = jax.lax.platform_dependent(
            *leaves,
            cpu=lambda *leaves: buffer_callback(fill, values, vmap_method="sequential")(*leaves),
            default=lambda *leaves: jax.pure_callback(compute, values, *leaves, vmap_method="sequential"),
        )
        return found

    def metric(outputs: Any, y: Any, **more: Any) -> jax.Array:
        return call(jax.tree.leaves(y)[0].shape[:1], outputs, y, more)

    def whole(outputs: Any, y: Any, **more: Any) -> jax.Array:
        return call((), outputs, y, more)

    for each in (metric, whole):
        each.__name__ = show(function)
        each.__wrapped__ = function  # type: ignore[attr-defined]  # so that it has the function's signature
    metric.of_split = whole  # type: ignore[attr-defined]
    return metric


def of_split(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a metric of a whole split: of one that ``on_host`` made the version that returns one number, ()."""
    found: Callable[..., Any] = getattr(function, "of_split", function)
    return found


def _plain(leaf: jax.Array) -> jax.Array:
    """Returns an array that NumPy can hold with all its digits."""
    is_key = jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else at_least_float32(leaf)


def _warn_of_mean(function: Callable[..., Any]) -> None:
    """Warns that a metric is averaged over the parts of a split, at the line of the user's function."""
    code = getattr(function, "__code__", None)
    message = (
        f"metric {show(function)} gives one number for the batch, and the split is evaluated in several parts, whose "
        "numbers are averaged. Write split_metrics={...}, whose functions get the whole split."
    )
    where = ("hpjax", 0) if code is None else (code.co_filename, code.co_firstlineno)
    warnings.warn_explicit(message, RuntimeWarning, *where)


def _warn_of_error(function: Callable[..., Any], error: Exception) -> None:
    """Warns of an error, at the line of the user's function that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    # The first frame is ours; the second is the user's function, unless that is written in C and has no frame.
    where = frames[min(1, len(frames) - 1)]
    message = (
        f"metric {show(function)} fails: {type(error).__name__}: {error}. Lanes in which it fails count as diverged."
    )
    warnings.warn_explicit(message, RuntimeWarning, where.filename, where.lineno or 0)


__all__ = ["on_host"]
