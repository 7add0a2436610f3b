"""Programs that move lanes between slots, and that copy one out of them, whole on each device or in parts."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from hpjax.engine import sharding
from hpjax.engine.layout import in_slots
from hpjax.engine.shapes import Lane


def mover(lanes: Lane, mesh: jax.sharding.Mesh, specs: Any, spread: str) -> Any:
    """Returns a compiled ``move(lanes, source)``.

    It gives lanes of the same shape: flat slot ``i`` of the result holds what was in flat slot ``source[i]``.
    ``source`` is int32 (spans, chunks, width).

    Args:
      lanes: ``ShapeDtypeStruct``s of the lanes, (spans, chunks, width, ...); their memory becomes that of the result.
      mesh: the devices.
      specs: how the lanes are split over them, a ``PartitionSpec`` each.
      spread: as for ``sharding.per_device``.
    """

    def move(lanes: Lane, source: jax.Array) -> Lane:
        def moved(x: jax.Array) -> jax.Array:
            # An all-gather rather than a masked sum over devices: adding 0.0 turns -0.0 into 0.0, and lanes must keep
            # every bit when they move.
            found: jax.Array = in_slots(lax.all_gather(x, sharding.LANES))[source]
            return found

        result: Lane = jax.tree.map(moved, lanes)
        return result

    function = sharding.per_device(move, mesh, (sharding.SPLIT, sharding.SPLIT), specs, spread)
    source = sharding.structs(jax.ShapeDtypeStruct(lanes.step.shape, jnp.int32), mesh, sharding.SPLIT)
    return function.lower(sharding.structs(lanes, mesh, specs), source).compile()


def copier(lanes: Lane, mesh: jax.sharding.Mesh, specs: Any, spread: str) -> Any:
    """Returns a compiled ``copy(lanes, place)``.

    It gives a lane for each row of the mesh, all equal, leaves (spans, ...), split like the lanes. ``place`` is int32
    (2,): the row of that lane, and its slot there.

    Args:
      lanes, mesh, specs, spread: as for ``mover``, but the lanes keep their memory.
    """

    def copy(lanes: Lane, place: jax.Array) -> Lane:
        def copied(x: jax.Array) -> jax.Array:
            # Of each row the lane in that slot, and of these the one: only so many lanes are exchanged.
            mine = lax.dynamic_index_in_dim(in_slots(x[None]), place[1], keepdims=False)
            found: jax.Array = lax.dynamic_index_in_dim(lax.all_gather(mine, sharding.LANES), place[0], keepdims=False)
            return found

        result: Lane = jax.tree.map(copied, lanes)
        return result

    own = jax.tree.map(lambda spec: PartitionSpec(sharding.LANES, *spec[3:]), specs, is_leaf=_is_spec)
    function = sharding.per_device(copy, mesh, (sharding.SPLIT, sharding.WHOLE), own, spread, donates=False)
    place = sharding.structs(jax.ShapeDtypeStruct((2,), jnp.int32), mesh, sharding.WHOLE)
    return function.lower(sharding.structs(lanes, mesh, specs), place).compile()


def _is_spec(x: Any) -> bool:
    return isinstance(x, PartitionSpec)
