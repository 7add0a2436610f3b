"""What a process should set of JAX before it sweeps: a CPU device a core, and compiled programs that are kept."""

import os
from contextlib import suppress

import jax

from hpjax.remembered import fingerprint, folder, processor


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
