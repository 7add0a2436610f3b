"""This machine: its cores, its memory, settings of JAX that suit it, and the folder for what is kept between runs."""

import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from hpjax.core.fallback import warn_once
from hpjax.core.hashing import digest
from hpjax.engine import program_cache

# Programs that compile in fewer seconds are not kept.
SHORTEST = "jax_persistent_cache_min_compile_time_secs"


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> int:
    """Returns the bytes of memory of this host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def setup() -> None:
    """Sets up JAX for sweeps: one CPU device a core, which is faster for small models, and a cache for programs.

    The command line does this by itself. In a script of your own call it before the first use of JAX; where JAX is in
    use already, the number of devices stays as it is, and a warning says so. It changes neither
    ``jax_num_cpu_devices`` nor ``jax_compilation_cache_dir`` where you have set them, and has no effect on accelerators
    but the cache. Compiled programs are kept for the next run, as sweeps do by themselves, in
    ``$XDG_CACHE_HOME/hpjax``, by default ``~/.cache/hpjax``: 2 GiB of them, unless you set
    ``jax_enable_compilation_cache`` to False.

    Example:
      >>> hpx.setup()  # doctest: +SKIP
    """
    # getattr, because mypy does not know options of JAX.
    given = getattr(jax.config, "jax_num_cpu_devices", -1)
    flags = os.environ.get("XLA_FLAGS", "")
    if given == -1 and "JAX_NUM_CPU_DEVICES" not in os.environ and "host_platform_device_count" not in flags:
        try:
            _set("jax_num_cpu_devices", cores(), "one device computes on all cores, which is slow for small models")
        except RuntimeError:
            if jax.devices()[0].platform == "cpu" and len(jax.devices()) < cores():
                warn_once(
                    f"hpx.setup(): JAX is in use already, with {len(jax.devices())} of {cores()} CPU devices. Call it "
                    "before the first array, also before imports that make one."
                )
    keep_compiled()


def keeps_compiled() -> bool:
    """Returns whether compiled programs are kept on disk: unless ``jax_enable_compilation_cache`` is False."""
    return bool(getattr(jax.config, "jax_enable_compilation_cache", True))


def keep_compiled() -> None:
    """Keeps compiled programs for the next run in hpjax's folder, where the user has not said where or whether."""
    if not keeps_compiled() or getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    # One folder for each kind of processor: home directories are shared between machines, and a program compiled for
    # another processor may crash.
    cache = folder() / "programs" / fingerprint(processor())
    otherwise = "compiled programs are not kept for the next run"
    if not program_cache.usable(cache) or not _set("jax_compilation_cache_dir", str(cache), otherwise):
        return
    if getattr(jax.config, SHORTEST, None) == 1.0:  # JAX's default
        _set(SHORTEST, 0.3, "programs that compile fast are compiled in every run")
    program_cache.install(cache)


def _set(option: str, value: Any, otherwise: str) -> bool:
    """Sets an option of JAX; where this version has none of that name, warns once of what follows and returns False."""
    try:
        jax.config.update(option, value)
    except AttributeError:
        warn_once(f"{option}: jax {jax.__version__} has no such option, so {otherwise}.")
        return False
    return True


def folder() -> Path:
    """Returns the folder of caches, ``$XDG_CACHE_HOME/hpjax`` or ``~/.cache/hpjax``; it may be deleted any time.

    A relative ``$XDG_CACHE_HOME`` is ignored, as the XDG Base Directory Specification says.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "hpjax"


def fingerprint(*values: Any) -> str:
    """Returns a digest of the values' ``repr`` and the versions of jax, jaxlib and hpjax, as a key for caches."""
    return digest(repr((*values, *map(installed, ("jax", "jaxlib", "hpjax")))))


@cache
def installed(package: str) -> str:
    """Returns the version of an installed package; its metadata are parsed once a process."""
    return version(package)


@cache
def processor() -> str:
    """Returns a digest of this machine's kind of processor: its model and its instruction sets."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.exists() else [platform.processor()]
    return digest(
        repr(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))} or lines))
    )
