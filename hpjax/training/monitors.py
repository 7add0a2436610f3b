"""Monitors: what a tuner watches in each lane besides its loss, from gradients and updates that are there anyway."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.arrays import ceil_div

Values = dict[str, jax.Array]

# A weight this small counts as none: an L1 penalty leads there by gradients, which never stop at 0.
NO_WEIGHT = 1e-3


def _by_layer(tree: Any) -> dict[str, list[jax.Array]]:
    """The arrays of each layer, under the path of the module that has them."""
    layers: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", "")))) for entry in path]
        layers.setdefault("/".join(names[:-1]) or names[-1], []).append(leaf)
    return layers


def _norm(arrays: list[jax.Array]) -> jax.Array:
    return jnp.sqrt(sum((jnp.sum(jnp.square(a)) for a in arrays), start=jnp.zeros(())))


def gradient_norm(params: Any, gradients: Any, updates: Any) -> Values:
    """The Euclidean norm of each layer's gradient."""
    return {f"gradient_norm/{layer}": _norm(arrays) for layer, arrays in _by_layer(gradients).items()}


def update_ratio(params: Any, gradients: Any, updates: Any) -> Values:
    """Each layer's norm of the update over the norm of the weights; about 1e-3 is usual (Stanford CS231n, notes 3)."""
    weights = _by_layer(params)
    return {
        f"update_ratio/{layer}": _norm(arrays) / jnp.maximum(_norm(weights[layer]), 1e-12)
        for layer, arrays in _by_layer(updates).items()
    }


def dead_units(params: Any, gradients: Any, updates: Any) -> Values:
    """The share of each layer's units whose weights get no gradient from a batch: those of a ReLU that never fires.

    Units without weights, which masks make, do not count.
    """
    weights = _by_layer(params)
    return {
        f"dead_units/{layer}": jnp.mean(jnp.stack([_silent(g, w) for g, w in pairs]))
        for layer, arrays in _by_layer(gradients).items()
        if (pairs := [(g, w) for g, w in zip(arrays, weights[layer], strict=True) if g.ndim > 1])
    }


def _silent(gradient: jax.Array, weight: jax.Array) -> jax.Array:
    silent, there = (_per_unit(gradient == 0, jnp.all), _per_unit(weight != 0, jnp.any))
    return jnp.sum(silent & there).astype(weight.dtype) / jnp.maximum(jnp.sum(there), 1)


def _per_unit(condition: jax.Array, join: Callable[..., jax.Array]) -> jax.Array:
    return join(condition, axis=tuple(range(condition.ndim - 1)))


def sparsity(params: Any, gradients: Any, updates: Any) -> Values:
    """The share of all weights whose size is below 1e-3; biases apart, and what masks leave out."""
    small, counted = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    for weight in jax.tree.leaves(params):
        if weight.ndim > 1:
            there = weight != 0
            kept = jnp.any(there, axis=-1, keepdims=True) & jnp.any(
                there, axis=tuple(range(weight.ndim - 1)), keepdims=True
            )
            small, counted = small + jnp.sum(kept & (jnp.abs(weight) < NO_WEIGHT)), counted + jnp.sum(kept)
    return {"sparsity": small / jnp.maximum(counted, 1)}


def square(tree: Any) -> jax.Array:
    """The squared Euclidean norm of all arrays together."""
    return sum((jnp.sum(jnp.square(a)) for a in jax.tree.leaves(tree)), start=jnp.zeros(()))


def gradient_noise(whole: jax.Array, parts: jax.Array, size: Any, microbatch: int) -> Values:
    """What a batch that came in microbatches says of the gradient and its noise, each without bias.

    The expected square of a mean over B examples is |G|² + tr Σ / B, so that two sizes tell the two apart
    (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1). Of examples without replacement Σ is the sample's
    covariance, and |G|² that of the distribution they are from.

    Args:
      whole: the squared norm of the batch's mean gradient.
      parts: the sum over its microbatches of the squared norm of what each adds to that mean.
      size: examples of the batch, more than ``microbatch``; a number or ().
      microbatch: of a microbatch; the last may be short.

    Returns:
      ``gradient_noise/signal``, |G|², which may come out negative, ``gradient_noise/trace``, tr Σ, and
      ``gradient_noise/batches``, 1, whose mean over calls tells of how many batches the means of the others are.
    """
    before = ceil_div(size, microbatch) - 1
    part = microbatch / size
    concentration = before * part**2 + (1 - before * part) ** 2
    signal = (whole - parts) / (1 - concentration)
    found = {"signal": signal, "trace": size * (whole - signal), "batches": jnp.ones_like(signal)}
    return {f"gradient_noise/{name}": value for name, value in found.items()}


MONITORS: dict[str, Callable[[Any, Any, Any], Values]] = {
    monitor.__name__: monitor for monitor in (gradient_norm, update_ratio, dead_units, sparsity)
}
# Of the microbatches of a step, where those above are of the whole.
OF_PARTS = gradient_noise.__name__
