"""The dtype in which models compute: parameters and inputs are cast to it in each call, and outputs back."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from hpjax.core.errors import InputError
from hpjax.core.hparams import Hparams
from hpjax.training.network import Network, Outputs, Params, Stats

# What may be asked for. float16 is not: without a scaled loss most of its gradients are zeros.
DTYPES = ("float32", "bfloat16")


def is_compute_dtype(value: Any) -> bool:
    """Returns whether a value is one of ``DTYPES``, or stands for one as ``jnp.bfloat16`` does."""
    try:
        return jnp.dtype(value).name in DTYPES
    except TypeError:
        return False


def computing_in(net: Network, dtype: Callable[[Hparams], Any]) -> Network:
    """Returns a network that computes in the dtype that a function of ``h`` gives, one of ``DTYPES``.

    Parameters stay as ``init`` makes them, and so do gradients with respect to them; batch statistics and outputs have
    the dtypes that they have without. ``"float32"`` changes nothing.

    Its ``init`` raises ``InputError`` if the model makes all of its products in another dtype than is asked for.
    """
    checked: set[Any] = set()

    def called(wanted: str, key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> Outputs:
        found = net.apply(key, _narrowed(params, wanted), stats, _narrowed(x, wanted), h, train)
        after = jax.tree.map(_like, found.stats, stats)
        return Outputs(_widened(found.outputs, wanted), after, _widened(found.sown, wanted))

    def init(key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        params, stats = net.init(key, x, h)
        wanted = jnp.dtype(dtype(h)).name
        seen = wanted, str(jax.eval_shape(lambda: params))
        if wanted != "float32" and seen not in checked:
            traced = jax.make_jaxpr(lambda p, s, x: jax.tree.leaves(called(wanted, key, p, s, x, h, False).outputs))
            _check(wanted, {str(found) for found in _product_dtypes(traced(params, stats, x).jaxpr)})
            checked.add(seen)
        return params, stats

    def apply(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> Outputs:
        wanted = jnp.dtype(dtype(h)).name
        if wanted == "float32":
            return net.apply(key, params, stats, x, h, train)
        return called(wanted, key, params, stats, x, h, train)

    return net._replace(init=init, apply=apply)


def _check(wanted: str, found: set[str]) -> None:
    """Raises ``InputError`` if no product of a model is in the dtype that is asked for."""
    if found and wanted not in found:
        allowed = f"is not what the model computes in: it makes all of its products in {' and '.join(sorted(found))}"
        remedy = "Remove dtype= from the layers of the model, or compute_dtype."
        raise InputError("supervised.compute_dtype", wanted, allowed, remedy)


def _product_dtypes(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """Yields the dtype of the operands of each matrix product and convolution."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            shaped: Any = equation.invars[0].aval
            yield shaped.dtype
        for inner in core.jaxprs_in_params(equation.params):
            yield from _product_dtypes(inner)


def _narrowed(tree: Any, dtype: str) -> Any:
    """Returns a tree whose arrays of wider real numbers have a dtype."""

    def narrowed(x: Any) -> Any:
        wide = hasattr(x, "dtype") and x.dtype in (jnp.float32, jnp.float64)
        return jnp.asarray(x, dtype) if wide else x

    return jax.tree.map(narrowed, tree)


def _widened(tree: Any, dtype: str) -> Any:
    """Returns a tree whose arrays of a dtype are those of JAX's usual real numbers."""

    def widened(x: Any) -> Any:
        return jnp.asarray(x, jnp.result_type(float)) if getattr(x, "dtype", None) == dtype else x

    return jax.tree.map(widened, tree)


def _like(x: Any, like: Any) -> Any:
    """Returns an array with the dtype of another one."""
    return jnp.asarray(x, like.dtype) if hasattr(x, "dtype") else x
