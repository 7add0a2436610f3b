"""Compiled programs: those of each group are traced and compiled once, in the background while other groups train.

Parts of JAX used here that its documentation does not promise, as they are in jax 0.10.2 (the oldest that hpjax takes)
to 0.12:

- ``Compiled.memory_analysis()`` and its ``*_size_in_bytes`` fields. Fallback: where they are missing,
  ``Compiled.bytes`` is None, the planner goes by the size of the lanes alone, and a warning tells once.
"""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property, partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, ref

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.collector import collector_paused
from hpjax.core.fallback import warn_once
from hpjax.core.hparams import Hparams
from hpjax.core.program import Arrays, Program
from hpjax.core.threefry import lowered_for
from hpjax.engine import sharding
from hpjax.engine.constants import hoisted
from hpjax.engine.exchanges import Exchanges, exchanges_of
from hpjax.engine.lowering import lowering
from hpjax.engine.machine import keep_compiled
from hpjax.engine.moves import copier, mover
from hpjax.engine.partition import block_specs, check_exchanges, lane_specs, spanning
from hpjax.engine.segment import SegmentConfig, SegmentInputs, advance_lanes, evaluate_lanes, start_lanes
from hpjax.engine.settings import deciding_settings
from hpjax.engine.shapes import Lane, lane_shapes


class Executable(NamedTuple):
    """A function of a group's lanes, compiled ahead of time in the background; calling it waits until it is.

    Attributes:
      future: what XLA compiles, or its error.
      constants: the large arrays that the function closes over, on the devices, whole on each; its last argument.
    """

    future: Future[Any]
    constants: list[Any]

    @property
    def compiled(self) -> Any:
        """What XLA compiled; waits for it."""
        return self.future.result()

    def __call__(self, *arguments: Any) -> Any:
        """Calls what was compiled."""
        return self.compiled(*arguments, self.constants)

    @property
    def bytes(self) -> int:
        """The bytes of device memory that a call needs, by XLA's analysis.

        They are those of the arguments, the outputs and the intermediate values, without outputs that reuse the memory
        of an argument.
        """
        found = self.compiled.memory_analysis()
        total = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
        return int(total - found.alias_size_in_bytes)


class Lowered(NamedTuple):
    """A function of a group's lanes as it is compiled for its devices.

    Attributes:
      traced: what ``compile`` can be called of.
      constants: the large arrays that the function closes over, its last argument.
    """

    traced: Any
    constants: list[Any]


# The functions of a group, in the order in which they are traced and compiled: what takes longest first.
FUNCTIONS: dict[str, Callable[..., Any]] = {"advance": advance_lanes, "start": start_lanes, "evaluate": evaluate_lanes}


class Compiled:
    """The programs of a group, compiled ahead of time for exact shapes, so that no later call can retrace.

    They are traced in the thread that asks for them, because the user's settings of JAX may be local to it, and
    compiled in background threads.

    Args:
      config: what decides the programs besides shapes.
      h: the hyperparameters of the group; traced ones are leaves that have a dtype, of any shape.
      train, valid: the splits, as arrays or ``ShapeDtypeStruct``s; in place of a train split that is a stream, one
        block of batches.
      mesh: the devices.
      chunks: chunks a device, or a group of devices that share each of their lanes.

    Attributes:
      mesh: the devices that they run on.
      spread: how lanes are spread over the devices, ``"shard_map"`` or ``"pmap"``.
      lanes: ``ShapeDtypeStruct``s of the lanes that they carry, (spans, chunks, width, ...).
      specs: how these are split over the devices, a ``PartitionSpec`` each.
      seconds: how long each function took to compile, by name, of those that are compiled.
      exchanges: what the devices of a chunk of lanes exchange in a step, once ``advance`` is compiled; None where each
        lane has one device, and where JAX writes compiled programs in an unknown way.
    """

    def __init__(
        self, config: SegmentConfig, h: Hparams, train: Arrays, valid: Arrays, mesh: jax.sharding.Mesh, chunks: int
    ) -> None:
        grid = (mesh.shape[sharding.LANES], chunks, config.width)
        self.mesh, self.spread = mesh, config.spread
        # Weak, because what is known of a program lives as long as the program does.
        self._program, self._settings = ref(config.program), config[1:]
        self.lanes: Lane = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*grid, *x.shape), x.dtype), lane_shapes(config.shapes)
        )
        integer = jax.ShapeDtypeStruct((), jnp.int32)
        self.specs = lane_specs(self.lanes, config.span)
        self._per_lane = self.lanes, _input_structs(h, grid)
        whole = sharding.WHOLE
        batches = whole if config.block is None else block_specs(train, mesh)
        # What all lanes share, and how it is split over the devices that share a lane.
        self._shared: dict[str, list[tuple[Any, Any]]] = {
            "start": [],
            "advance": [(integer, whole), (train, batches)],
            "evaluate": [(config.program.evaluated(train, valid), whole)],
        }
        self._lowered: dict[str, Lowered] = {}
        self._known: dict[str, Executable] = {}
        self.seconds: dict[str, float] = {}
        self.exchanges: Exchanges | None = None

    def check(self) -> None:
        """Traces the functions as they are compiled for the devices; kept, so that ``prepare`` need not do it again.

        Raises:
          Exception: what the user's functions raise while they are traced, and JAX of what lanes cannot share.
        """
        for name in FUNCTIONS:
            if name not in self._known and name not in self._lowered:
                self._lowered[name] = self.lower(name)

    def lower(self, name: str) -> Lowered:
        """Traces one of the functions as it is compiled for its devices; raises as ``check`` does."""
        config = SegmentConfig(self._own_program, *self._settings)
        mesh, shared, function = self.mesh, self._shared[name], FUNCTIONS[name]
        split, whole = sharding.SPLIT, sharding.WHOLE
        platform = mesh.devices.flat[0].platform
        # Nearly every program draws its first state, and few draw by themselves in a step.
        with (
            collector_paused(),
            spanning(config.span),
            lowered_for(platform),
            lowering(
                config.lowered,
                config.drawn and (name == "start" or config.shapes.draws),
                fused=platform != "cpu",
                sums=platform == "cpu" and config.shapes.thin_sums,
            ),
        ):
            # Traced for one device and without the mesh, in which types of arrays would name it and those of fresh
            # constants would not: code that compares both, as equinox.nn.State.set does, took them for different.
            own = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self._per_lane)
            with_constants, constants = hoisted(partial(function, config), *own, *(each for each, _ in shared))
            specs = (split, split, *(whole for _ in shared), whole)
            given = (
                sharding.structs(self.lanes, mesh, self.specs),
                sharding.structs(self._per_lane[1], mesh, split),
                *(sharding.structs(each, mesh, spec) for each, spec in shared),
                sharding.structs(constants, mesh, whole),
            )
            placed = sharding.per_device(with_constants, mesh, specs, (self.specs, split), config.spread)
            return Lowered(placed.lower(*given), constants)

    def prepare(self, *names: str) -> bool:
        """Begins to compile some of the functions, of those that are not yet; of those that failed once more.

        Returns:
          Whether there was one to begin with.
        """
        begun = False
        for name in names:
            known = self._known.get(name)
            if known is not None and not (known.future.done() and known.future.exception()):
                continue
            begun = True
            keep_compiled()
            future: Future[Any] = Future()
            try:
                found = self._lowered.pop(name, None) or self.lower(name)
                constants = _held(self._own_program, found.constants, self.mesh)
            except Exception as error:
                future.set_exception(error)
                self._known[name] = Executable(future, [])
                continue
            future = _compile_pool().submit(self._compile, name, found.traced)
            _compiling.add(future)
            self._known[name] = Executable(future, constants)
        return begun

    def _compile(self, name: str, traced: Any) -> Any:
        """Compiles a function in a background thread, and notes how long that takes."""
        begun = time.perf_counter()
        compiled = traced.compile()
        self.seconds[name] = time.perf_counter() - begun
        check_exchanges(compiled, self.mesh)
        if name == "advance":
            self.exchanges = exchanges_of(compiled, self.mesh)
        return compiled

    def wait(self) -> "Compiled":
        """Waits until training can begin: until ``start`` and ``advance`` are compiled.

        Raises:
          Exception: what the user's functions raise while they are traced; what XLA raises, such as an error of memory.
        """
        self.prepare("advance", "start")
        for name in ("advance", "start"):
            self._known[name].future.result()
        return self

    @property
    def _own_program(self) -> Program:
        program = self._program()
        assert program is not None, "whoever compiles has the program"
        return program

    def _executable(self, name: str) -> Executable:
        if name not in self._known:  # asked for at every device call
            self.prepare(name)
        return self._known[name]

    @property
    def start(self) -> Executable:
        """The compiled ``start_lanes`` of ``hpjax.engine.segment``, for all devices."""
        return self._executable("start")

    @property
    def advance(self) -> Executable:
        """The compiled ``advance_lanes`` of ``hpjax.engine.segment``, for all devices."""
        return self._executable("advance")

    @property
    def evaluate(self) -> Executable:
        """The compiled ``evaluate_lanes`` of ``hpjax.engine.segment``, for all devices."""
        return self._executable("evaluate")

    @property
    def bytes(self) -> int | None:
        """The bytes of device memory that training needs; None, and a warning, where XLA has no analysis."""
        try:
            return max(self.start.bytes, self.advance.bytes)
        except AttributeError as error:
            warn_once(
                f"memory_analysis: jax {jax.__version__} does not say how much memory a compiled program takes on this "
                f"platform ({error}). A width that is too large shows only when it runs."
            )
            return None

    @cached_property
    def move(self) -> Any:
        """The executable that moves lanes between slots, ``mover``; compiled once, when lanes first move."""
        return mover(self.lanes, self.mesh, self.specs, self.spread)

    @cached_property
    def copy(self) -> Any:
        """The executable that copies a lane, ``copier``; compiled once, when one is first copied."""
        return copier(self.lanes, self.mesh, self.specs, self.spread)


def _input_structs(h: Hparams, grid: tuple[int, ...]) -> SegmentInputs:
    """Returns the shapes of a segment's inputs for a grid of (spans, chunks, width)."""
    integers = jax.ShapeDtypeStruct(grid, jnp.int32)
    return SegmentInputs(
        h=jax.tree.map(lambda x: jax.ShapeDtypeStruct(grid, x.dtype), h),
        key=jax.ShapeDtypeStruct((*grid, 2), jnp.uint32),
        alive=jax.ShapeDtypeStruct(grid, jnp.bool_),
        budget=integers,
        replicate=integers,
        live_chunks=jax.ShapeDtypeStruct(grid[:1], jnp.int32),
    )


# Weak in the program, so that a second sweep of the same program compiles nothing, and a program that nobody holds any
# more takes its executables along.
_compiled: WeakKeyDictionary[Program, dict[Any, Compiled]] = WeakKeyDictionary()

# How many programs compile in parallel: that of the group which trains next and those of the groups after it. XLA
# compiles one program on one core for most of the time, so more threads than cores gain nothing.
COMPILE_THREADS = min(4, os.cpu_count() or 1)


# What the threads compile, or compiled, while anyone holds it.
_compiling: WeakSet[Future[Any]] = WeakSet()


@cache
def _compile_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(COMPILE_THREADS, "hpjax compiles")


def idle() -> bool:
    """Returns whether nothing compiles in the background."""
    return all(future.done() for future in tuple(_compiling))


def compiling(
    config: SegmentConfig, h: Hparams, train: Arrays, valid: Arrays, mesh: jax.sharding.Mesh, chunks: int
) -> Compiled:
    """Returns the programs of a group, of which none is compiled yet; an equal request gets the same ones again.

    Args:
      config, h, train, valid, mesh, chunks: as for ``Compiled``.
    """
    # Without config.program, which is the outer key, and config.shapes, which follow from the program, the kinds of its
    # hyperparameters and the data: equal keys mean equal programs.
    types = tuple(leaf.dtype for leaf in jax.tree.leaves(h))
    settings = tuple(deciding_settings().values())
    key = (config[2:], jax.tree.structure(h), types, mesh, chunks, settings)
    known = _compiled.setdefault(config.program, {})
    if key not in known:
        known[key] = Compiled(config, h, train, valid, mesh, chunks)
    return known[key]


# The large arrays that a program closes over, on the devices: its groups, and its widths, hold one copy.
_constants: WeakKeyDictionary[Program, dict[Any, tuple[Any, Any]]] = WeakKeyDictionary()


def _held(program: Program, constants: list[Any], mesh: jax.sharding.Mesh) -> list[Any]:
    """Returns arrays on the devices, whole on each; one that is there already for this program as it is."""
    known = _constants.setdefault(program, {})
    held = []
    for constant in constants:
        own: Any = id(constant)  # known keeps the array, so that no other gets its id
        if not isinstance(constant, jax.Array):  # NumPy's are another object in each trace
            content = hashlib.blake2b(np.ascontiguousarray(constant).tobytes()).digest()
            own = constant.shape, constant.dtype, content
        key = own, mesh
        if key not in known:
            known[key] = constant, sharding.put(constant, mesh, sharding.WHOLE)
        held.append(known[key][1])
    return held
