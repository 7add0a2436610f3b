"""A stream: batches that the host draws one after the other, in place of a training split in memory."""

import inspect
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from hpjax.core import user_code
from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, RunError, check_int
from hpjax.core.numeric import check_integers
from hpjax.core.recordable import is_name
from hpjax.data.examples import AnyExamples, tidy_examples


# Compared by identity (eq=False), as programs are: a function cannot be compared otherwise.
@dataclass(frozen=True, eq=False)
class Stream:
    """A training split that is read batch by batch; ``hpx.data.stream`` makes it.

    Args:
      factory: ``factory()`` returns an iterable of batches that begins with the first one; or ``factory(index, count)``
        one of parts of them, see ``hpx.data.stream``.
      name: the name of the stream in errors and tables.
      block: number of batches that are copied to the devices together, 1 or more.

    Raises:
      InputError: ``factory`` is no function, ``block`` no whole number, or ``name`` no printable text.
    """

    factory: Callable[..., Iterable[Any]]
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
        if not is_name(self.name):
            raise InputError("stream.name", self.name, "must be printable text, for tables", 'Write name="tokens".')
        object.__setattr__(self, "block", check_int("stream.block", self.block))

    @cached_property
    def in_parts(self) -> bool:
        """Whether ``factory`` takes two arguments, and gives parts of batches."""
        return not _takes(self.factory) and _takes(self.factory, 0, 1)

    def open(self, part: "Part") -> Iterable[Any]:
        """Returns what ``factory`` gives of a part of each batch."""
        return self.factory(*part) if self.in_parts else self.factory()

    def drawn(self, needed: "Part", devices: int) -> "Part":
        """Returns which part of each batch a host draws that needs one: that, or all where there are no parts.

        Args:
          needed: the part.
          devices: how many devices share each batch, which must divide it.
        """
        lengths = [np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(self.first)]
        return needed if self.in_parts and all(n and n % devices == 0 for n in lengths) else Part()

    @cached_property
    def first(self) -> Any:
        """The first batch, which has the shapes and dtypes of all others; reading it calls ``factory``."""
        # Copied, since the iterator may reuse the memory for the next batch.
        return jax.tree.map(np.array, Pass(self).draw(checked=False))

    @property
    def shapes(self) -> Any:
        """Shapes and dtypes of a block, (block, batch, ...), as a pytree of ``ShapeDtypeStruct``s."""
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct((self.block, *a.shape), a.dtype), self.first)

    @property
    def block_bytes(self) -> int:
        """Size of a block in bytes."""
        return self.block * sum(int(leaf.nbytes) for leaf in jax.tree.leaves(self.first))

    def __str__(self) -> str:
        inputs = self.first.x if isinstance(self.first, AnyExamples) else self.first
        return f"stream of {' and '.join(str(leaf.shape) for leaf in jax.tree.leaves(inputs))} batches"


def _takes(function: Callable[..., Any], *arguments: Any) -> bool:
    """Returns whether a function can be called with these arguments, as far as it tells."""
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def first_batch_of(train: Any) -> Any:
    """Returns what a program sees of a training split: the first batch of a stream, else the whole split."""
    return train.first if isinstance(train, Stream) else train


class Part(NamedTuple):
    """A part of each batch: of so many equal ones, in the order of the examples."""

    number: int = 0
    total: int = 1

    def of(self, batch: Any) -> Any:
        """Returns this part of a batch."""

        def own(leaf: Any) -> Any:
            length = len(leaf) // self.total
            return leaf[self.number * length : (self.number + 1) * length]

        return batch if self.total == 1 else jax.tree.map(own, batch)


class Position(NamedTuple):
    """A position in a stream, at which its next batch begins.

    Attributes:
      batch: number of batches before it.
      state: the state of the iterator there, as JSON; None where the iterator has no ``get_state``.
      part: which part of each batch that iterator gives.
    """

    batch: int = 0
    state: str | None = None
    part: Part = Part()

    def packed(self) -> NDArray[np.uint8]:
        """Returns the position as JSON, uint8 (bytes,), so that nothing needs to be unpickled."""
        return np.frombuffer(json.dumps(self).encode(), np.uint8)

    @classmethod
    def unpacked(cls, data: NDArray[np.uint8]) -> "Position":
        """Returns the position that ``packed`` wrote.

        Args:
          data: uint8 (bytes,), which may have been damaged or written by someone else.

        Raises:
          RunError: the bytes are no position.
        """
        try:
            batch, state, (number, total) = json.loads(data.tobytes())
        except (ValueError, TypeError, RecursionError):
            batch = number = total = state = None
        whole = all(type(each) is int for each in (batch, number, total))
        if data.dtype != np.uint8 or not whole or not isinstance(state, str | None) or batch < 0:
            raise RunError("its position in the data stream cannot be read")
        return cls(batch, state, Part(number, total))


class Pass:
    """A pass over the batches of a stream, which begins again with the first batch whenever they end.

    Args:
      stream: the stream to draw from.
      position: the position to begin at.
      part: which part of each batch is drawn.
    """

    def __init__(self, stream: Stream, position: Position = Position(), part: Part = Part()) -> None:
        self._stream, self._begin, self._part = stream, position, part
        self._number = 0
        self._iterator: Iterator[Any] | None = None

    def draw(self, checked: bool = True) -> Any:
        """Returns the next batch, a pytree of NumPy arrays; a pair or a triple with weights becomes examples.

        Args:
          checked: whether the shapes and dtypes must be those of the first batch.

        Raises:
          RunError: the iterator raised an error.
          InputError: the iterator gave no batch, or one unlike the first.
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
        """Draws and drops all batches before batch number ``batch``."""
        # A stream cannot go back: where the pass was to begin later than that, it begins with the first batch.
        if self._iterator is None and self._begin.batch > batch:
            self._begin = Position()
        while max(self._number, self._begin.batch) < batch:
            self.draw()

    def position(self) -> Position:
        """Returns the position of the next batch."""
        if self._iterator is None:
            return self._begin
        tell = getattr(self._iterator, "get_state", None)
        return Position(self._number, None if tell is None else _packed(tell()), self._part)

    @property
    def _name(self) -> str:
        """The name of the next batch in errors."""
        return f"batch {self._number} of the data stream {self._stream.name!r}"

    def _fresh(self) -> Iterator[Any]:
        given = self._stream.open(self._part)
        try:
            return iter(given)
        except TypeError:
            allowed = "must give an iterable of batches"
            remedy = "Write lambda: loader, or a function that yields batches."
            raise InputError("stream.factory", type(given).__name__, allowed, remedy) from None

    def _open(self) -> None:
        """Moves a fresh iterator to the position: by ``set_state`` where it has a state, else by drawing batches."""
        self._iterator, begin = self._fresh(), self._begin
        self._begin = Position()
        if begin.state is not None:
            try:
                if begin.part != self._part:
                    raise ValueError("it is of another part of each batch")
                self._iterator.set_state(_unpacked(begin.state))  # type: ignore[attr-defined]
                self._number = begin.batch
            except Exception as error:
                again = f"{begin.batch} batches are drawn and dropped instead"
                name = self._stream.name
                warnings.warn(
                    f"the iterator of data stream {name!r} cannot restore its state: {error}. {again}.", stacklevel=2
                )
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
            remedy = "Write a generator function, or lambda: iter(loader), so that each call makes a fresh iterator."
            raise InputError("stream.factory", self._name, allowed, remedy) from None

    def _compare(self, batch: Any) -> None:
        first = self._part.of(self._stream.first)
        if _like(batch) != _like(first):
            raise InputError(
                self._name,
                _types(batch),
                f"must be like the first batch, {_types(first)}",
                "Drop the last batch of an epoch where it is smaller: drop_remainder=True in Grain.",
            )
        if self._number == 0 and not all(map(_same, jax.tree.leaves(batch), jax.tree.leaves(first))):
            raise InputError(
                "stream.factory",
                self._name,
                "differs from the first batch of an earlier call, and each wave of trials makes its own",
                "Return a fresh iterator at every call, and shuffle with a fixed seed.",
            )


ENCODE = "Encode text as numbers: np.unique(values, return_inverse=True)[1]."


def _tidy(name: str, batch: Any) -> Any:
    if _are_examples(batch):
        return tidy_examples(name, *batch, finite=False)
    leaves, tree = jax.tree.flatten(batch)
    try:
        arrays = [np.asarray(leaf) for leaf in leaves]
    except (TypeError, ValueError):
        arrays = []
    if not arrays or any(array.dtype.kind in "OSUMm" for array in arrays):
        found = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves)) or type(batch).__name__
        allowed = "must be a pair (x, y), a triple (x, y, weights) or a pytree of arrays of numbers"
        raise InputError(name, found, allowed, ENCODE)
    for array in arrays:
        check_integers(name, array)
    return jax.tree.unflatten(tree, [a.astype(jax.dtypes.canonicalize_dtype(a.dtype), copy=False) for a in arrays])


def _are_examples(batch: Any) -> bool:
    """Returns whether a batch is a pair (x, y), or a triple (x, y, weights): one whose third part are floats."""
    if isinstance(batch, AnyExamples):
        return True
    if type(batch) not in (tuple, list):
        return False
    return len(batch) == 2 or (len(batch) == 3 and _are_floats(batch[2]))


def _are_floats(values: Any) -> bool:
    try:
        return jnp.issubdtype(np.asarray(values).dtype, jnp.floating)
    except (TypeError, ValueError):
        return False


def _like(batch: Any) -> Any:
    return jax.tree.structure(batch), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch)]


def _types(batch: Any) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(batch))


def _same(a: Array, b: Array) -> bool:
    return a.tobytes() == b.tobytes()


def _packed(state: Any) -> str | None:
    """Returns an iterator's state as JSON, or None where JSON would change it."""
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
