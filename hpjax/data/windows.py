"""Windows of a token array as examples for models of the next token, without copying the array."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.lib.stride_tricks import sliding_window_view

from hpjax.core.errors import InputError, check_int
from hpjax.core.program import Data
from hpjax.core.scalars import as_python

Text = np.ndarray[Any, Any]

# Dtypes that an array of tokens keeps; batches are int32 whatever it has.
KEPT = (np.uint8, np.uint16, np.int32)


# Compared by identity (eq=False), since arrays have no single truth value.
@partial(jax.tree_util.register_dataclass, data_fields=["tokens"], meta_fields=["length", "stride"])
@dataclass(frozen=True, eq=False)
class Windows:
    """A split whose examples are windows of one array; ``hpx.data.tokens`` makes it.

    Example ``i`` is ``x = tokens[i * stride : i * stride + length]``, and ``y`` the same one token later. It is a
    pytree of the array alone: a device holds the array, and gathers from it the windows of a batch.

    Attributes:
      tokens: uint8, uint16 or int32 (tokens,), of more than ``length`` tokens.
      length: tokens of a window.
      stride: tokens from the beginning of a window to that of the next.

    Example:
      >>> windows = hpx.data.tokens(np.arange(100), 8).train
      >>> len(windows), windows.x[1].tolist()
      (11, [8, 9, 10, 11, 12, 13, 14, 15])
      >>> windows.take(np.array([1]))[1].tolist()
      [[9, 10, 11, 12, 13, 14, 15, 16]]
    """

    tokens: Any
    length: int
    stride: int

    def __len__(self) -> int:
        return (int(self.tokens.shape[0]) - self.length - 1) // self.stride + 1

    @property
    def x(self) -> Any:
        """The inputs of all windows, (windows, length): of a NumPy array a view; inside a program int32, gathered."""
        return self._all(slice(None, -1), 0)

    @property
    def y(self) -> Any:
        """The targets of all windows, likewise."""
        return self._all(slice(1, None), 1)

    @property
    def weights(self) -> None:
        """None: the examples count alike."""
        return None

    def take(self, index: Any) -> tuple[jax.Array, jax.Array]:
        """Returns inputs and targets of some windows, each int32 (indices, length).

        Args:
          index: numbers of windows, integers (indices,), each below ``len(self)``.
        """
        tokens = jnp.asarray(self.tokens)
        begins = jnp.asarray(index).astype(jnp.uint32) * jnp.uint32(self.stride)
        rows = jax.vmap(lambda begin: lax.dynamic_slice(tokens, (begin,), (self.length + 1,)))(begins)
        rows = rows.astype(jnp.int32)
        return rows[:, :-1], rows[:, 1:]

    def _all(self, part: slice, which: int) -> Any:
        if isinstance(self.tokens, np.ndarray):
            return sliding_window_view(self.tokens[part], self.length)[:: self.stride]
        return self.take(jnp.arange(len(self)))[which]


def tokens(
    array: Any,
    length: int,
    *,
    stride: int | None = None,
    valid: float | Any | Mapping[str, Any] = 0.1,
    test: float | Any | Mapping[str, Any] | None = None,
    name: str = "tokens",
) -> Data:
    """Returns data of windows of a token array, of which no copy is made: ``x`` is a window, ``y`` the next tokens.

    The array is in memory once, on the host and on each device, and a step gathers the windows of its batch from it.
    Epochs, microbatches and evaluations are those of any other examples, of which each is a window.

    Args:
      array: the tokens, integers (tokens,), each from 0 to 2³¹ − 1, and fewer than 2³¹ of them. uint8, uint16 and int32
        stay what they are, a ``numpy.memmap`` too; others become int32. Batches are int32 (batch, length).
      length: tokens of a window, 1 or more.
      stride: tokens from the beginning of a training window to that of the next. By default ``length``: windows follow
        each other, and an epoch predicts each token once. With 1 there is a window at every token, so that an epoch has
        as many as tokens.
      valid, test: for each split, its share of the text, a number between 0 and 1; or its own tokens, an array; or
        several sets, a dict of name to arrays. Shares are cut from the end, ``test`` behind ``valid``, so that no
        window has tokens of two splits. Their windows follow each other, so that an evaluation predicts each token
        once. ``test=None`` makes no test split.
      name: the name of the data in tables.

    Returns:
      ``Data`` whose splits are ``Windows``. Tokens at the end of a split that fill no window are left out.

    Raises:
      InputError: the tokens are no integers, or a split is shorter than a window and the token behind it.

    Example:
      >>> text = np.frombuffer(b"to be or not to be, that is the question", np.uint8)
      >>> data = tokens(text, length=8, valid=0.3)
      >>> bytes(data.train.x[0]), bytes(data.train.y[0]), bytes(data.valid.x[0])
      (b'to be or', b'o be or ', b'the ques')
      >>> len(data.train), len(data.valid)
      (3, 1)
    """
    text, length = _tidy("tokens.array", array), check_int("tokens.length", length)
    stride = length if stride is None else check_int("tokens.stride", stride)
    _windows("tokens.array", text, length, stride)  # of too short a text this says more than of a share of it
    shares: dict[str, Any] = {}
    total = len(text)
    for split, given in (("test", test), ("valid", valid)):  # from the end of the text
        given = as_python(given)
        if split == "test" and given is None:
            shares[split] = None
        elif isinstance(given, int | float):
            text, shares[split] = _cut(f"tokens.{split}", text, given, total)
        else:
            shares[split] = given
    train = _windows("tokens.array", text, length, stride)
    test = None if shares["test"] is None else _own("tokens.test", shares["test"], length)
    return Data(train, _own("tokens.valid", shares["valid"], length), test, name)


def _cut(field: str, text: Text, share: float, total: int) -> tuple[Text, Text]:
    """Returns a text without its end, and that end, which is a share of so many tokens in all."""
    if not 0 < share < 1:
        allowed = "must be a share between 0 and 1, an array of tokens, or a dict of name to arrays"
        remedy = "Write valid=0.1." if "valid" in field else "Write test=0.1, or test=None for no test split."
        raise InputError(field, share, allowed, remedy)
    at = max(len(text) - round(share * total), 0)
    return text[:at], text[at:]


def _own(field: str, given: Any, length: int) -> Any:
    """Returns the windows of a text, or of several texts by name, that follow each other."""
    if isinstance(given, Mapping):
        return {name: _own(f"{field}[{name!r}]", each, length) for name, each in given.items()}
    return _windows(field, _tidy(field, given), length, length)


def _windows(field: str, text: Text, length: int, stride: int) -> Windows:
    """Returns the windows of a split; raises ``InputError`` if it has none."""
    if len(text) <= length:
        found = f"{len(text)} token{'s' * (len(text) != 1)}"
        allowed = f"must have at least {length + 1}, a window of {length} and the token behind it"
        shorter = f"Write length={len(text) - 1}, or give" if len(text) > 1 else "Give"
        raise InputError(field, found, allowed, f"{shorter} more text.")
    return Windows(text, length, stride)


def _tidy(field: str, given: Any) -> Text:
    """Returns tokens as an array of uint8, uint16 or int32, without a copy where it is one."""
    encode = "Encode text: numpy.frombuffer(text.encode(), numpy.uint8)."
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(field, type(given).__name__, f"must be an array of integers: {error}", encode) from None
    if array.dtype.kind not in "iu":
        found = type(given).__name__ if isinstance(given, str | bytes) else str(array.dtype)
        raise InputError(field, found, "must be an array of integers", encode)
    if array.ndim != 1:
        allowed = "must have one axis, the tokens in their order"
        raise InputError(field, list(array.shape), allowed, "Write array.reshape(-1) for one text.")
    if array.size >= 2**31:
        allowed = "must have fewer than 2**31 tokens, which int32 can count"
        raise InputError(field, f"{array.size} tokens", allowed, "Write array[:2**31 - 1], or hpx.data.stream(...).")
    unsigned = array.dtype in (np.uint8, np.uint16)
    if array.size and not unsigned and not 0 <= int(array.min()) <= int(array.max()) < 2**31:
        ends = (int(array.min()), int(array.max()))
        remedy = "Renumber: np.unique(array, return_inverse=True)[1]."
        raise InputError(field, ends, "must lie in 0 … 2**31 - 1", remedy)
    return array if array.dtype in KEPT else array.astype(np.int32)
