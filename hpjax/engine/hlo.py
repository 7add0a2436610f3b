"""What a compiled program runs in each step: its kernels, the bytes they move, its loops and its collectives.

See https://openxla.org/xla/operation_semantics for the operations.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from hpjax.core.arrays import ceil_div
from hpjax.engine.hlo_text import LARGE, NEAR, ArrayType, Instruction, Types, computations

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective", "reduce-scatter", "send", "recv")
# To what the last axes of an array are padded.
_TILE = re.compile(r"T\([\d,]+\)")
# Operations that read as much of their first operand as they give, and not all of it.
SLICES = frozenset({"dynamic-slice", "slice", "gather"})
# Operations of a fusion that hand on their operand as it is.
SAME = frozenset({"bitcast", "copy", "convert", "reshape", "transpose"})


@dataclass(frozen=True)
class Traffic:
    """What the kernels of a computation do in one run of it.

    Attributes:
      kernels: how many operations run, those of loops as often as these turn.
      bytes: what they read and write in the large memory, with the padding of layouts.
      near_bytes: the same of the memory on the chip, where the compiler keeps arrays there.
      padding: how many of the bytes in both are no numbers, but fill arrays up to the sizes that layouts have.
      operations: opcode to how many of them there are.
      loops: how many loops there are, and ``open_loops`` how many of them turn until something holds that is computed.
      conditionals: how many conditions choose between computations.
      exchanges: how many times devices exchange arrays, those of loops as often as these turn.
      exchanged: the bytes of these arrays: of what an exchange takes or of what it gives, whichever is more.
    """

    kernels: float = 0.0
    bytes: float = 0.0
    near_bytes: float = 0.0
    padding: float = 0.0
    operations: Counter[str] = field(default_factory=Counter)
    loops: int = 0
    open_loops: int = 0
    conditionals: int = 0
    exchanges: float = 0.0
    exchanged: float = 0.0

    @property
    def collectives(self) -> dict[str, int]:
        """How many operations of each kind have devices exchange arrays."""
        return {name: n for name, n in self.operations.items() if name.startswith(COLLECTIVES)}


class CompiledText:
    """A compiled program, as its text tells of it.

    Args:
      text: what ``jax.stages.Compiled.as_text()`` returns.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._computations, self._entry = computations(text)

    @cached_property
    def step(self) -> Traffic:
        """What one step runs: the body of the loop over steps, within that over chunks.

        Raises:
          ValueError: there is no such loop.
        """
        for chunks in self._loops(self._entry):
            for steps in self._loops(_body(chunks)):
                padded = self.traffic(_body(steps))
                if _TILE.search(self._text) is None:
                    return padded
                bare = CompiledText(_TILE.sub("", self._text)).traffic(_body(steps))  # as if layouts had no tiles
                padding = padded.bytes + padded.near_bytes - bare.bytes - bare.near_bytes
                return replace(padded, padding=padding)
        raise ValueError("the program has no loop over steps within one over chunks")

    @cached_property
    def whole(self) -> Traffic:
        """What the whole program runs, with loops of which the turns are not known counted once."""
        return self.traffic(self._entry)

    def traffic(self, computation: str) -> Traffic:
        """Returns what a computation runs, its padding not counted apart."""
        kernels, moved, near, operations = 0.0, 0.0, 0.0, Counter[str]()
        loops = open_loops = conditionals = 0
        exchanges = exchanged = 0.0
        channels = set[str]()
        for each in self._computations[computation].values():
            if each.free:
                continue
            moved += self._bytes(computation, each, LARGE)
            near += self._bytes(computation, each, NEAR)
            if each.opcode.endswith("-done"):
                continue
            if each.opcode in ("while", "call", "conditional", "async-start"):
                inner = [self.traffic(name) for name in each.calls]
                trips = self._trips(computation, each) if each.opcode == "while" else 1
                times = 1 if trips is None else trips
                kernels += times * max((t.kernels for t in inner), default=0.0)
                moved += times * max((t.bytes for t in inner), default=0.0)
                near += times * max((t.near_bytes for t in inner), default=0.0)
                exchanges += times * max((t.exchanges for t in inner), default=0.0)
                exchanged += times * max((t.exchanged for t in inner), default=0.0)
                operations.update(sum((t.operations for t in inner), Counter()))
                loops += sum(t.loops for t in inner) + (each.opcode == "while")
                open_loops += sum(t.open_loops for t in inner) + (trips is None)
                conditionals += sum(t.conditionals for t in inner) + (each.opcode == "conditional")
                continue
            kernels += 1
            operations[each.opcode] += 1
            for place, collective in self._collectives(computation, each):
                if collective is not each:
                    # Compilers for TPUs spread one exchange over several fusions, in all of which it has its channel.
                    found = re.search(r"channel_id=(\d+)", collective.attributes)
                    channel = found.group(1) if found else collective.name
                    if channel in channels:
                        continue
                    channels.add(channel)
                    operations[collective.opcode] += 1
                exchanges += 1
                exchanged += self._exchanged(place, collective)
        counted = operations, loops, open_loops, conditionals
        return Traffic(kernels, moved, near, 0.0, *counted, exchanges, exchanged)

    def _collectives(self, computation: str, instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
        """Yields an operation of a computation if it is a collective, and those within a fusion with their own ones."""
        if instruction.opcode.startswith(COLLECTIVES):
            yield computation, instruction
        elif instruction.opcode == "fusion":
            for name in instruction.calls:
                for each in self._computations[name].values():
                    yield from self._collectives(name, each)

    def _exchanged(self, computation: str, collective: Instruction) -> float:
        """Returns the bytes of what a collective takes, or of what it gives, whichever is more."""
        around = self._computations[computation]
        taken = sum(_bytes_of(around[name].types) for name in collective.operands if name in around)
        given = _bytes_of(collective.types)
        # What begins an exchange hands on its operands, too, beside its results.
        return max(taken, given - taken if collective.opcode.endswith("-start") else given)

    def _loops(self, computation: str) -> Iterator[Instruction]:
        """Yields the loops of a computation, also of those that it calls, of which the turns are not known."""
        for each in self._computations[computation].values():
            if each.opcode == "while" and self._trips(computation, each) is None:
                yield each
            elif each.opcode in ("call", "conditional", "async-start"):
                for name in each.calls:
                    yield from self._loops(name)

    def _trips(self, computation: str, loop: Instruction) -> int | None:
        """Returns how often a loop turns, None where that is not known."""
        if (known := re.search(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)', loop.attributes)) is not None:
            return int(known.group(1))
        # Elsewhere a loop counts up, as long as its counter is less than a number.
        found = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        condition = self._computations[found.group(1)] if found else {}
        for each in condition.values():
            if each.root and each.opcode == "compare" and "direction=LT" in each.attributes:
                counter, limit = (condition.get(name) for name in each.operands)
                end = None if limit is None or limit.opcode != "constant" else limit.number
                if end is None or counter is None or (begin := self._first(computation, loop, counter)) is None:
                    return None
                return ceil_div(end - begin, self._stride(loop, counter))
        return None

    def _stride(self, loop: Instruction, counter: Instruction) -> int:
        """Returns by how much the counter of a loop grows in a turn: by 1, or more where the compiler unrolled it."""
        index = re.search(r"index=(\d+)", counter.attributes)
        body = self._computations[_body(loop)]
        (root,) = (each for each in body.values() if each.root)
        if index is None or root.opcode != "tuple":
            return 1
        counted = _behind(body, root.operands[int(index.group(1))])
        added = [body[name].number for name in counted.operands if name in body] if counted.opcode == "add" else []
        return next((number for number in added if number), 1)

    def _first(self, computation: str, loop: Instruction, counter: Instruction) -> int | None:
        """Returns the number at which the counter of a loop begins, None where that is computed."""
        around = self._computations[computation]
        index = re.search(r"index=(\d+)", counter.attributes)
        given = around.get(loop.operands[0])
        if index is None or given is None or given.opcode != "tuple":
            return None
        made = _behind(around, given.operands[int(index.group(1))])
        return made.number if made.opcode == "constant" else None

    def _bytes(self, computation: str, instruction: Instruction, space: int) -> float:
        """Returns the bytes that an operation reads and writes in one memory."""
        around, opcode = self._computations[computation], instruction.opcode
        given = [around[name].types for name in instruction.operands if name in around]
        if opcode in ("while", "call", "conditional") or opcode.endswith("-start"):
            return 0.0
        if opcode.endswith("-done"):  # what was copied meanwhile, from where its beginning took it
            begun = around[instruction.operands[0]]
            if begun.calls:  # counted by what it runs
                return 0.0
            source = [t for name in begun.operands[:1] if name in around for t in around[name].types]
            return _copied(instruction.types, source, instruction.types, space)
        if instruction.opcode == "fusion":
            return self._fusion_bytes(instruction, given, space)
        if instruction.opcode in SLICES:
            return _copied(instruction.types, given[0], instruction.types, space)
        if instruction.opcode == "dynamic-update-slice":
            return _copied(given[1], given[1], instruction.types, space)
        return sum(_bytes_of(types, space) for types in (*given, instruction.types))

    def _fusion_bytes(self, fusion: Instruction, given: Sequence[tuple[ArrayType, ...]], space: int) -> float:
        """Returns the bytes that a fusion reads and writes in a memory: of slices that it takes, only theirs."""
        inside = self._computations[fusion.calls[0]]
        users: dict[str, list[Instruction]] = {}
        for each in inside.values():
            for operand in each.operands:
                users.setdefault(operand, []).append(each)

        def ends(name: str) -> list[tuple[Instruction, str]]:
            """Returns what uses a value, behind what hands it on as it is, and the name under which it does."""
            found = []
            for user in users.get(name, []):
                found += ends(user.name) if user.opcode in SAME and not user.root else [(user, name)]
            return found

        (root,) = (each for each in inside.values() if each.root)
        results = (
            [_behind(inside, name) for name in root.operands]
            if root.opcode == "tuple"
            else [_behind(inside, root.name)]
        )
        # Updates of a parameter's part that are results are made in place: the rest of it is neither read nor written.
        updates = {
            each.name
            for each in results
            if each.opcode == "dynamic-update-slice" and _behind(inside, each.operands[0]).opcode == "parameter"
        }
        total = 0.0
        for each in inside.values():
            if each.opcode != "parameter" or each.number is None or each.number >= len(given):
                continue
            uses = ends(each.name)
            parts = (use.operands[0] == name and (use.opcode in SLICES or use.name in updates) for use, name in uses)
            if uses and all(parts):
                read = sum(_bytes_of(use.types) for use, _ in uses if use.opcode in SLICES)
                total += read if _bytes_of(given[each.number], space) else 0.0
            else:
                total += _bytes_of(given[each.number], space)
        for each, own in zip(results, fusion.types, strict=False):
            update = _bytes_of(inside[each.operands[1]].types) if each.name in updates else own.bytes
            total += update * (own.space == space)
        return total


def _behind(computation: Mapping[str, Instruction], name: str) -> Instruction:
    """Returns the operation that made a value, behind those that handed it on as it is."""
    found = computation[name]
    while found.opcode in SAME and found.operands[0] in computation:
        found = computation[found.operands[0]]
    return found


def _copied(part: Types, source: Types, place: Types, space: int) -> float:
    """Returns the bytes that copying ``part`` from a source to a place reads and writes in one memory."""
    return _bytes_of(part) * sum(end.space == space for end in (*source[:1], *place[:1]))


def _bytes_of(types: Sequence[ArrayType], space: int | None = None) -> float:
    """Returns the bytes of arrays, of all of them or of those in one memory."""
    return sum(each.bytes for each in types if space is None or each.space == space)


def _body(loop: Instruction) -> str:
    return loop.calls[0]
