"""Devices that are not there: a described slice of TPUs, or so many GPUs, for which XLA compiles ahead of time.

Parts of JAX used here that its documentation does not promise, as they are in jax 0.10.2 (the oldest that hpjax takes)
to 0.12: ``jax.experimental.topologies.get_topology_desc``. No fallback: it is the only way to describe a device.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from hpjax.core.errors import InputError, check_int
from hpjax.core.user_code import first_line
from hpjax.engine.chips import CHIPS, Chip

FIELD = "Sweep.plan.target"
# The slices that a name without a topology means, and examples of others, by chip.
SLICES = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "4x4x4"),
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "4x4x4"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "16x16"),
}
# What libtpu asks of a machine that has no TPU.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # it compiles only, so that others may have the devices
}


class Target(NamedTuple):
    """Devices that are not there.

    Attributes:
      name: as the user typed it, with how many there are.
      chip: what is published of them.
      devices: as JAX describes them; programs compile for them, and none runs.
    """

    name: str
    chip: Chip
    devices: tuple[jax.Device, ...]


def described(name: str, count: int | None = None) -> Target:
    """Returns devices that are described by a name.

    Args:
      name: a chip, ``"h100"``, or a slice of TPUs, ``"v5e:2x4"``.
      count: how many of them: of GPUs 1 by default, of a slice all.

    Raises:
      InputError: the chip or the slice is not known, or the compiler for it is not installed.
    """
    if count is not None:
        count = check_int("Sweep.plan.count", count)
    chip_name, _, topology = str(name).partition(":")
    chip = CHIPS.get(chip_name)
    if chip is None:
        examples = [f"{known}:{SLICES[known][1]}" if known in SLICES else known for known in CHIPS]
        raise InputError(FIELD, name, f"must be one of {', '.join(examples)}", 'Write target="v5e:2x4".')
    devices = _slice(name, chip, topology) if chip.platform == "tpu" else _gpus(name, chip, topology, count or 1)
    if count is not None and count > len(devices):
        allowed = f"must lie between 1 and {len(devices)}, the devices of {name}"
        raise InputError("Sweep.plan.count", count, allowed, "Leave count out, or name a larger slice.")
    own = tuple(devices[:count])
    return Target(name if chip.platform == "tpu" and count is None else f"{len(own)} × {chip.name}", chip, own)


def _slice(name: str, chip: Chip, topology: str) -> list[Any]:
    """Returns the devices of a slice of TPUs."""
    _check_libtpu(name)
    wanted, examples = topology or SLICES[chip.name][0], [f"{chip.name}:{each}" for each in SLICES[chip.name]]
    allowed, remedy = f"must be a slice that exists, such as {', '.join(examples)}", f'Write target="{examples[1]}".'
    if re.fullmatch(r"\d+(x\d+){1,2}", wanted) is None:
        raise InputError(FIELD, name, allowed, remedy)
    # The two cores of a v4 are one device of JAX.
    options = {"chip_config_name": "megacore"} if chip.name == "v4" else {}
    try:
        with _environment(TPU_ENVIRONMENT):
            return _topology("tpu", f"{chip.name}:{wanted}", **options)
    except Exception as error:  # whatever libtpu says of a slice that it does not know
        raise InputError(FIELD, name, f"{allowed}; the compiler says: {first_line(error)}", remedy) from None


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of the environment in its body, those that are not set."""
    added = wanted.keys() - os.environ.keys()
    os.environ.update({name: wanted[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _check_libtpu(name: str) -> None:
    """Raises ``InputError`` unless the compiler for TPUs is installed that this JAX was built with."""
    named = (re.match(r"libtpu\s*\(?(==[\w.*]+)", line) for line in requires("jax") or [])
    needed = next((found.group(1) for found in named if found is not None), "")
    try:
        found = version("libtpu")
    except PackageNotFoundError:
        remedy = f"Write pip install 'libtpu{needed}', or pip install 'hpjax[tpu-target]'."
        raise InputError(FIELD, name, "needs the compiler for TPUs, the package libtpu", remedy) from None
    if needed.startswith("==") and not re.fullmatch(re.escape(needed[2:]).replace(r"\*", ".*"), found):
        allowed = f"needs libtpu{needed}, which jax {jax.__version__} was built with; installed is {found}"
        raise InputError(FIELD, name, allowed, f"Write pip install 'libtpu{needed}'.")


GPU_PLUGIN = "jax-cuda13-plugin"


def _gpus(name: str, chip: Chip, topology: str, count: int) -> list[Any]:
    """Returns so many GPUs."""
    if topology:
        remedy = f'Write target="{chip.name}", count=8.'
        raise InputError(FIELD, name, f"names a GPU, which has no topology: {topology}", remedy)
    install = f"pip install {GPU_PLUGIN}=={jax.__version__}"
    try:
        found = version(GPU_PLUGIN)
    except PackageNotFoundError:
        remedy = f"Write {install}, or pip install 'hpjax[gpu-target]'."
        raise InputError(FIELD, name, f"needs the compiler for GPUs, the package {GPU_PLUGIN}", remedy) from None
    if found != jax.__version__:
        allowed = f"needs {GPU_PLUGIN} {jax.__version__}, which jax {jax.__version__} goes with; installed is {found}"
        raise InputError(FIELD, name, allowed, f"Write {install}.")
    try:
        return _topology("cuda", "", target_config=_gpu_config(chip), topology=f"1x1x{count}")
    except Exception as error:  # whatever XLA's plugin says
        allowed = f"cannot be described to {GPU_PLUGIN} {found}, which says: {first_line(error)}"
        raise InputError(FIELD, name, allowed, f"Write {install}, in an environment of its own.") from None


@cache
def _topology(platform: str, name: str, **options: str) -> list[Any]:
    """Returns the devices that JAX describes."""
    return list(topologies.get_topology_desc(name, platform, **options).devices)


def _gpu_config(chip: Chip) -> str:
    """Returns the description of a GPU of NVIDIA's Hopper generation that XLA compiles for.

    The numbers are those that the CUDA driver reports of an H100 SXM5; the H200 has the same processor.
    """
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152
  shared_memory_per_core: 233472  threads_per_core_limit: 2048  core_count: 132  fpus_per_core: 128
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: {int(chip.bandwidth)}  l2_cache_size: 52428800  clock_rate_ghz: 1.98
  device_memory_size: {chip.memory}  shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{chip.kind}"
"""
