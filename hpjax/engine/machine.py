"""What a process should set of JAX before it sweeps: a CPU device a core, and compiled programs that are kept."""

import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from hpjax.core.hashing import digest


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def setup() -> None:
    """One CPU device a core, which is faster for small models, and compiled programs kept for the next run.

    What the command line does by itself: in a script of your own call it before the first use of JAX. It leaves alone
    what you have set: ``jax_num_cpu_devices``, by the environment too, and ``jax_compilation_cache_dir``. Where
    JAX is in use already the number of devices stays as it is; accelerators do not mind it. Programs are kept in
    ``$XDG_CACHE_HOME/hpjax``, by default ``~/.cache/hpjax``.

    Example:
      >>> hpx.setup()  # doctest: +SKIP
    """
    given = getattr(jax.config, "jax_num_cpu_devices", -1)
    flags = os.environ.get("XLA_FLAGS", "")
    if given == -1 and "JAX_NUM_CPU_DEVICES" not in os.environ and "host_platform_device_count" not in flags:
        with suppress(RuntimeError):  # JAX is in use already: a plan hints at the cores
            jax.config.update("jax_num_cpu_devices", cores())
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        # A folder for each kind of processor: a program for another one may not run.
        jax.config.update("jax_compilation_cache_dir", str(folder() / "xla" / fingerprint(processor())))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def folder() -> Path:
    """Where hpjax keeps what can be had again: ``$XDG_CACHE_HOME/hpjax``, by default ``~/.cache/hpjax``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpjax"


def fingerprint(*what: Any) -> str:
    """Of a program and where it runs; speeds are those of these versions of JAX and hpjax."""
    return digest(repr((*what, version("jax"), version("jaxlib"), version("hpjax"))))


@cache
def processor() -> str:
    """The kind of processor of this machine: homes are shared, and what is right for one is not for another."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else [platform.processor()]
    return digest(
        repr(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))} or lines))
    )
