"""Examples: the arrays of a split or a batch, checked and converted to a few dtypes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError
from hpjax.data.windows import Windows


class Examples(NamedTuple):
    """Inputs and targets whose first axes count the same examples.

    Attributes:
      x: inputs: an array (examples, ...) or a pytree of such arrays; float32, int32 or uint8.
      y: targets, likewise; integer labels for classification.

    Example:
      >>> Examples(x=np.zeros((8, 3), np.float32), y=np.zeros(8, np.int32)).x.shape
      (8, 3)
    """

    x: Any
    y: Any

    @property
    def weights(self) -> None:
        """None: the examples count alike."""
        return None


class WeightedExamples(NamedTuple):
    """Inputs and targets, and what each example or token counts in means.

    Attributes:
      x, y: as of ``Examples``.
      weights: float (examples,) or (examples, tokens, ...), finite and 0 or more.

    Example:
      >>> WeightedExamples(x=np.zeros((8, 3), np.float32), y=np.zeros(8, np.int32), weights=np.ones(8)).weights.shape
      (8,)
    """

    x: Any
    y: Any
    weights: Any


# A pair (x, y) without weights, and a triple (x, y, weights).
AnyExamples = Examples | WeightedExamples


def examples_in(split: Any) -> int:
    """Returns the number of examples in a split, a pytree of arrays (examples, ...) or windows of tokens."""
    return len(split) if isinstance(split, Windows) else int(jax.tree.leaves(split)[0].shape[0])


def take(split: Any, index: Any) -> Any:
    """Returns some examples of a split.

    Args:
      split: a pytree of arrays (examples, ...), or ``Windows``.
      index: numbers of examples, integers (indices,), each below their number.

    Returns:
      A pytree like ``split``, of arrays (indices, ...); of windows ``Examples`` of int32 (indices, length).

    Example:
      >>> windows = hpx.data.tokens(np.arange(100), 4).train
      >>> take(windows, np.array([2, 0])).x.tolist()
      [[8, 9, 10, 11], [0, 1, 2, 3]]
    """
    if isinstance(split, Windows):
        return Examples(*split.take(index))
    return jax.tree.map(lambda a: jnp.asarray(a)[index], split)


def take_all(split: Any) -> Any:
    """Returns all examples of a split on the device, as ``take`` does of some."""
    if isinstance(split, Windows):
        return take(split, jnp.arange(len(split)))
    return jax.tree.map(jnp.asarray, split)


def first_inputs(split: Any) -> Any:
    """Returns the inputs of the first example of a set on the host, (1, ...), in the dtype that batches have."""
    if isinstance(split, Windows):
        return split.x[:1].astype(np.int32)
    return jax.tree.map(lambda a: a[:1], split.x)


def named_sets(split: Any) -> dict[str, Any]:
    """Returns the sets of a split by name: several have the names that the user gave, the only one has ``""``."""
    return dict(split) if isinstance(split, Mapping) else {"": split}


def own_split(field: str, given: Any) -> Any:
    """Returns the examples of a pair (x, y) or a triple (x, y, weights), a dict of them of a dict of such tuples.

    Anything else is returned as it is.

    Raises:
      InputError: as for ``tidy_examples``.
    """
    if isinstance(given, Mapping) and given and all(map(_is_tuple, given.values())):
        return {name: tidy_examples(f"{field}[{name!r}]", *each) for name, each in given.items()}
    return tidy_examples(field, *given) if _is_tuple(given) else given


def _is_tuple(given: Any) -> bool:
    return isinstance(given, AnyExamples) or (type(given) in (tuple, list) and len(given) in (2, 3))


def tidy_examples(field: str, x: Any, y: Any, weights: Any = None, *, finite: bool = True) -> AnyExamples:
    """Returns inputs and targets as examples of float32, int32 or uint8, with float weights where these are given.

    Args:
      field: the name of the data in errors.
      x, y: inputs and targets, arrays (examples, ...) or pytrees of such arrays.
      weights: numbers, (examples,) or (examples, tokens, ...); None for ``Examples`` without weights.
      finite: whether a NaN or an infinity is an error, and weights that are all 0.

    Raises:
      InputError: lengths differ or are 0; a value is not finite, no number, or too large for its dtype; or weights are
        negative or all 0.
    """
    x, y = _tidy_tree(f"{field} x", x, finite), _tidy_tree(f"{field} y", y, finite)
    for part, values in (("x", x), ("y", y)):
        if not jax.tree.leaves(values):
            raise InputError(
                f"{field} {part}", values, "must be an array, or a pytree of them", f"Write {part}=numpy.asarray(...)."
            )
    shapes = [a.shape for a in jax.tree.leaves((x, y))]
    if () in shapes or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] == 0:
        raise InputError(
            field,
            tuple(shapes),
            "x and y must have the same first axis, with one row for each example and at least one row",
            "Write x[:n] and y[:n] with the same n.",
        )
    if weights is None:
        return Examples(x, y)
    return WeightedExamples(x, y, _tidy_weights(field, weights, shapes[0][0], finite))


def _tidy_weights(field: str, weights: Any, examples: int, finite: bool) -> Array:
    """Returns weights of so many examples as float32, or wide ones as float64 where ``jax_enable_x64`` is set."""
    name = f"{field} weights"
    if isinstance(weights, Mapping):
        raise InputError(name, type(weights).__name__, "must be one array", f"Write weights=numpy.ones({examples}).")
    array = _tidy(name, weights, finite)
    if array.shape[:1] != (examples,):
        allowed = f"must have a weight for each of the {examples} examples, shape ({examples},) or ({examples}, tokens)"
        raise InputError(name, list(array.shape), allowed, f"Write weights=numpy.ones({examples}).")
    if (array < 0).any():
        remedy = "Write numpy.maximum(weights, 0), or a dict in place of a triple that is not (x, y, weights)."
        raise InputError(name, array.min().item(), "must be 0 or more", remedy)
    if finite and not array.any():
        raise InputError(name, 0, "must not all be 0", "Give at least one example a weight above 0.")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(np.float32)


def _tidy_tree(name: str, values: Any, finite: bool) -> Any:
    leaves, tree = jax.tree.flatten(values, is_leaf=lambda v: isinstance(v, list))
    return jax.tree.unflatten(tree, [_tidy(name, leaf, finite) for leaf in leaves])


def _tidy(name: str, values: Any, finite: bool) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:  # rows of different lengths, or no array of numbers at all
        raise InputError(
            name, type(values).__name__, f"must be a regular array: {error}", "Pad all rows to one length."
        ) from None
    if jnp.issubdtype(array.dtype, jnp.floating):
        return _tidy_floats(name, array, finite)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iub":
        if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
            raise InputError(
                name,
                (int(array.min()), int(array.max())),
                "must fit in int32",
                "Renumber labels: np.unique(y, return_inverse=True)[1].",
            )
        return array.astype(np.int32)
    raise InputError(name, str(array.dtype), "must be numbers", "Encode it: np.unique(y, return_inverse=True)[1].")


def _tidy_floats(name: str, array: np.ndarray[Any, Any], finite: bool) -> np.ndarray[Any, Any]:
    """Returns floats as float32, or wide ones as float64 where the user has set ``jax_enable_x64``."""
    wide = array.dtype.itemsize > 4
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which the check finds
        floats = array.astype(jax.dtypes.canonicalize_dtype(np.float64) if wide else np.float32)
    bad = ~np.isfinite(floats)
    if finite and bad.any():
        first = tuple(np.argwhere(bad)[0])
        where = f" in {floats.dtype}" if np.isfinite(array[first]) else ""
        raise InputError(
            f"{name}{[int(i) for i in first]}",
            float(array[first]),
            f"must be finite{where}, and {int(bad.sum())} values are not",
            "Write np.nan_to_num(x) to fill them, or x[np.isfinite(x).all(axis=1)] to drop their rows.",
        )
    return floats
