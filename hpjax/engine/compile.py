"""Compiled segments: each group is traced and compiled once, in the background while other groups train.

Parts of JAX used here that its documentation does not promise, as they are in jax 0.10.2 (the oldest that hpjax takes)
to 0.12:

- ``Compiled.memory_analysis()`` and its ``*_size_in_bytes`` fields. Fallback: where they are missing,
  ``Compiled.bytes`` is None, the planner goes by the size of the lanes alone, and a warning tells once.
"""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hpjax.core.fallback import warn_once
from hpjax.core.hparams import Hparams
from hpjax.core.program import Arrays, Program
from hpjax.engine import sharding
from hpjax.engine.constants import hoisted
from hpjax.engine.layout import in_slots
from hpjax.engine.lowering import lowering
from hpjax.engine.segment import SegmentConfig, SegmentInputs, segment
from hpjax.engine.settings import deciding_settings
from hpjax.engine.shapes import Lane, lane_shapes


@dataclass(frozen=True)
class Compiled:
    """The program of a group, compiled for a fixed number of devices, chunks and lanes a chunk.

    Attributes:
      segment: the executable; see ``hpjax.engine.segment.segment`` for its arguments, after which ``constants`` come.
      constants: the large arrays that the program closes over, on the devices, whole on each.
      mesh: the devices that it runs on.
      spread: how lanes are spread over the devices, ``"shard_map"`` or ``"pmap"``.
      lanes: ``ShapeDtypeStruct``s of the lanes that it carries, (devices, chunks, width, ...).
    """

    segment: Any
    constants: list[Any]
    mesh: jax.sharding.Mesh
    spread: str
    lanes: Lane

    @property
    def bytes(self) -> int | None:
        """The bytes of device memory that a call needs, by XLA's analysis; None, and a warning, where XLA gives none.

        They are those of the arguments, the outputs and the intermediate values, without outputs that reuse the memory
        of an argument.
        """
        try:
            found = self.segment.memory_analysis()  # None on platforms that do not analyse
            total = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
            return int(total - found.alias_size_in_bytes)
        except AttributeError as error:
            warn_once(
                f"memory_analysis: jax {jax.__version__} does not say how much memory a compiled program takes on this "
                f"platform ({error}). A width that is too large shows only when it runs."
            )
            return None

    @cached_property
    def permute(self) -> Any:
        """The executable that moves lanes between slots, compiled once, when lanes first move.

        ``permute(lanes, source)`` gives lanes of the same shape; flat slot ``i`` of the result holds what was in flat
        slot ``source[i]``. ``source`` is int32 (devices, chunks, width).
        """
        grid = self.lanes.step.shape

        def move(lanes: Lane, source: jax.Array) -> Lane:
            def moved(x: jax.Array) -> jax.Array:
                # An all-gather rather than a masked sum over devices: adding 0.0 turns -0.0 into 0.0, and lanes
                # must keep every bit when they move.
                x = lax.all_gather(x, sharding.AXIS)
                found: jax.Array = in_slots(x)[source]
                return found

            result: Lane = jax.tree.map(moved, lanes)
            return result

        function = sharding.per_device(move, self.mesh, (sharding.SPLIT, sharding.SPLIT), self.spread)
        source = jax.ShapeDtypeStruct(grid, jnp.int32)
        return function.lower(*sharding.structs((self.lanes, source), self.mesh, sharding.SPLIT)).compile()


def _input_structs(h: Hparams, grid: tuple[int, ...]) -> SegmentInputs:
    """Returns the shapes of a segment's inputs for a grid of (devices, chunks, width)."""
    integers = jax.ShapeDtypeStruct(grid, jnp.int32)
    return SegmentInputs(
        h=jax.tree.map(lambda x: jax.ShapeDtypeStruct(grid, x.dtype), h),
        trial=integers,
        alive=jax.ShapeDtypeStruct(grid, jnp.bool_),
        budget=integers,
        replicate=integers,
        live_chunks=jax.ShapeDtypeStruct(grid[:1], jnp.int32),
    )


# Weak in the program, so that a second sweep of the same program compiles nothing, and a program that nobody holds any
# more takes its executables along.
_compiled: WeakKeyDictionary[Program, dict[Any, Future[Compiled]]] = WeakKeyDictionary()

# How many programs compile in parallel: that of the group which trains next and those of the groups after it. XLA
# compiles one program on one core for most of the time, so more threads than cores gain nothing.
COMPILE_THREADS = min(4, os.cpu_count() or 1)


@cache
def _compile_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(COMPILE_THREADS, "hpjax compiles")


def lower(
    config: SegmentConfig, h: Hparams, train: Arrays, valid: Arrays, mesh: jax.sharding.Mesh, chunks: int
) -> tuple[Any, list[Any], Lane]:
    """Traces the segment of a group as it is compiled for its devices.

    Args:
      config, h, train, valid, mesh, chunks: as for ``compiling``.

    Returns:
      What ``compile`` can be called of; the large arrays that the program closes over; and the shapes of the lanes.

    Raises:
      Exception: what the user's functions raise while they are traced, and JAX of what lanes cannot share.
    """
    grid = (mesh.devices.size, chunks, config.width)
    lanes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*grid, *x.shape), x.dtype), lane_shapes(config.shapes))
    integer, flag = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.bool_)
    split, whole = sharding.SPLIT, sharding.WHOLE
    per_lane, shared = (lanes, _input_structs(h, grid)), (integer, flag, integer, (train, valid))
    with lowering(config.lowered):
        own, constants = _hoisted(config, per_lane, shared)
        function = sharding.per_device(own, mesh, (split, split, whole, whole, whole, whole, whole), config.spread)
        given = *sharding.structs(per_lane, mesh, split), *sharding.structs((*shared, constants), mesh, whole)
        return function.lower(*given), constants, lanes


def compiling(
    config: SegmentConfig, h: Hparams, train: Arrays, valid: Arrays, mesh: jax.sharding.Mesh, chunks: int
) -> Future[Compiled]:
    """Traces the segment of a group in this thread and compiles it in a background thread.

    It is compiled ahead of time for exact shapes, so that no later call can retrace. An equal request gets the same
    future again, unless it failed.

    Args:
      config: what decides the compiled program besides shapes.
      h: the hyperparameters of the group; traced ones are leaves that have a dtype, of any shape.
      train, valid: the splits, as arrays or ``ShapeDtypeStruct``s; in place of a train split that is a stream, one
        block of batches.
      mesh: the devices.
      chunks: chunks a device.

    Returns:
      The future; what XLA raises, such as an error of memory, and what the user's functions raise while they are
      traced, comes out of its ``result()``.
    """
    # Without config.program, which is the outer key, and config.shapes, which follow from the program, the kinds of its
    # hyperparameters and the data: equal keys mean equal programs.
    types = tuple(leaf.dtype for leaf in jax.tree.leaves(h))
    settings = tuple(deciding_settings().values())
    key = (config[2:], jax.tree.structure(h), types, mesh, chunks, settings)
    known = _compiled.setdefault(config.program, {})
    if key in known and not (known[key].done() and known[key].exception()):
        return known[key]
    # Traced in this thread, because the user's settings of JAX may be local to it.
    try:
        traced, constants, lanes = lower(config, h, train, valid, mesh, chunks)
        constants = _held(config.program, constants, mesh)
    except Exception as error:
        failed: Future[Compiled] = Future()
        failed.set_exception(error)
        return failed
    known[key] = _compile_pool().submit(lambda: Compiled(traced.compile(), constants, mesh, config.spread, lanes))
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


def _hoisted(config: SegmentConfig, per_lane: Any, shared: Any) -> tuple[Any, list[Any]]:
    """Returns the segment of one device with its large constants as the last argument, and these constants."""
    if not config.shapes.constant_bytes:  # spares a trace

        def without(*arguments: Any) -> Any:
            return segment(config, *arguments[:-1])

        without.__name__ = segment.__name__  # the name that profiles show
        return without, []
    own = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), per_lane)
    return hoisted(partial(segment, config), *own, *shared)
