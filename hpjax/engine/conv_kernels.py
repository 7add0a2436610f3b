"""Convolution and pooling as matrix products, slices and reshapes, to which ``vmap`` only adds an axis.

Under ``vmap`` a convolution with a kernel a lane becomes a grouped convolution, which is slow on every platform, and on
a CPU XLA's pooling is a loop over single numbers. The functions here compute the same values, and can be differentiated
as often as the originals.

Each takes the operands of a primitive and its parameters: ``conv_general_dilated``, ``reduce_window_sum``,
``reduce_window_max`` and ``select_and_scatter_add``. The names of these parameters are internals of JAX; those used
here are the same in jax 0.10.2 (the oldest that hpjax takes) to 0.12. Fallback: where one is missing, ``params[...]``
raises KeyError, and ``lowering`` leaves the operation unchanged and warns once, as it does where a function raises
NotRewrittenError because the original is faster or the case is rare.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# The most slices that an operation is written in: with more, a program takes longer to compile than it saves.
MOST_SLICES = 64


class NotRewrittenError(Exception):
    """Raised where an operation stays as it is; the message is the reason, as the end of a sentence."""


class Windows(NamedTuple):
    """Windows that slide over an array; each attribute has one entry for each axis of the array.

    Attributes:
      shape: the number of places in a window.
      strides: the distance from one window to the next.
      padding: the numbers of elements added before and behind the array.
      dilation: the distance from one place of a window to the next.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    def counts(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Returns the number of windows along each axis of an array of these sizes."""
        return tuple(
            max((size + low + high - (k - 1) * d - 1) // stride + 1, 0)
            for size, k, stride, (low, high), d in zip(sizes, *self, strict=True)
        )

    def tile(self, count: Sequence[int]) -> bool:
        """Returns whether ``count`` windows along each axis lie side by side, without gaps or overlaps."""
        each = zip(self.shape, self.strides, self.dilation, count, strict=True)
        return all((k == stride or n == 1) and (k == 1 or d == 1) for k, stride, d, n in each)

    def slices(self, x: jax.Array, fill: Any, count: Sequence[int]) -> list[jax.Array]:
        """Returns for each place of a window, the last axis fastest, its elements in all windows, (count)."""
        x = _padded(x, fill, [(low, high, 0) for low, high in self.padding])
        found = []
        for place in product(*map(range, self.shape)):
            begin = [at * d for at, d in zip(place, self.dilation, strict=True)]
            end = [b + (n - 1) * stride + 1 for b, n, stride in zip(begin, count, self.strides, strict=True)]
            found.append(lax.slice(x, begin, end, self.strides))
        return found

    def joined(self, x: jax.Array, count: Sequence[int], axis: int) -> jax.Array:
        """Returns the elements of all windows, those of a window one behind the other along ``axis``.

        Places come in the order of ``slices``. They are taken axis after axis: a window of 4×4 in 4 + 4 slices and not
        in 16, each of which XLA compiles, together with all elementwise operations before it.

        Args:
          x: the array.
          count: the number of windows along each axis; of those with windows of one place, their sizes.
          axis: an axis that has windows of one place.
        """
        x = _padded(x, 0, [(low, high, 0) for low, high in self.padding])
        for at in reversed(range(x.ndim)):
            k, stride, dilation = self.shape[at], self.strides[at], self.dilation[at]
            if at == axis % x.ndim:
                continue
            ends = [(place * dilation, place * dilation + (count[at] - 1) * stride + 1) for place in range(k)]
            parts = [lax.slice_in_dim(x, begin, end, stride, at) for begin, end in ends]
            x = jnp.concatenate(parts, axis) if k > 1 else parts[0]
        return x

    def tiles(self, x: jax.Array, fill: Any, count: Sequence[int]) -> jax.Array:
        """Returns the array cut into windows that tile it: each axis becomes two, their count and their size."""
        borders = [
            (low, n * k - size - low, 0)
            for size, n, k, (low, _) in zip(x.shape, count, self.shape, self.padding, strict=True)
        ]
        return _padded(x, fill, borders).reshape([n for pair in zip(count, self.shape, strict=True) for n in pair])


def _padded(x: jax.Array, fill: Any, borders: Sequence[tuple[int, int, int]]) -> jax.Array:
    """Returns ``lax.pad``'s result: borders are low, high and interior for each axis, and may be negative."""
    return lax.pad(x, jnp.asarray(fill, x.dtype), borders) if any(map(any, borders)) else x


def convolution(lhs: jax.Array, rhs: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Returns a convolution over any number of axes: strided, padded, dilated, grouped, depthwise or transposed.

    Raises:
      NotRewrittenError: it is grouped by examples, or has a large window and many of these.
    """
    if params["batch_group_count"] != 1:
        raise NotRewrittenError("it is grouped by examples, as the gradient of a grouped convolution")
    # Channels last, (examples, ..., channels), and the kernel as (..., channels / groups, outputs): then the product
    # over channels is a matrix product without a transpose.
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
    dtype = params["preferred_element_type"] or x.dtype
    dot = partial(_product, groups=groups, precision=params["precision"], dtype=dtype)
    flat = kernel.reshape(-1, *kernel.shape[-2:])
    if max(gaps) > 1 and max(windows.strides) == 1 and len(flat) <= MOST_SLICES:
        y = _transposed(x, flat, windows, gaps, count, groups, dot)
    else:
        x = _padded(x, 0, [(0, 0, gap - 1) for gap in gaps])
        if windows.tile(count) and groups == 1:
            # Patches that do not overlap, as in the stem of a vision transformer: a reshape and one product.
            tiles = windows.tiles(x, 0, count)
            # Counts first, then the places of a window, one behind the other, and the channels last.
            tiles = tiles.transpose(*range(0, tiles.ndim, 2), *range(1, tiles.ndim, 2))
            tiles = jnp.moveaxis(tiles.reshape(*count[:-1], x.shape[-1], -1), -1, -2)
            y = dot([tiles.reshape(*count[:-1], -1)], flat.reshape(1, -1, flat.shape[-1]))
        elif len(flat) <= MOST_SLICES and groups == 1:
            # The usual case: all places of the kernel side by side, (places, channels) in one product.
            y = dot([windows.joined(x, (*count[:-1], x.shape[-1]), -1)], flat.reshape(1, -1, flat.shape[-1]))
        elif len(flat) <= MOST_SLICES:
            y = dot(windows.slices(x, 0, (*count[:-1], x.shape[-1])), flat)
        elif prod(count[1:-1]) <= MOST_SLICES and groups == 1:
            # The gradient with respect to a kernel is a convolution with few windows, each as large as the image.
            turned = windows._replace(shape=(1, *count[1:-1], 1), strides=windows.dilation, dilation=windows.strides)
            parts = turned.joined(x, (len(x), *kernel.shape[:-1]), 0)
            y = dot([parts.reshape(prod(count[1:-1]) * len(x), -1)], flat.reshape(1, -1, flat.shape[-1]))
            y = jnp.moveaxis(y.reshape(-1, len(x), y.shape[-1]), 0, 1)
        else:
            raise _too_large(len(flat))
    y = y.reshape(*count[:-1], -1)
    # Back to the order of axes that the primitive was asked for.
    places = (axes.out_spec[0], *axes.out_spec[2:], axes.out_spec[1])
    return y.transpose(sorted(range(y.ndim), key=places.__getitem__))


def _transposed(
    x: jax.Array,
    flat: jax.Array,
    windows: Windows,
    gaps: tuple[int, ...],
    count: tuple[int, ...],
    groups: int,
    dot: Callable[..., Any],
) -> jax.Array:
    """Returns a convolution of an input with gaps: one product first, whose parts are then added at their places.

    The zeros in the gaps are never multiplied.
    """
    # All places at once, and then axis after axis: of each place, what it adds to the output along the axis.
    places, inputs, _ = flat.shape
    by_group = flat.reshape(places, inputs, groups, -1).transpose(1, 2, 0, 3)
    y = dot([x], by_group.reshape(1, inputs, -1))
    y = jnp.moveaxis(y.reshape(*x.shape[:-1], groups, places, -1), -2, -3).reshape(*x.shape[:-1], -1)
    for at in range(1, y.ndim - 1):
        k, d, (low, _), gap = windows.shape[at], windows.dilation[at], windows.padding[at], gaps[at]
        parts, total = jnp.split(y, k, -1), None
        for place, part in enumerate(parts):
            begin = low - place * d
            borders = [(0, 0, 0)] * y.ndim
            borders[at] = (begin, count[at] - begin - (y.shape[at] - 1) * gap - 1, gap - 1)
            added = _padded(part, 0, borders)
            total = added if total is None else total + added
        y = total
    found: jax.Array = y
    return found


def _product(parts: list[jax.Array], kernel: jax.Array, groups: int, precision: Any, dtype: Any) -> jax.Array:
    """Returns the sum over parts of the product of a part and its entry of a kernel.

    Args:
      parts: arrays of shape (..., channels).
      kernel: (parts, channels / groups, outputs).
      groups: the number of groups of channels and outputs; each output depends on the channels of its group alone.
      precision: the precision of the product, as for ``jnp.matmul``.
      dtype: the dtype of the result.

    Returns:
      (..., outputs).
    """
    *outer, channels = parts[0].shape
    inputs, outputs = kernel.shape[1:]
    if groups == 1:
        joined = jnp.concatenate(parts, -1) if len(parts) > 1 else parts[0]
        y = jnp.matmul(joined, kernel.reshape(-1, outputs), precision=precision, preferred_element_type=dtype)
    elif inputs == 1:  # depthwise: there is one channel a group, so only the parts are summed
        # In float32, since a sum in bfloat16 would lose what the accumulator of a matrix product keeps.
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


def sum_pool(x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Returns the sum of each window.

    Raises:
      NotRewrittenError: the windows are large and overlap, or the input has gaps.
    """
    windows = _pooling(x, params)
    count = windows.counts(x.shape)
    if windows.tile(count):
        return windows.tiles(x, 0, count).sum(_inner(x.ndim))
    slices = windows.slices(x, 0, count)
    return sum(slices[1:], start=slices[0])


def max_pool(x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Returns the largest number of each window; of equal ones the first gets the gradient, as in XLA.

    Raises:
      NotRewrittenError: the windows are large, the input has gaps, or its numbers are integers.
    """
    windows = _pooling(x, params)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise NotRewrittenError(f"its numbers are {x.dtype}")
    if prod(windows.shape) > MOST_SLICES:
        raise _too_large(prod(windows.shape))
    found: jax.Array = _max_pool(windows, x)
    return found


def max_pool_gradient(source: jax.Array, x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Returns the gradient of ``max_pool`` with respect to ``x``, from ``source``, that with respect to its result.

    Raises:
      NotRewrittenError: as for ``max_pool``, or it is the gradient of another choice.
    """
    if params["select_prim"].name != "ge":
        raise NotRewrittenError("it does not choose the largest number")
    ones = (1,) * x.ndim
    pool = partial(max_pool, params={**params, "base_dilation": ones, "window_dilation": ones})
    gradient: jax.Array = jax.vjp(pool, x)[1](source)[0]
    return gradient


def _pooling(x: jax.Array, params: dict[str, Any]) -> Windows:
    """Returns the windows of a pooling. Raises ``NotRewrittenError`` where the original is better."""
    names = ("window_dimensions", "window_strides", "padding", "window_dilation")
    shape, strides, padding, dilation = (tuple(params[name]) for name in names)
    windows = Windows(shape, strides, padding, dilation)
    if max(params["base_dilation"]) > 1:
        raise NotRewrittenError("its input has gaps, as in the gradient of pooling with strides")
    if not windows.tile(windows.counts(x.shape)) and prod(shape) > MOST_SLICES:
        raise _too_large(prod(shape))
    return windows


def _too_large(places: int) -> NotRewrittenError:
    return NotRewrittenError(f"a window of {places} places takes longer to compile than it saves")


def _inner(axes: int) -> tuple[int, ...]:
    """Returns the axes within the windows of an array that ``Windows.tiles`` cut, which had ``axes`` axes."""
    return tuple(range(1, 2 * axes, 2))


# A derivative of its own, because that of max splits the gradient between equal numbers, and XLA's pooling does not.
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
    """Returns the largest number of each window, the first place where it is, and the numbers of the places."""
    # By reductions: XLA would fuse elementwise operations into each of the many slices that a following convolution
    # takes of the result, and compute them anew for each.
    tiles, inner = windows.tiles(x, -jnp.inf, windows.counts(x.shape)), _inner(x.ndim)
    largest, count = tiles.max(inner), prod(windows.shape)
    places = jnp.arange(count, dtype=x.dtype).reshape([n for k in windows.shape for n in (1, k)])
    which = jnp.where(tiles == jnp.expand_dims(largest, inner), places, count).min(inner)
    return largest, which, places


def _largest_of_slices(windows: Windows, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the largest number of each window, and the first place where it is."""
    largest, *rest = windows.slices(x, -jnp.inf, windows.counts(x.shape))
    which = jnp.zeros(largest.shape, jnp.int8)
    for at, part in enumerate(rest, 1):
        which = jnp.where(part > largest, jnp.int8(at), which)
        largest = jnp.maximum(largest, part)
    return largest, which
