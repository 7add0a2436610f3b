"""Lanes on devices: a mesh along whose first axis lanes are split, while each device holds the data whole.

Where a lane spans several devices, they are the second axis of the mesh. With several hosts each runs the same program
on the devices of all, and each holds the values of all arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError

LANES, DATA = "lanes", "data"
SPLIT = PartitionSpec(LANES)
WHOLE = PartitionSpec()


def devices(count: int | tuple[jax.Device, ...] | None) -> list[jax.Device]:
    """Returns devices: those that are given, or the first ``count``, or all for None.

    All are those of this host, or with several hosts those of all of them.

    Raises:
      InputError: there are fewer devices, or there are several hosts and ``count`` is not the number of all devices.
    """
    if isinstance(count, tuple):
        return list(count)
    every: list[jax.Device] = jax.devices() if jax.process_count() > 1 else jax.local_devices()
    if count is None:
        return every
    if jax.process_count() > 1 and count != len(every):
        allowed = f"must be {len(every)} or left out: {jax.process_count()} hosts share all of their devices"
        raise InputError("Sweep.devices", count, allowed, f"Write devices={len(every)}, or leave devices out.")
    if not 1 <= count <= len(every):
        raise InputError(
            "Sweep.devices",
            count,
            f"must lie between 1 and {len(every)}, the number of {every[0].platform} devices",
            "Leave devices out to use them all; for more CPU devices call"
            ' jax.config.update("jax_num_cpu_devices", n) before the first use of jax.',
        )
    return every[:count]


def memory() -> int | None:
    """Returns the bytes of memory that JAX may use on a device; None for a CPU, which reports none."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return None if limit is None else int(limit)


def mesh(devices: Sequence[jax.Device], devices_per_lane: int = 1) -> jax.sharding.Mesh:
    """Returns a mesh of these devices with the axis ``"lanes"``; where a lane spans several, ``"data"`` counts them.

    Raises:
      InputError: they cannot be divided among lanes.
    """
    if devices_per_lane == 1:
        return jax.sharding.Mesh(np.array(devices), (LANES,), axis_types=(AxisType.Auto,))
    if len(devices) % devices_per_lane:
        divisors = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0]
        allowed = f"must divide {len(devices)}, the number of devices: {', '.join(map(str, divisors))}"
        nearest = min(divisors, key=lambda n: abs(n - devices_per_lane))
        fitting = len(devices) - len(devices) % devices_per_lane
        remedy = f"Write devices_per_lane={nearest}" + (f", or devices={fitting}." if fitting else ".")
        raise InputError("Sweep.devices_per_lane", devices_per_lane, allowed, remedy)
    grid = np.array(devices).reshape(-1, devices_per_lane)
    return jax.sharding.Mesh(grid, (LANES, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def per_device(
    function: Callable[..., Any],
    mesh: jax.sharding.Mesh,
    specs: tuple[PartitionSpec, ...],
    results: Any,
    how: str,
    donates: bool = True,
) -> Any:
    """Returns ``function`` jitted so that each device runs it on its own part, without implicit communication.

    Where lanes span several devices, these are one for the function: XLA divides among them what it computes.

    Args:
      function: what one device computes; its results are stacked along a new first axis, (devices, ...).
      mesh: the devices.
      specs: for each argument ``WHOLE``, or ``SPLIT`` for arrays (devices, ...) of which a device gets its own entry.
      results: how the results are split, a ``PartitionSpec`` for all or in a tree that begins like that of the results.
      how: ``"shard_map"`` or ``"pmap"``.
      donates: whether the first argument is donated.
    """
    donated = (0,) if donates else ()
    if how == "pmap":
        axes = tuple(0 if spec == SPLIT else None for spec in specs)
        return jax.pmap(function, LANES, in_axes=axes, devices=list(mesh.devices.flat), donate_argnums=donated)

    def mine(*arguments: Any) -> Any:
        own = [jax.tree.map(lambda x: x[0], a) if s == SPLIT else a for a, s in zip(arguments, specs, strict=True)]
        return jax.tree.map(lambda x: x[None], function(*own))

    mine.__name__ = function.__name__  # the name that profiles show
    # check_vma off: its checks would insert collectives that lanes do not need.
    shared = jax.shard_map(mine, mesh=mesh, in_specs=specs, out_specs=SPLIT, axis_names={LANES}, check_vma=False)
    # Said once more for arrays without elements, which XLA would rather have whole on each device.
    return jax.jit(shared, donate_argnums=donated, out_shardings=_named(mesh, results))


def put(tree: Any, mesh: jax.sharding.Mesh, specs: Any) -> Any:
    """Returns the arrays of ``tree`` on the devices.

    Args:
      tree: a pytree of arrays.
      mesh: the devices.
      specs: how they are split, a ``PartitionSpec`` for all or one for each.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, _named(mesh, specs))

    # device_put takes only devices of this host, so each host gives its own devices their parts.
    def placed(x: Any, sharding: NamedSharding) -> jax.Array:
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return _with_specs(placed, tree, mesh, specs)


def put_own(own: Any, whole: Any, mesh: jax.sharding.Mesh, specs: Any) -> Any:
    """Returns arrays on the devices of which each host has only what its own hold.

    Args:
      own: a pytree of these parts.
      whole: the same, with the shapes of the whole arrays.
      mesh: the devices.
      specs: how they are split, a ``PartitionSpec`` each.
    """
    make: Any = jax.make_array_from_process_local_data
    return jax.tree.map(lambda x, like, at: make(at, x, like.shape), own, whole, _named(mesh, specs))


# Compared by identity (eq=False): arrays cannot be compared otherwise. A leaf of a pytree, like an array.
@dataclass(frozen=True, eq=False)
class HostCopy:
    """A copy of what the devices of this host hold of an array.

    Attributes:
      shape: of the whole array.
      dtype: of the array.
      parts: device to what it holds; devices that hold the same share one array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: Mapping[jax.Device, Array]

    @property
    def one(self) -> Array:
        """What one of the devices of this host holds."""
        return next(iter(self.parts.values()))


def copies(tree: Any) -> Any:
    """Returns arrays on the devices as a tree of ``HostCopy``; what is one already stays as it is."""
    arrays, structure = jax.tree.flatten(tree)
    # Each part once, of all devices that hold it; in one call, so that all are on their way together.
    own = [[] if isinstance(x, HostCopy) else x.addressable_shards for x in arrays]
    once = jax.device_get([{str(shard.index): shard.data for shard in shards} for shards in own])
    found = [
        HostCopy(x.shape, np.dtype(x.dtype), {shard.device: np.asarray(parts[str(shard.index)]) for shard in shards})
        if shards
        else x
        for x, shards, parts in zip(arrays, own, once, strict=True)
    ]
    return jax.tree.unflatten(structure, found)


def put_copies(tree: Any, mesh: jax.sharding.Mesh, specs: Any) -> Any:
    """Returns the arrays of a tree of ``HostCopy`` on the devices; other arguments as for ``put``."""

    def placed(copy: HostCopy, sharding: NamedSharding) -> jax.Array:
        held = list(copy.parts)
        on_devices = jax.device_put([copy.parts[device] for device in held], held)
        return jax.make_array_from_single_device_arrays(copy.shape, sharding, on_devices)

    return _with_specs(placed, tree, mesh, specs)


def fetch(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Returns the arrays of ``tree`` on the host; with several hosts all must call it, and each gets all values."""
    if jax.process_count() > 1 and any(isinstance(x, jax.Array) for x in jax.tree.leaves(tree)):
        tree = _gather(mesh)(tree)
    return jax.device_get(tree)


@cache
def _gather(mesh: jax.sharding.Mesh) -> Any:
    # The identity with replicated outputs, which XLA compiles to an all-gather: it keeps every bit.
    def gathered(tree: Any) -> Any:
        return tree

    return jax.jit(gathered, out_shardings=NamedSharding(mesh, WHOLE))


def structs(tree: Any, mesh: jax.sharding.Mesh, specs: Any) -> Any:
    """Returns the shapes and dtypes of ``tree`` with shardings, to compile without data; arguments as for ``put``."""
    return _with_specs(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree, mesh, specs)


def _with_specs(function: Callable[[Any, NamedSharding], Any], tree: Any, mesh: jax.sharding.Mesh, specs: Any) -> Any:
    """Returns what a function makes of each array and its sharding."""
    named = _named(mesh, specs)
    if isinstance(named, NamedSharding):
        return jax.tree.map(lambda x: function(x, named), tree)
    return jax.tree.map(function, tree, named)


def _named(mesh: jax.sharding.Mesh, specs: Any) -> Any:
    """Returns a tree of ``PartitionSpec`` as one of shardings."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec))
