"""Spread lanes over devices: a mesh of one axis, what is split along it and what each device has whole.

With several hosts every one of them runs the same program on the devices of all, and has all arrays on its own.
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


def devices(count: int | None) -> list[jax.Device]:
    """The first ``count`` devices, all of them by default: this host's, or with several hosts those of all.

    Raises:
      InputError: fewer devices are there, or with several hosts not all are wanted.
    """
    every: list[jax.Device] = jax.devices() if jax.process_count() > 1 else jax.local_devices()
    if count is None:
        return every
    if jax.process_count() > 1 and count != len(every):
        allowed = f"must be {len(every)} or left out: {jax.process_count()} hosts share all of their devices"
        raise InputError("Sweep.devices", count, allowed, "Leave it out.")
    if not 1 <= count <= len(every):
        raise InputError(
            "Sweep.devices",
            count,
            f"must lie between 1 and {len(every)}, the number of {every[0].platform} devices",
            "Leave it out to use them all; for more CPU devices call"
            ' jax.config.update("jax_num_cpu_devices", n) before the first use of jax.',
        )
    return every[:count]


def memory() -> int | None:
    """Bytes that a device has for us, None where it does not say: a CPU, whose memory is the host's."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return None if limit is None else int(limit)


def mesh(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """A mesh with one axis, ``"lanes"``."""
    return jax.sharding.Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def per_device(
    function: Callable[..., Any], mesh: jax.sharding.Mesh, specs: tuple[PartitionSpec, ...], how: str
) -> Any:
    """``function`` run by each device on its own part, jitted, with no communication but what it asks for.

    Args:
      function: what a device does; its first argument is donated.
      mesh: the devices.
      specs: of each argument ``WHOLE``, or ``SPLIT``: of the first axis a device gets its own entry. Results are split.
      how: ``"shard_map"`` or ``"pmap"``.
    """
    if how == "pmap":
        axes = tuple(0 if spec == SPLIT else None for spec in specs)
        return jax.pmap(function, AXIS, in_axes=axes, devices=list(mesh.devices.flat), donate_argnums=0)

    def mine(*arguments: Any) -> Any:
        own = [jax.tree.map(lambda x: x[0], a) if s == SPLIT else a for a, s in zip(arguments, specs, strict=True)]
        return jax.tree.map(lambda x: x[None], function(*own))

    mine.__name__ = getattr(function, "func", function).__name__  # by which it is known in profiles
    # check_vma off: its checks would insert collectives that lanes do not need.
    shared = jax.shard_map(mine, mesh=mesh, in_specs=specs, out_specs=SPLIT, check_vma=False)
    return jax.jit(shared, donate_argnums=0)


def put(tree: Any, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> Any:
    """The arrays of ``tree`` on the devices, split along their first axis or whole on each."""
    sharding = NamedSharding(mesh, spec)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def placed(x: Any) -> jax.Array:
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(placed, tree)


def fetch(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """The arrays of ``tree`` on the host; with several hosts all of them on every one, which takes part."""
    if jax.process_count() > 1 and any(isinstance(x, jax.Array) for x in jax.tree.leaves(tree)):
        tree = _gather(mesh)(tree)
    return jax.device_get(tree)


@cache
def _gather(mesh: jax.sharding.Mesh) -> Any:
    def gathered(tree: Any) -> Any:
        return tree

    return jax.jit(gathered, out_shardings=NamedSharding(mesh, WHOLE))


def structs(tree: Any, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> Any:
    """The shapes and dtypes of ``tree`` with the sharding of ``spec``, for compiling without data."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
