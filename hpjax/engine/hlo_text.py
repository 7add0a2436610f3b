"""The text of a compiled program, optimized HLO: its computations, and the operations in each of them.

It is what ``jax.stages.Compiled.as_text()`` returns, which is not documented to stay as it is; see
https://openxla.org/xla/tiled_layout for its layouts.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

# Operations that move nothing.
FREE = frozenset(
    {"parameter", "tuple", "get-tuple-element", "constant", "bitcast", "after-all", "partition-id", "opt-barrier"}
)
FREE_CALLS = frozenset({"AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "SliceBarrier"})
# The numbers of the memories: the large one, and that on the chip, for which compilers have two, the second for a v4.
LARGE, NEAR, ON_CHIP = 0, 1, (1, 3)
BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "c64": 8, "c128": 16, "token": 0, "opaque": 0}


class ArrayType(NamedTuple):
    """The type of one array as XLA lays it out.

    Attributes:
      dtype: such as ``"f32"``.
      shape: its axes.
      layout: the numbers of the axes, from the one along which neighbours lie next to each other.
      tile: what the last axes in memory are padded to multiples of; empty where they are not.
      space: the number of the memory that holds it: ``LARGE``, ``NEAR``, or another.
    """

    dtype: str
    shape: tuple[int, ...]
    layout: tuple[int, ...]
    tile: tuple[int, ...]
    space: int

    @property
    def bytes(self) -> float:
        """Its bytes in memory, with the padding of its layout."""
        sizes = [self.shape[axis] for axis in self.layout]
        for place, size in enumerate(reversed(self.tile[-len(sizes) :] if sizes else ())):
            sizes[place] = -(-sizes[place] // size) * size
        width = BYTES.get(self.dtype) or int(re.sub(r"\D.*", "", self.dtype.lstrip("sufc")) or 0) / 8
        return width * prod(sizes)


Types = Sequence[ArrayType]


class Instruction(NamedTuple):
    """One operation of a compiled program.

    Attributes:
      name: its name, by which others refer to it.
      opcode: what it does, such as ``"fusion"``.
      types: of the arrays that it gives.
      operands: the names of what it takes.
      calls: the computations that it runs: a fusion's, the body of a loop, the branches of a condition.
      attributes: what stands behind its operands.
      root: whether the computation gives what it gives.
      number: the number of a parameter, or the value of a constant that is a whole number; else None.
    """

    name: str
    opcode: str
    types: tuple[ArrayType, ...]
    operands: tuple[str, ...]
    calls: tuple[str, ...]
    attributes: str
    root: bool
    number: int | None

    @property
    def free(self) -> bool:
        """Whether it moves and computes nothing."""
        return self.opcode in FREE or (self.opcode == "custom-call" and any(map(self.attributes.count, FREE_CALLS)))


def computations(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Returns the computations of a program, name to its instructions by their names, and the name of its entry."""
    found: dict[str, dict[str, Instruction]] = {}
    entry = name = ""
    for line in text.splitlines():
        begin = re.match(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{\s*$", line)
        if begin and " = " not in line and not line.startswith("HloModule"):
            name = begin.group(2)
            found[name] = {}
            entry = name if begin.group(1) else entry
        elif line.startswith("}"):
            name = ""
        elif name and (read := _instruction(line)) is not None:
            found[name][read.name] = read
    return found, entry


_ARRAY = re.compile(r"([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")


@lru_cache(2**12)  # the operations of a program give arrays of few types
def types_of(text: str) -> tuple[ArrayType, ...]:
    """Returns the types of the arrays in the text of a type."""
    found = []
    for dtype, shape, layout, more in _ARRAY.findall(text):
        sizes = tuple(map(int, filter(None, shape.split(","))))
        axes = tuple(map(int, filter(None, layout.split(",")))) or tuple(reversed(range(len(sizes))))
        tile = re.search(r"T\(([\d,]+)\)", more)
        space = re.search(r"S\((\d+)\)", more)
        tiles = tuple(map(int, tile.group(1).split(","))) if tile else ()
        memory = int(space.group(1)) if space else 0
        found.append(ArrayType(dtype, sizes, axes, tiles, NEAR if memory in ON_CHIP else memory))
    return tuple(found)


def _instruction(line: str) -> Instruction | None:
    """Returns the instruction that a line tells of, None for a line that tells of none."""
    begin = re.match(r"\s*(ROOT )?%?([\w.\-]+) = ", line)
    if begin is None:
        return None
    kind, rest = _split_type(line[begin.end() :])
    opcode = re.match(r"\s*([a-z][\w\-]*)\(", rest)
    if opcode is None:
        return None
    inside, attributes = _parenthesized(rest[opcode.end() - 1 :])
    calls = re.findall(r"(?:body|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", attributes)
    branches = re.search(r"(?:branch_computations|called_computations)=\{([^}]*)\}", attributes)
    calls += re.findall(r"%?([\w.\-]+)", branches.group(1)) if branches else []
    number = inside if opcode.group(1) in ("parameter", "constant") and re.fullmatch(r"-?\d+", inside) else None
    return Instruction(
        begin.group(2),
        opcode.group(1),
        types_of(kind),
        tuple(re.findall(r"%([\w.\-]+)", inside)),
        tuple(calls),
        attributes,
        begin.group(1) is not None,
        None if number is None else int(number),
    )


def _split_type(text: str) -> tuple[str, str]:
    """Returns the type with which a text begins, and the rest."""
    if text.startswith("("):
        inside, rest = _parenthesized(text)
        return inside, rest
    kind, _, rest = text.partition(" ")
    return kind, rest


def _parenthesized(text: str) -> tuple[str, str]:
    """Returns what stands between the parenthesis with which a text begins and its partner, and the rest."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return text[1 : found.start()], text[found.end() :]
    return text[1:], ""
