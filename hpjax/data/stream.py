"""A stream: batches that the host gives one after the other, in place of a train split that does not fit."""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from hpjax.core import user_code
from hpjax.core.errors import InputError, RunError, check_int
from hpjax.data.examples import Examples, tidy_examples


# Compared by identity, as programs are.
@dataclass(frozen=True, eq=False)
class Stream:
    """What stands in a ``Data`` for a train split that does not fit; see ``hpx.data.stream``, which makes it.

    Args:
      factory: gives the batches, from the first one on.
      name: what errors and tables call it.
      block: batches that go to the devices together.
    """

    factory: Callable[[], Iterable[Any]]
    name: str = "stream"
    block: int = 16

    def __post_init__(self) -> None:
        if not callable(self.factory):
            raise InputError(
                "stream.factory",
                type(self.factory).__name__,
                "must be a function without arguments that gives an iterable of batches",
                "Write stream(lambda: loader, ...).",
            )
        object.__setattr__(self, "block", check_int("stream.block", self.block))

    @cached_property
    def first(self) -> Any:
        """The first batch, to which all others are alike; ``factory`` is called for it."""
        return jax.tree.map(np.array, Pass(self).draw(checked=False))  # copied: the iterator may fill it again

    @property
    def shapes(self) -> Any:
        """Shapes and dtypes of a block: (block, batch, ...)."""
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct((self.block, *a.shape), a.dtype), self.first)

    @property
    def block_bytes(self) -> int:
        """Size of a block."""
        return self.block * sum(int(leaf.nbytes) for leaf in jax.tree.leaves(self.first))

    def __str__(self) -> str:
        inputs = self.first.x if isinstance(self.first, Examples) else self.first
        return f"stream of {' and '.join(str(leaf.shape) for leaf in jax.tree.leaves(inputs))} batches"


def first_batch_of(train: Any) -> Any:
    """What a program sees of a train split: all of it, or of a stream one batch."""
    return train.first if isinstance(train, Stream) else train


class Position(NamedTuple):
    """A place in a stream.

    Attributes:
      batch: how many batches come before it.
      state: what the iterator says of it, as JSON; None where it says nothing.
    """

    batch: int = 0
    state: str | None = None

    def packed(self) -> NDArray[np.uint8]:
        """Its bytes; nothing is pickled."""
        return np.frombuffer(json.dumps(self).encode(), np.uint8)

    @classmethod
    def unpacked(cls, data: NDArray[np.uint8]) -> "Position":
        """The inverse of ``packed``.

        Raises:
          RunError: the bytes are no position.
        """
        try:
            batch, state = json.loads(data.tobytes())
        except (ValueError, TypeError, RecursionError):
            batch, state = None, None
        if data.dtype != np.uint8 or type(batch) is not int or batch < 0 or not isinstance(state, str | None):
            raise RunError("its position in the data stream cannot be read")
        return cls(batch, state)


class Pass:
    """The batches of a stream, one after the other; from the first again where they end.

    Args:
      stream: what is drawn from.
      position: the batch to begin with.
    """

    def __init__(self, stream: Stream, position: Position = Position()) -> None:
        self._stream, self._begin = stream, position
        self._number = 0
        self._iterator: Iterator[Any] | None = None

    def draw(self, checked: bool = True) -> Any:
        """The next batch, a pytree of NumPy arrays: pairs as ``Examples`` of float32, int32 or uint8.

        Args:
          checked: whether it must be like the first one.

        Raises:
          RunError: the iterator fails.
          InputError: it gives no batch, or one that is not like the first.
        """
        try:
            if self._iterator is None:
                self._open()
            batch = self._next()
        except (InputError, RunError):
            raise
        except Exception as error:
            where = "".join(f"\n  {line}" for line in user_code.user_lines(error))
            raise RunError(f"{self._name} fails:{where}\n  {user_code.first_line(error)}") from error
        batch = _tidy(self._name, batch)
        if checked:
            self._compare(batch)
        self._number += 1
        return batch

    def skip(self, batch: int) -> None:
        """Draws and drops what comes before a batch."""
        if self._iterator is None and self._begin.batch > batch:
            self._begin = Position()
        while max(self._number, self._begin.batch) < batch:
            self.draw()

    def position(self) -> Position:
        """Where the next batch stands."""
        if self._iterator is None:
            return self._begin
        tell = getattr(self._iterator, "get_state", None)
        return Position(self._number, None if tell is None else _packed(tell()))

    @property
    def _name(self) -> str:
        """What errors call the next batch."""
        return f"batch {self._number} of the data stream {self._stream.name!r}"

    def _fresh(self) -> Iterator[Any]:
        given = self._stream.factory()
        try:
            return iter(given)
        except TypeError:
            allowed = "must give an iterable of batches"
            raise InputError(
                "stream.factory", type(given).__name__, allowed, "Return a loader, or use yield."
            ) from None

    def _open(self) -> None:
        """Begins at the position: by the iterator's own account, or else by drawing all that comes before it."""
        self._iterator, begin = self._fresh(), self._begin
        self._begin = Position()
        if begin.state is not None:
            try:
                self._iterator.set_state(_unpacked(begin.state))  # type: ignore[attr-defined]
                self._number = begin.batch
            except Exception as error:
                again = f"{begin.batch} batches are drawn and dropped to come to where the checkpoint was"
                name = self._stream.name
                warnings.warn(f"the data stream {name!r} does not take its state back: {error}. {again}.", stacklevel=2)
                self._iterator = self._fresh()
        while self._number < begin.batch:
            self.draw()

    def _next(self) -> Any:
        assert self._iterator is not None
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = self._fresh()
        try:
            return next(self._iterator)
        except StopIteration:
            allowed = "must give at least one batch whenever it is called"
            remedy = "Have it make its iterator anew, as a generator function does."
            raise InputError("stream.factory", self._name, allowed, remedy) from None

    def _compare(self, batch: Any) -> None:
        first = self._stream.first
        if _like(batch) != _like(first):
            raise InputError(
                self._name,
                _told(batch),
                f"must be like the first batch, {_told(first)}",
                "Drop the remainder where an epoch ends with fewer examples: drop_remainder=True in Grain.",
            )
        if self._number == 0 and not all(map(_same, jax.tree.leaves(batch), jax.tree.leaves(first))):
            raise InputError(
                "stream.factory",
                self._name,
                "differs from the first batch of an earlier call, and each wave of trials makes its own",
                "Give a fresh iterator at every call, and seed what it shuffles by.",
            )


def _tidy(name: str, batch: Any) -> Any:
    if isinstance(batch, Examples) or (type(batch) in (tuple, list) and len(batch) == 2):
        x, y = batch
        return tidy_examples(name, x, y, finite=False)
    leaves, tree = jax.tree.flatten(batch)
    try:
        arrays = [np.asarray(leaf) for leaf in leaves]
    except (TypeError, ValueError):
        arrays = []
    if not arrays or any(array.dtype.kind in "OSUMm" for array in arrays):
        found = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves)) or type(batch).__name__
        raise InputError(name, found, "must be a pair (x, y) or a pytree of arrays of numbers", "Encode what is none.")
    return jax.tree.unflatten(tree, [a.astype(jax.dtypes.canonicalize_dtype(a.dtype), copy=False) for a in arrays])


def _like(batch: Any) -> Any:
    return jax.tree.structure(batch), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch)]


def _told(batch: Any) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(batch))


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.tobytes() == b.tobytes()


def _packed(state: Any) -> str | None:
    """An iterator's state as JSON, None where JSON would not keep it as it is."""
    if isinstance(state, bytes):
        return json.dumps({"bytes": state.hex()})
    try:
        text = json.dumps({"json": state})
    except (TypeError, ValueError):
        return None
    return text if _unpacked(text) == state else None


def _unpacked(text: str) -> Any:
    ((kind, value),) = json.loads(text).items()
    return bytes.fromhex(value) if kind == "bytes" else value
