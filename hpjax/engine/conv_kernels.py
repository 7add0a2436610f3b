"""Convolution and pooling as matrix products, slices and reshapes, which ``vmap`` gives one more axis and no more.

A vmapped convolution is a grouped one, which is slow everywhere, and on a CPU pooling is a loop over single numbers.
Everything here can be differentiated as often as what it stands for, and gives None where that is better left alone.
The arguments are those of the primitives that it stands for, ``lax.conv_general_dilated`` and ``lax.reduce_window``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# With more slices than this a program takes longer to compile than it saves.
MOST_SLICES = 64


class Windows(NamedTuple):
    """Windows that slide over an array, with one number for each of its axes.

    Attributes:
      shape: of a window.
      strides: from one window to the next.
      padding: before and behind the array.
      dilation: from one place of a window to the next.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    def counts(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """How many there are along each axis of an array of these sizes."""
        return tuple(
            max((size + low + high - (k - 1) * d - 1) // stride + 1, 0)
            for size, k, stride, (low, high), d in zip(sizes, *self, strict=True)
        )

    def tile(self, count: Sequence[int]) -> bool:
        """Whether so many of them stand side by side."""
        each = zip(self.shape, self.strides, self.dilation, count, strict=True)
        return all((k == stride or n == 1) and (k == 1 or d == 1) for k, stride, d, n in each)

    def slices(self, x: jax.Array, fill: Any, count: Sequence[int]) -> list[jax.Array]:
        """For each place of a window, the last axis fastest, what stands there in all windows; each (count)."""
        x = _padded(x, fill, [(low, high, 0) for low, high in self.padding])
        found = []
        for place in product(*map(range, self.shape)):
            begin = [at * d for at, d in zip(place, self.dilation, strict=True)]
            end = [b + (n - 1) * stride + 1 for b, n, stride in zip(begin, count, self.strides, strict=True)]
            found.append(lax.slice(x, begin, end, self.strides))
        return found

    def tiles(self, x: jax.Array, fill: Any, count: Sequence[int]) -> jax.Array:
        """The array cut into windows that tile it: for each axis their count and their size."""
        borders = [
            (low, n * k - size - low, 0)
            for size, n, k, (low, _) in zip(x.shape, count, self.shape, self.padding, strict=True)
        ]
        return _padded(x, fill, borders).reshape([n for pair in zip(count, self.shape, strict=True) for n in pair])


def _padded(x: jax.Array, fill: Any, borders: Sequence[tuple[int, int, int]]) -> jax.Array:
    return lax.pad(x, jnp.asarray(fill, x.dtype), borders) if any(map(any, borders)) else x


def convolution(lhs: jax.Array, rhs: jax.Array, params: dict[str, Any]) -> jax.Array | None:
    """A convolution of any number of axes: strided, padded, dilated, grouped, depthwise or transposed."""
    axes, groups = params["dimension_numbers"], params["feature_group_count"]
    x = lhs.transpose(axes.lhs_spec[0], *axes.lhs_spec[2:], axes.lhs_spec[1])
    kernel = rhs.transpose(*axes.rhs_spec[2:], axes.rhs_spec[1], axes.rhs_spec[0])
    windows = Windows(
        (1, *kernel.shape[:-2], 1),
        (1, *params["window_strides"], 1),
        ((0, 0), *params["padding"], (0, 0)),
        (1, *params["rhs_dilation"], 1),
    )
    gaps = (1, *params["lhs_dilation"], 1)
    count = windows.counts([(size - 1) * gap + 1 for size, gap in zip(x.shape, gaps, strict=True)])
    if params["batch_group_count"] != 1 or 0 in (*x.shape, *kernel.shape, *count):
        return None
    dtype = params["preferred_element_type"] or x.dtype
    dot = partial(_product, groups=groups, precision=params["precision"], dtype=dtype)
    flat = kernel.reshape(-1, *kernel.shape[-2:])
    if max(gaps) > 1 and max(windows.strides) == 1 and len(flat) <= MOST_SLICES:
        y = _landed(x, flat, windows, gaps, count, dot)
    else:
        x = _padded(x, 0, [(0, 0, gap - 1) for gap in gaps])
        if windows.tile(count) and groups == 1:
            tiles = windows.tiles(x, 0, count)
            # From (examples, 1, count, window, ..., channels, 1) to the windows, one behind the other.
            tiles = tiles.transpose(*range(0, tiles.ndim, 2), *range(1, tiles.ndim, 2))
            tiles = jnp.moveaxis(tiles.reshape(*count[:-1], x.shape[-1], -1), -1, -2)
            y = dot([tiles.reshape(*count[:-1], -1)], flat.reshape(1, -1, flat.shape[-1]))
        elif len(flat) <= MOST_SLICES:
            y = dot(windows.slices(x, 0, (*count[:-1], x.shape[-1])), flat)
        elif prod(count[1:-1]) <= MOST_SLICES and groups == 1:
            # The gradient of a kernel is a convolution with few windows, as large as the image: a product for each.
            turned = windows._replace(shape=(1, *count[1:-1], 1), strides=windows.dilation, dilation=windows.strides)
            parts = turned.slices(x, 0, (len(x), *kernel.shape[:-1]))
            whole = flat.reshape(1, -1, flat.shape[-1])
            y = jnp.stack([dot([part.reshape(len(x), -1)], whole) for part in parts], 1)
        else:
            return None
    y = y.reshape(*count[:-1], -1)
    places = (axes.out_spec[0], *axes.out_spec[2:], axes.out_spec[1])
    return y.transpose(sorted(range(y.ndim), key=places.__getitem__))


def _landed(
    x: jax.Array,
    flat: jax.Array,
    windows: Windows,
    gaps: tuple[int, ...],
    count: tuple[int, ...],
    dot: Callable[..., Any],
) -> jax.Array:
    """Transposed: the products first, which then land beside and upon each other. No zero is multiplied."""
    sizes = (*count[:-1], flat.shape[-1])
    total: Any = 0
    for place, part in zip(product(*map(range, windows.shape)), flat, strict=True):
        y = dot([x], part[None])
        begin = [low - at * d for at, d, (low, _) in zip(place, windows.dilation, windows.padding, strict=True)]
        borders = [
            (b, size - b - (had - 1) * gap - 1, gap - 1)
            for b, size, had, gap in zip(begin, sizes, y.shape, gaps, strict=True)
        ]
        total += _padded(y, 0, borders)
    landed: jax.Array = total
    return landed


def _product(parts: list[jax.Array], kernel: jax.Array, groups: int, precision: Any, dtype: Any) -> jax.Array:
    """The sum over parts of each times its own entry of a kernel.

    Args:
      parts: each (..., channels).
      kernel: (parts, channels / groups, outputs).
      groups: channels and outputs are in so many, which have nothing to do with each other.
      precision: of the product.
      dtype: of the result.

    Returns:
      (..., outputs).
    """
    *outer, channels = parts[0].shape
    inputs, outputs = kernel.shape[1:]
    if groups == 1:
        joined = jnp.concatenate(parts, -1) if len(parts) > 1 else parts[0]
        y = jnp.matmul(joined, kernel.reshape(-1, outputs), precision=precision, preferred_element_type=dtype)
    elif inputs == 1:  # depthwise: nothing to add up but the parts
        wide = jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype
        total: Any = 0
        for part, weights in zip(parts, kernel.reshape(-1, channels, outputs // channels), strict=True):
            at = weights.reshape(*(1 for _ in outer), *weights.shape)
            total += part[..., None].astype(wide) * at.astype(wide)
        y = total.astype(dtype)
    else:
        stacked = jnp.stack(parts, -2).reshape(*outer, len(parts), groups, inputs)
        grouped = kernel.reshape(len(parts), inputs, groups, -1)
        y = jnp.einsum("...kgi,kigo->...go", stacked, grouped, precision=precision, preferred_element_type=dtype)
    found: jax.Array = y.reshape(*outer, outputs)
    return found


def sum_pool(x: jax.Array, params: dict[str, Any]) -> jax.Array | None:
    """The sum of each window."""
    windows = _pooling(x, params)
    if windows is None:
        return None
    count = windows.counts(x.shape)
    if windows.tile(count):
        return windows.tiles(x, 0, count).sum(_inner(x.ndim))
    slices = windows.slices(x, 0, count)
    return sum(slices[1:], start=slices[0])


def max_pool(x: jax.Array, params: dict[str, Any]) -> jax.Array | None:
    """The largest number of each window; of equal ones the first has the gradient."""
    windows = _pooling(x, params)
    if windows is None or not jnp.issubdtype(x.dtype, jnp.floating) or prod(windows.shape) > MOST_SLICES:
        return None
    found: jax.Array = _max_pool(windows, x)
    return found


def max_pool_gradient(source: jax.Array, x: jax.Array, params: dict[str, Any]) -> jax.Array | None:
    """``lax.select_and_scatter_add``: of the gradients ``source`` of windows, those of ``x``."""
    if params["select_prim"].name != "ge":
        return None
    ones = (1,) * x.ndim
    pool = partial(max_pool, params={**params, "base_dilation": ones, "window_dilation": ones})
    if jax.eval_shape(pool, x) is None:
        return None
    gradient: jax.Array = jax.vjp(pool, x)[1](source)[0]
    return gradient


def _pooling(x: jax.Array, params: dict[str, Any]) -> Windows | None:
    names = ("window_dimensions", "window_strides", "padding", "window_dilation")
    shape, strides, padding, dilation = (tuple(params[name]) for name in names)
    windows = Windows(shape, strides, padding, dilation)
    count = windows.counts(x.shape)
    known = max(params["base_dilation"]) == 1 and 0 not in count
    return windows if known and (windows.tile(count) or prod(shape) <= MOST_SLICES) else None


def _inner(axes: int) -> tuple[int, ...]:
    """Of an array that was cut into tiles the axes within them."""
    return tuple(range(1, 2 * axes, 2))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _max_pool(windows: Windows, x: jax.Array) -> jax.Array:
    tile = windows.tile(windows.counts(x.shape))
    return _largest_of_tiles(windows, x)[0] if tile else _largest_of_slices(windows, x)[0]


@_max_pool.defjvp
def _(windows: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    count = windows.counts(x.shape)
    if windows.tile(count):
        largest, which, places = _largest_of_tiles(windows, x)
        mine = jnp.expand_dims(which, _inner(x.ndim)) == places
        return largest, jnp.where(mine, windows.tiles(t, 0, count), 0).sum(_inner(x.ndim))
    largest, which = _largest_of_slices(windows, x)
    parts = [jnp.where(which == at, part, 0) for at, part in enumerate(windows.slices(t, 0, count))]
    return largest, sum(parts[1:], start=parts[0])


def _largest_of_tiles(windows: Windows, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest number of each window, the first place where it stands, and the numbers of the places."""
    # Reductions, since XLA computes what is cheaper anew for every slice that a convolution takes of the result.
    tiles, inner = windows.tiles(x, -jnp.inf, windows.counts(x.shape)), _inner(x.ndim)
    largest, count = tiles.max(inner), prod(windows.shape)
    places = jnp.arange(count, dtype=x.dtype).reshape([n for k in windows.shape for n in (1, k)])
    which = jnp.where(tiles == jnp.expand_dims(largest, inner), places, count).min(inner)
    return largest, which, places


def _largest_of_slices(windows: Windows, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest number of each window, and the first place where it stands."""
    largest, *rest = windows.slices(x, -jnp.inf, windows.counts(x.shape))
    which = jnp.zeros(largest.shape, jnp.int8)
    for at, part in enumerate(rest, 1):
        which = jnp.where(part > largest, jnp.int8(at), which)
        largest = jnp.maximum(largest, part)
    return largest, which
