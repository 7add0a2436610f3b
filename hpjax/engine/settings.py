"""The settings of JAX that a run depends on: those that decide its bits, and those that would end it.

The names in ``DECIDING`` and ``SWITCHES`` are those of ``jax.config``, and of functions of ``jax``, in jax 0.10.2 (the
oldest that hpjax takes) to 0.12. Fallback: what a version of JAX has no more is None, and a warning tells once, since
under another name it could make two programs different that pass for one.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import Any, TypeVar

import jax

from hpjax.core.errors import InputError
from hpjax.core.fallback import warn_once

Setting = bool | int | str | None

# The settings that change a program that is traced, or how XLA compiles it; the last bits and more depend on them.
DECIDING = (
    "jax_allow_f16_reductions",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_high_dynamic_range_gumbel",
    "jax_numpy_dtype_promotion",
    "jax_optimization_level",
    "jax_random_seed_offset",
    "jax_softmax_custom_jvp",
    "jax_threefry_gpu_kernel_lowering",
    "jax_threefry_partitionable",
    "jax_use_direct_linearize",
)

# The switches that are off while hpjax traces, compiles and computes, each with the value that means off. With the
# first two on, one lane that diverges would end the run of all; with the others some or all programs do not run.
SWITCHES: dict[str, Any] = {
    "debug_nans": False,
    "debug_infs": False,
    "disable_jit": False,
    "check_tracer_leaks": False,
    "debug_key_reuse": False,
    "no_tracing": False,
    "no_execution": False,
    "transfer_guard_host_to_device": "allow",
    "transfer_guard_device_to_host": "allow",
    "transfer_guard_device_to_device": "allow",
}
# These cannot be turned off for a while, and make no program of lanes.
REFUSED = (
    "jax_error_checking_behavior_divide",
    "jax_error_checking_behavior_nan",
    "jax_error_checking_behavior_oob",
)

# Flags of XLA that decide no bit: how many CPU devices there are, and how it compiles in parallel and writes dumps.
NEUTRAL_FLAGS = ("--xla_force_host_platform_device_count", "--xla_cpu_parallel_codegen_split_count", "--xla_dump")

T = TypeVar("T")


def deciding_settings() -> dict[str, Setting]:
    """Returns the settings of JAX that decide bits, by name, as JSON has them."""
    found = {name: _value_of(name) for name in DECIDING}
    return {name: value.value if isinstance(value, Enum) else value for name, value in found.items()}


def xla_flags() -> str:
    """Returns the flags of XLA that may decide bits, in alphabetical order."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(sorted(flag for flag in flags if not flag.startswith(NEUTRAL_FLAGS)))


def switched_on() -> list[str]:
    """Returns the settings that ``undisturbed`` turns off, of those that are on, as ``jax.config`` names them."""
    values = {f"jax_{name}": _value_of(f"jax_{name}") for name in SWITCHES}
    return [name for name, value in values.items() if value is True or str(value).startswith("disallow")]


def _value_of(name: str) -> Any:
    """Returns a setting of JAX; None, and a warning, where this version has none of that name."""
    try:
        return getattr(jax.config, name)
    except AttributeError:
        warn_once(f"{name}: jax {jax.__version__} has no such setting. If it has another name now, nobody looks at it.")
        return None


def check_settings() -> None:
    """Raises ``InputError`` unless lanes can be computed under JAX's settings, without regard to each other."""
    generator = str(_value_of("jax_default_prng_impl"))
    if "rbg" in generator:
        raise InputError(
            "jax_default_prng_impl",
            generator,
            "must be threefry2x32: under vmap rbg makes a lane's random numbers depend on its neighbours",
            'Call jax.config.update("jax_default_prng_impl", "threefry2x32").',
        )
    for name in REFUSED:
        value = getattr(jax.config, name, "ignore")
        if str(value) != "ignore":
            allowed = "must be ignore: JAX cannot check programs that compute several lanes"
            raise InputError(name, str(value), allowed, f'Call jax.config.update("{name}", "ignore").')


@contextmanager
def undisturbed() -> Iterator[None]:
    """Turns JAX's debugging switches off for its body, in this thread."""
    with ExitStack() as stack:
        on = switched_on()
        for name, off in SWITCHES.items():
            if f"jax_{name}" in on:
                stack.enter_context(getattr(jax, name)(off))
        yield


def each_undisturbed(items: Iterable[T]) -> Iterator[T]:
    """Yields items that are made undisturbed; whoever takes them has the switches as they are."""
    iterator, nothing = iter(items), object()

    def following() -> Any:
        return next(iterator, nothing)

    try:
        while True:
            with undisturbed():
                item = following()
            if item is nothing:
                return
            yield item
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            with undisturbed():
                close()
