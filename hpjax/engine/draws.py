"""Small random draws that do not wait for each other, hashed together.

Each draw is a kernel of its own on a CPU, which takes XLA some 40 to 60 milliseconds to compile. A network draws its
weights one by one, and a key for each of them before: so drawing them in rows of one array, a row a draw, is most of
what there is to gain in the compile time of first states. The bits are the same.

It relies on the parameters of the primitives of ``jax.random``, which are not documented: ``shape`` of ``random_split``
and ``bit_width`` and ``shape`` of ``random_bits``, as they are in jax 0.10.2 (the oldest that hpjax takes) to 0.12.
Fallback: draws that have others are not put together.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.threefry import DTYPES, bits_in_rows, is_threefry, keys_in_rows

# The most numbers of all draws that are put together, with those that fill up rows: 4 MiB. Drawing is not faster in
# rows, and what fills them is for nothing.
MOST = 2**20


class Draw(NamedTuple):
    """A draw with one key.

    Attributes:
      key: the key, ().
      data: what is folded in, an integer (); None for other draws.
      size: how many numbers are drawn.
      bit_width: of these, less than 64; None where keys are drawn.
      shape: that of the result.
    """

    key: jax.Array
    data: Any
    size: int
    bit_width: int | None
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, args: Sequence[Any], params: dict[str, Any]) -> "Draw | None":
        """Returns the draw of a primitive by its name; None where it is none that can be put together with others."""
        key, *rest = args
        if not is_threefry(key) or key.shape != ():
            return None
        shape, width = tuple(params.get("shape", ())), params.get("bit_width")
        if name == "random_fold_in":
            return cls(key, rest[0], 1, None, ()) if jnp.shape(rest[0]) == () else None
        if name == "random_split":
            return cls(key, None, prod(shape), None, shape)
        known = name == "random_bits" and width in DTYPES and 0 < prod(shape) <= MOST
        return cls(key, None, prod(shape), width, shape) if known else None

    @property
    def kind(self) -> Any:
        """What draws must have in common to be put together."""
        return self.data is None, self.bit_width, self.key.dtype


def together(draws: Sequence[Draw]) -> list[jax.Array]:
    """Returns what each of the draws gives."""
    found: dict[int, jax.Array] = {}
    for numbers in _groups(draws):
        found |= zip(numbers, _in_rows([draws[i] for i in numbers]), strict=True)
    return [found[i] for i in range(len(draws))]


def _groups(draws: Sequence[Draw]) -> Iterator[list[int]]:
    """Yields the numbers of draws of one kind and of similar size."""
    kinds: dict[Any, list[int]] = {}
    for i in sorted(range(len(draws)), key=lambda i: -draws[i].size):
        kinds.setdefault(draws[i].kind, []).append(i)
    for numbers in kinds.values():
        group: list[int] = []
        for i in numbers:
            # No more for nothing than what is drawn, unless that is next to nothing.
            more = [draws[j].size for j in (*group, i)]
            filled, drawn = len(more) * more[0], sum(more)
            if group and filled > min(MOST, max(2 * drawn, 2**12)):
                yield group
                group = []
            group.append(i)
        yield group


def _in_rows(draws: Sequence[Draw]) -> list[jax.Array]:
    """Returns what draws of one kind give, the largest first."""
    first = draws[0]
    keys = jnp.stack([jax.random.key_data(draw.key) for draw in draws])
    count = jnp.arange(first.size, dtype=jnp.uint32)[None]
    if first.data is not None:
        count = jnp.stack([jnp.asarray(draw.data).astype(jnp.uint32) for draw in draws])[:, None]
    if first.bit_width is not None:
        rows = bits_in_rows(keys, first.bit_width, count)
        return [row[: draw.size].reshape(draw.shape) for row, draw in zip(rows, draws, strict=True)]
    rows, generator = keys_in_rows(keys, count), jax.random.key_impl(first.key)
    data = [row[: draw.size].reshape(*draw.shape, 2) for row, draw in zip(rows, draws, strict=True)]
    return [jax.random.wrap_key_data(each, impl=generator) for each in data]
