"""Compiled groups: each is traced and compiled once, in the background where nobody waits for it yet."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.core.hparams import Hparams
from hpjax.core.program import Arrays, Program
from hpjax.engine import sharding as spread
from hpjax.engine.lowering import lowering
from hpjax.engine.segment import SegmentConfig, SegmentInputs, segment
from hpjax.engine.shapes import Lane, float_type, lane_shapes


@dataclass(frozen=True)
class Compiled:
    """A group's program, compiled for lanes of one arrangement.

    Attributes:
      segment: the executable.
      mesh: the devices.
      spread: how lanes are spread over them.
      lanes: shapes of the lanes that it carries, (devices, chunks, width, ...).
    """

    segment: Any
    mesh: jax.sharding.Mesh
    spread: str
    lanes: Lane

    @property
    def bytes(self) -> int | None:
        """What a device needs for it by XLA's own analysis: its arguments, what it gives and what it computes with."""
        found = self.segment.memory_analysis()
        if found is None:
            return None
        whole = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
        return int(whole - found.alias_size_in_bytes)

    @cached_property
    def permute(self) -> Any:
        """The executable that moves lanes between slots: compiled when lanes first retire, never again.

        ``permute(lanes, source)`` has in slot i what was in flat slot ``source[i]``.
        """
        grid = self.lanes.step.shape

        def move(lanes: Lane, source: jax.Array) -> Lane:
            def moved(x: jax.Array) -> jax.Array:
                # Gathered whole, not by a masked sum over devices, which would lose the sign of zero.
                x = lax.all_gather(x, spread.AXIS)
                return x.reshape(-1, *x.shape[3:])[source]

            result: Lane = jax.tree.map(moved, lanes)
            return result

        function = spread.per_device(move, self.mesh, (spread.SPLIT, spread.SPLIT), self.spread)
        source = jax.ShapeDtypeStruct(grid, jnp.int32)
        return function.lower(*spread.structs((self.lanes, source), self.mesh, spread.SPLIT)).compile()


def _slot_structs(h: Hparams, grid: tuple[int, ...]) -> SegmentInputs:
    whole = jax.ShapeDtypeStruct(grid, jnp.int32)
    return SegmentInputs(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(grid, x.dtype), h),
        whole,
        jax.ShapeDtypeStruct(grid, jnp.bool_),
        whole,
        whole,
        jax.ShapeDtypeStruct(grid[:1], jnp.int32),
    )


# What each program was compiled to, for as long as the program lives: a second sweep of it compiles nothing.
_compiled: WeakKeyDictionary[Program, dict[Any, Future[Compiled]]] = WeakKeyDictionary()

# What users may set of JAX that changes how a program is traced.
SETTINGS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_numpy_dtype_promotion",
    "jax_threefry_partitionable",
)

# So many compile at once: that of the group which is waited for, and those of the next.
AT_ONCE = min(4, os.cpu_count() or 1)


@cache
def _compilers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, "hpjax compiles")


def compiling(
    recipe: SegmentConfig, h: Hparams, train: Arrays, valid: Arrays, mesh: jax.sharding.Mesh, chunks: int
) -> Future[Compiled]:
    """The segment of a group, traced here and compiled in the background, ahead of time: no later call can retrace.

    Args:
      recipe: what the lanes do.
      h: hyperparameters of the group whose leaves have a dtype.
      train, valid: the splits, or their shapes; of a stream those of a block.
      mesh: the devices.
      chunks: chunks a device.
    """
    # Equal keys mean equal programs: what else the shapes depend on follows from the program and these.
    types = tuple(leaf.dtype for leaf in jax.tree.leaves(h))
    traced_by = tuple(getattr(jax.config, name) for name in SETTINGS)
    key = (recipe[2:], jax.tree.structure(h), types, mesh, chunks, float_type(), traced_by)
    known = _compiled.setdefault(recipe.program, {})
    if key in known and not (known[key].done() and known[key].exception()):
        return known[key]
    grid = (mesh.devices.size, chunks, recipe.width)
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*grid, *x.shape), x.dtype), lane_shapes(recipe.shapes))
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    split, whole = spread.SPLIT, spread.WHOLE
    specs = (split, split, whole, whole, whole, whole, whole)
    function = spread.per_device(partial(segment, recipe), mesh, specs, recipe.spread)
    arguments = (
        *spread.structs((many, _slot_structs(h, grid)), mesh, split),
        *spread.structs((scalar, jax.ShapeDtypeStruct((), jnp.bool_), scalar, train, valid), mesh, whole),
    )
    # Traced in this thread, which has the user's settings of JAX.
    with lowering(recipe.lowered):
        traced = function.lower(*arguments)
    known[key] = _compilers().submit(lambda: Compiled(traced.compile(), mesh, recipe.spread, many))
    return known[key]
