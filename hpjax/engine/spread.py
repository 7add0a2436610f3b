"""Spread lanes over devices: a mesh of one axis, what is split along it and what each device has whole."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from hpjax.errors import InputError

AXIS = "lanes"
SPLIT = PartitionSpec(AXIS)
WHOLE = PartitionSpec()


def local_devices(count: int | None) -> list[jax.Device]:
    """The first ``count`` local devices, all of them by default.

    Raises:
      InputError: fewer devices are there.
    """
    devices: list[jax.Device] = jax.local_devices()
    if count is None:
        return devices
    if not 1 <= count <= len(devices):
        raise InputError(
            "Sweep.devices",
            count,
            f"must lie between 1 and {len(devices)}, the number of {devices[0].platform} devices",
            "Leave it out to use them all; for more CPU devices call"
            ' jax.config.update("jax_num_cpu_devices", n) before the first use of jax.',
        )
    return devices[:count]


def memory(device: jax.Device) -> int | None:
    """Bytes that a device has for us, None where it does not say: a CPU, whose memory is the host's."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return None if limit is None else int(limit)


def mesh(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """A mesh with one axis, ``"lanes"``."""
    return jax.sharding.Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def per_device(
    function: Callable[..., Any], mesh: jax.sharding.Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """``function`` run by each device on its own part, with no communication but what it asks for."""
    # check_vma off: its checks would insert collectives that lanes do not need.
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def put(tree: Any, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> Any:
    """The arrays of ``tree`` on the devices, split along their first axis or whole on each."""
    return jax.device_put(tree, NamedSharding(mesh, spec))


def structs(tree: Any, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> Any:
    """The shapes and dtypes of ``tree`` with the sharding of ``spec``, for compiling without data."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
