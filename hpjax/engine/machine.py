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


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> int:
    """Returns the bytes of memory of this host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def setup() -> None:
    """Sets up JAX for sweeps: one CPU device a core, which is faster for small models, and a compilation cache on disk.

    The command line does this by itself. In a script of your own call it before the first use of JAX; where JAX is in
    use already, the number of devices stays as it is, and a warning says so. It changes neither
    ``jax_num_cpu_devices`` nor ``jax_compilation_cache_dir`` where you have set them, and has no effect on accelerators
    but the cache. Compiled programs are kept in ``$XDG_CACHE_HOME/hpjax``, by default ``~/.cache/hpjax``, for the next
    run.

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
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        # One folder for each kind of processor: home directories are shared between machines, and a program compiled
        # for another processor may crash.
        cache = str(folder() / "xla" / fingerprint(processor()))
        _set("jax_compilation_cache_dir", cache, "compiled programs are not kept for the next run")
        _set("jax_persistent_cache_min_compile_time_secs", 0.3, "programs that compile fast are compiled in every run")


def _set(option: str, value: Any, otherwise: str) -> None:
    """Sets an option of JAX; where this version has none of that name, warns once of what follows."""
    try:
        jax.config.update(option, value)
    except AttributeError:
        warn_once(f"{option}: jax {jax.__version__} has no such option, so {otherwise}.")


def folder() -> Path:
    """Returns the folder of caches, ``$XDG_CACHE_HOME/hpjax`` or ``~/.cache/hpjax``; it may be deleted any time.

    A relative ``$XDG_CACHE_HOME`` is ignored, as the XDG Base Directory Specification says.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "hpjax"


def fingerprint(*values: Any) -> str:
    """Returns a digest of the values' ``repr`` and the versions of jax, jaxlib and hpjax, as a key for caches."""
    return digest(repr((*values, version("jax"), version("jaxlib"), version("hpjax"))))


@cache
def processor() -> str:
    """Returns a digest of this machine's kind of processor: its model and its instruction sets."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.exists() else [platform.processor()]
    return digest(
        repr(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))} or lines))
    )
