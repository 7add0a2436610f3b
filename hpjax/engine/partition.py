"""How a lane is split over the devices that it spans: its batch by examples, its state whole or in parts.

XLA divides among the devices what is computed of parts, and adds the communication that this needs (Xu et al. 2021,
arXiv:2105.04663); so a program means the same however its arrays are split.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import prod
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from hpjax.core.errors import InputError, RunError, annotate_errors
from hpjax.engine.gathering import gathering
from hpjax.engine.hlo_text import computations
from hpjax.engine.shapes import Lane, ProgramShapes, unwrap_keys
from hpjax.engine.sharding import DATA, LANES, SPLIT

# Returns how an array of the state is split, from its path, "params/Dense_0/kernel", and its shape.
Rule = Callable[[str, tuple[int, ...]], PartitionSpec]

Function = TypeVar("Function", bound=Callable[..., Any])

FIELD, FSDP = "Sweep.partition", "fsdp"
# Arrays of fewer numbers stay whole: they take little memory, and parts of them would be gathered one by one.
LARGE = 2**12


class Span(NamedTuple):
    """The devices that a lane spans, and how its state is split over them.

    Attributes:
      mesh: the devices of all lanes, with the axes ``"lanes"`` and ``"data"``.
      state: for each array of the state how it is split, without the axes of lanes.
      gathers: whether weights are gathered where they meet examples; else XLA decides that.
    """

    mesh: jax.sharding.Mesh
    state: tuple[PartitionSpec, ...]
    gathers: bool

    @property
    def _inside(self) -> jax.sharding.AbstractMesh:
        """The mesh as what runs on the devices of one lane sees it: XLA divides along ``"data"`` alone."""
        inside: jax.sharding.AbstractMesh = self.mesh.abstract_mesh.update_axis_types({LANES: AxisType.Manual})
        return inside

    def constrained(self, x: Any, spec: PartitionSpec) -> Any:
        """Returns an array that is split so, without the axes of lanes."""
        return lax.with_sharding_constraint(x, NamedSharding(self._inside, spec))

    def lanes(self, lane: Lane) -> Lane:
        """Returns lanes, any axes of lanes in front, with their states split."""
        before = (None,) * lane.step.ndim
        arrays = [
            self.constrained(x, PartitionSpec(*before, *spec)) for x, spec in zip(lane.state, self.state, strict=True)
        ]
        return lane._replace(state=tuple(arrays))


# The devices of the lanes that are traced, None where each has one.
_span: ContextVar[Span | None] = ContextVar("span", default=None)


@contextmanager
def spanning(span: Span | None) -> Iterator[None]:
    """Has lanes that are traced in its body, in this thread, span devices; None for one."""
    token = _span.set(span)
    try:
        yield
    finally:
        _span.reset(token)


def divided(examples: Any) -> Any:
    """Returns a batch, or other examples, divided along their first axis among the devices of the lane that is traced.

    Numbers of examples that the devices do not divide are no error: the last device gets fewer.
    """
    span = _span.get()
    if span is None:
        return examples
    return jax.tree.map(lambda x: span.constrained(x, PartitionSpec(DATA)) if np.ndim(x) else x, examples)


def divides_examples(function: Function) -> Function:
    """Marks a function of a split that calls ``divided`` on the examples that it takes of it; others get them divided.

    A part of a split is taken of the whole, which each device has: of a split that is divided it would be exchanged.
    """
    function.divides_examples = True  # type: ignore[attr-defined]
    return function


def divided_for(function: Callable[..., Any] | None, split: Any) -> Any:
    """Returns a split as a function takes it: whole where the function divides what it takes of it, else divided."""
    return split if getattr(function, "divides_examples", False) else divided(split)


def gathered(function: Callable[..., Any], examples: Any) -> Callable[..., Any]:
    """Returns a function of a state and of ``examples`` in which weights that are split are gathered to meet them."""
    span = _span.get()
    if span is None or not span.gathers:
        return function
    return gathering(function, examples, partial(span.constrained, spec=PartitionSpec()))


def state_specs(rule: Rule | str | None, shapes: ProgramShapes, parts: int) -> tuple[PartitionSpec, ...]:
    """Returns how each array of a program's state is split over so many devices.

    Args:
      rule: None splits what the model names, along axes of the name ``"data"``; ``"fsdp"`` splits each large array
        along its largest axis that the devices divide; or a function says it of each. A single device has all.
      shapes: the shapes of the program.
      parts: the number of devices that a lane spans.

    Raises:
      InputError: the model or the function names several axes of an array, or one that the devices do not divide; or
        the function names another axis than ``"data"``.
    """
    arrays = unwrap_keys(shapes.state)
    if parts == 1:
        return (PartitionSpec(),) * len(arrays)
    if rule is None:
        each = zip(shapes.axes, shapes.names, arrays, strict=True)
        return tuple(_named(axes, name, x.shape, parts) for axes, name, x in each)
    if isinstance(rule, str):
        return tuple(_largest(x.shape, parts) for x in arrays)
    names = ["/".join(map(str, name)) for name in shapes.names]
    split = annotate_errors(FIELD, rule)
    return tuple(_checked(split(n, x.shape), n, x.shape, parts) for n, x in zip(names, arrays, strict=True))


def _named(names: Sequence[Any], name: Sequence[Any], shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """Returns the split of an array along its axis of the name ``"data"``, if it has one.

    Raises:
      InputError: it has several, or the devices do not divide it.
    """
    named = [axis for axis, each in enumerate(names) if each == DATA or (isinstance(each, tuple) and DATA in each)]
    if not named:
        return PartitionSpec()
    path = "/".join(map(str, name))
    if len(named) > 1 or named[0] >= len(shape):
        allowed = f'must have one axis of the name "data" at most, of its {len(shape)}'
        raise InputError(f"the model's axes of {path}", tuple(names), allowed, "Name the other axes None.")
    if shape[named[0]] % parts:
        allowed = f'must have an axis "data" that {parts} devices divide'
        remedy = "Write another size, or another devices_per_lane; or give the axis another name."
        raise InputError(f"the shape of {path}", shape, allowed, remedy)
    return PartitionSpec(*(None,) * named[0], DATA)


def _largest(shape: Sequence[int], parts: int) -> PartitionSpec:
    """Returns the split of an array along its largest axis that so many devices divide, if it is large."""
    axes = [axis for axis, length in enumerate(shape) if length % parts == 0]
    if prod(shape) < LARGE or not axes:
        return PartitionSpec()
    return PartitionSpec(*(None,) * max(axes, key=lambda axis: shape[axis]), DATA)


def _checked(spec: Any, name: str, shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """Returns the split that a user's function gave of an array, if it can be."""
    axes = [axis for axis, length in enumerate(shape) if length and length % parts == 0]
    could = "PartitionSpec({})".format(", ".join([*("None",) * axes[-1], '"data"'])) if axes else "PartitionSpec()"
    remedy = f"Return jax.sharding.{could}" + (", or PartitionSpec() to leave it whole." if axes else ": it is whole.")
    if not isinstance(spec, PartitionSpec):
        raise InputError(FIELD, spec, f"must give a PartitionSpec for {name}", remedy)
    axes = [axis for axis, each in enumerate(spec) if each is not None]
    if len(spec) > len(shape) or len(axes) > 1 or any(spec[axis] not in (DATA, (DATA,)) for axis in axes):
        allowed = f'must name "data", the only axis there is, once at most for {name}, of shape {shape}'
        raise InputError(FIELD, str(spec), allowed, remedy)
    if any(shape[axis] % parts for axis in axes):
        allowed = f"must split {name}, of shape {shape}, along an axis that {parts} devices divide"
        raise InputError(FIELD, str(spec), allowed, remedy)
    return PartitionSpec(*(DATA if each is not None else None for each in spec))


def lane_specs(lanes: Lane, span: Span | None) -> Any:
    """Returns how lanes, leaves (spans, chunks, width, ...), are split over all devices: a ``PartitionSpec`` each."""
    specs: Any = jax.tree.map(lambda _: SPLIT, lanes)
    if span is None:
        return specs
    return specs._replace(state=tuple(PartitionSpec(*SPLIT, None, None, *each) for each in span.state))


class WaitsForLanesError(RunError):
    """A program has devices of all lanes wait for each other, though lanes do not take equally many steps."""


def may_wait(mesh: jax.sharding.Mesh) -> bool:
    """Returns whether devices of other lanes may wait for each other: at a ``collective-permute`` XLA does on a CPU."""
    return mesh.devices.flat[0].platform == "cpu" and DATA in mesh.shape and mesh.shape[LANES] > 1


def check_exchanges(compiled: Any, mesh: jax.sharding.Mesh) -> None:
    """Raises ``WaitsForLanesError`` where a compiled program has devices of all lanes wait for each other."""
    if not may_wait(mesh):
        return
    # Outside of loops all devices come to it.
    bodies, entry = computations(compiled.as_text())
    within = (each for name, body in bodies.items() if name != entry for each in body.values())
    if any(each.opcode.startswith("collective-permute") for each in within):
        raise WaitsForLanesError(
            "the program moves examples from one device to the next (collective-permute), at which all devices of a "
            f"CPU wait, those of other lanes too. Write devices={mesh.shape[DATA]}, for one lane at a time; or have it "
            "gather examples in another order, x[jax.random.permutation(key, len(x))] in place of x[::-1]."
        )


def block_specs(block: Any, mesh: jax.sharding.Mesh) -> Any:
    """Returns how a block of batches is split, leaves (block, batch, ...): its batches among the devices of a lane.

    Batches that these do not divide evenly are whole on each device.
    """
    parts = mesh.shape.get(DATA, 1)

    def spec(x: Any) -> PartitionSpec:
        return PartitionSpec(None, DATA) if parts > 1 and x.ndim > 1 and x.shape[1] % parts == 0 else PartitionSpec()

    return jax.tree.map(spec, block)


def device_bytes(specs: Sequence[PartitionSpec], shapes: ProgramShapes, parts: int) -> int:
    """Returns the bytes that the state of a lane takes on each of the devices that it spans."""
    arrays = zip(unwrap_keys(shapes.state), specs, strict=True)
    return sum(x.size * x.dtype.itemsize // (parts if DATA in spec else 1) for x, spec in arrays)


class Exchange(NamedTuple):
    """The bytes that the devices of a lane exchange in a step, by the sizes of its arrays.

    Attributes:
      reduced: of gradients, which are summed over the devices.
      gathered: of parameters that are split, which are gathered to meet examples.
    """

    reduced: int
    gathered: int

    @classmethod
    def of(cls, specs: Sequence[PartitionSpec], shapes: ProgramShapes) -> "Exchange":
        """Returns what an optimizer of first order needs at least."""
        arrays = zip(unwrap_keys(shapes.state), specs, shapes.trained, strict=True)
        own = [(x.size * x.dtype.itemsize, DATA in spec) for x, spec, trained in arrays if trained]
        return cls(sum(size for size, _ in own), sum(size for size, split in own if split))
