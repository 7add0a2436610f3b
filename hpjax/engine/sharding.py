"""Lanes on devices: a mesh of one axis, along which lanes are split, while each device holds the data whole.

With several hosts each runs the same program on the devices of all, and each holds the values of all arrays.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from hpjax.core.errors import InputError

AXIS = "lanes"
SPLIT = PartitionSpec(AXIS)
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


def mesh(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """Returns a mesh of these devices with one axis, ``"lanes"``."""
    return jax.sharding.Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def per_device(
    function: Callable[..., Any], mesh: jax.sharding.Mesh, specs: tuple[PartitionSpec, ...], how: str
) -> Any:
    """Returns ``function`` jitted so that each device runs it on its own part, without implicit communication.

    Args:
      function: what one device computes; its first argument is donated, its results are stacked along a new first
        axis, (devices, ...).
      mesh: the devices.
      specs: for each argument ``WHOLE``, or ``SPLIT`` for arrays (devices, ...) of which a device gets its own entry.
      how: ``"shard_map"`` or ``"pmap"``.
    """
    if how == "pmap":
        axes = tuple(0 if spec == SPLIT else None for spec in specs)
        return jax.pmap(function, AXIS, in_axes=axes, devices=list(mesh.devices.flat), donate_argnums=0)

    def mine(*arguments: Any) -> Any:
        own = [jax.tree.map(lambda x: x[0], a) if s == SPLIT else a for a, s in zip(arguments, specs, strict=True)]
        return jax.tree.map(lambda x: x[None], function(*own))

    mine.__name__ = function.__name__  # the name that profiles show
    # check_vma off: its checks would insert collectives that lanes do not need.
    shared = jax.shard_map(mine, mesh=mesh, in_specs=specs, out_specs=SPLIT, check_vma=False)
    # Said once more for arrays without elements, which XLA would rather have whole on each device.
    return jax.jit(shared, donate_argnums=0, out_shardings=NamedSharding(mesh, SPLIT))


def put(tree: Any, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> Any:
    """Returns the arrays of ``tree`` on the devices, split along their first axis or whole on each."""
    sharding = NamedSharding(mesh, spec)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    # device_put takes only devices of this host, so each host gives its own devices their parts.
    def placed(x: Any) -> jax.Array:
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(placed, tree)


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


def structs(tree: Any, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> Any:
    """Returns the shapes and dtypes of ``tree`` with the sharding of ``spec``, to compile without data."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
