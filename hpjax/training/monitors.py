"""Monitors: what a tuner watches in each lane besides its loss, computed from gradients and updates.

A monitor takes ``params``, their ``gradients`` and the optimizer's ``updates``, three pytrees of equal structure, and
returns a dict of metrics, each float (). A layer is named by the path of the module that has its arrays.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.arrays import at_least_float32, ceil_div, squared

Values = dict[str, jax.Array]

# A smaller weight counts as zero: under an L1 penalty gradient steps bring a weight near 0 but never exactly to it.
NO_WEIGHT = 1e-3


def _by_layer(tree: Any) -> dict[str, list[jax.Array]]:
    """Returns the arrays of each layer, by the path of the module that has them."""
    layers: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", "")))) for entry in path]
        layers.setdefault("/".join(names[:-1]) or names[-1], []).append(leaf)
    return layers


def _norm(arrays: list[jax.Array]) -> jax.Array:
    return jnp.sqrt(square(arrays))


def gradient_norm(params: Any, gradients: Any, updates: Any) -> Values:
    """Returns the Euclidean norm of each layer's gradient."""
    return {f"gradient_norm/{layer}": _norm(arrays) for layer, arrays in _by_layer(gradients).items()}


def update_ratio(params: Any, gradients: Any, updates: Any) -> Values:
    """Returns each layer's norm of the update over that of the weights; 1e-3 is usual (Stanford CS231n, notes 3)."""
    weights = _by_layer(params)
    return {
        f"update_ratio/{layer}": _norm(arrays) / jnp.maximum(_norm(weights[layer]), 1e-12)
        for layer, arrays in _by_layer(updates).items()
    }


def dead_units(params: Any, gradients: Any, updates: Any) -> Values:
    """Returns the share of each layer's units whose weights have gradient 0: ReLU units that are 0 for a whole batch.

    Units whose weights are all 0 are not counted, since masks make them.
    """
    weights = _by_layer(params)
    return {
        f"dead_units/{layer}": jnp.mean(jnp.stack([_silent(g, w) for g, w in pairs]))
        for layer, arrays in _by_layer(gradients).items()
        if (pairs := [(g, w) for g, w in zip(arrays, weights[layer], strict=True) if g.ndim > 1])
    }


def _silent(gradient: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the share of units, on the last axis, whose weights are not all 0 and have gradient 0."""
    silent, used = (_per_unit(gradient == 0, jnp.all), _per_unit(weight != 0, jnp.any))
    return jnp.sum(silent & used) / jnp.maximum(jnp.sum(used), 1)


def _per_unit(condition: jax.Array, join: Callable[..., jax.Array]) -> jax.Array:
    return join(condition, axis=tuple(range(condition.ndim - 1)))


def sparsity(params: Any, gradients: Any, updates: Any) -> Values:
    """Returns the share of all weights below 1e-3 in absolute value, without biases and masked weights."""
    small, counted = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    for weight in jax.tree.leaves(params):
        if weight.ndim > 1:
            # Masks make whole rows and columns 0.
            used = weight != 0
            kept = jnp.any(used, axis=-1, keepdims=True) & jnp.any(
                used, axis=tuple(range(weight.ndim - 1)), keepdims=True
            )
            small, counted = small + jnp.sum(kept & (jnp.abs(weight) < NO_WEIGHT)), counted + jnp.sum(kept)
    return {"sparsity": small / jnp.maximum(counted, 1)}


def square(tree: Any) -> jax.Array:
    """Returns the squared Euclidean norm of all arrays together, float (), float32 at least."""
    return sum((jnp.sum(squared(at_least_float32(a))) for a in jax.tree.leaves(tree)), start=jnp.zeros(()))


def squares(tree: Any) -> Values:
    """Returns the squared Euclidean norm of each layer's arrays, float (), float32 at least."""
    return {layer: square(arrays) for layer, arrays in _by_layer(tree).items()}


def gradient_noise(full: Values, parts: Values, size: Any, microbatch: int) -> Values:
    """Returns unbiased estimates of the squared gradient |G|² and of its noise tr Σ, from one batch in microbatches.

    The expected squared norm of a mean over B examples is |G|² + tr Σ / B, so that the norms at two sizes, of the batch
    and of its microbatches, determine both (S. McCandlish et al., "An Empirical Model of Large-Batch Training", 2018,
    arXiv 1812.06162, appendix A.1). Since examples are drawn without replacement, Σ is the covariance over the training
    split, and |G|² refers to the distribution that the split is a sample of.

    Args:
      full: the squared norm of each layer's part of the batch's mean gradient, float () by layer.
      parts: the sum over the microbatches of the squared norm of what each adds to that mean, likewise.
      size: examples of the batch, more than ``microbatch``; a number, or int32 () where it is traced.
      microbatch: examples of a microbatch; the last one may have fewer.

    Returns:
      ``gradient_noise/signal``, |G|², which may be negative, and ``gradient_noise/trace``, tr Σ, of all parameters;
      ``gradient_noise/<layer>/signal`` and ``gradient_noise/<layer>/trace``, which add up to these; and
      ``gradient_noise/batches``, which is 1: its mean over calls is the share of calls that completed a batch.
    """
    before = ceil_div(size, microbatch) - 1
    part = microbatch / size
    # The sum of the squared shares that the microbatches have in the batch, the last one taking what remains.
    concentration = before * part**2 + (1 - before * part) ** 2

    def estimates(where: str, full: jax.Array, parts: jax.Array) -> Values:
        signal = (full - parts) / (1 - concentration)
        return {f"{where}/signal": signal, f"{where}/trace": size * (full - signal)}

    zero = jnp.zeros(())
    found = estimates("gradient_noise", sum(full.values(), start=zero), sum(parts.values(), start=zero))
    for layer, own in full.items():
        found |= estimates(f"gradient_noise/{layer}", own, parts[layer])
    return {**found, "gradient_noise/batches": jnp.ones_like(found["gradient_noise/signal"])}


MONITORS: dict[str, Callable[[Any, Any, Any], Values]] = {
    monitor.__name__: monitor for monitor in (gradient_norm, update_ratio, dead_units, sparsity)
}
# The monitor that compares the microbatches of a step; those above look at the whole batch.
OF_PARTS = gradient_noise.__name__
# Those that look at the training split, at evaluations: see ``curvature``.
CURVATURE = frozenset({"sharpness", "trace"})
KNOWN = (*MONITORS, OF_PARTS, *sorted(CURVATURE))


def monitored(monitors: Collection[str], params: Any, gradients: Any, updates: Any) -> Values:
    """Returns what those of some monitors report that look at a whole batch: pytrees like the parameters."""
    found: Values = {}
    for name in monitors:
        if name in MONITORS:
            found |= MONITORS[name](params, gradients, updates)
    return found
