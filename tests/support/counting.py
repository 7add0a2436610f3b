"""Compilations, counted by a listener on JAX's compile events."""

from contextlib import contextmanager

import jax

# The programs of a group.
OF_A_GROUP = ["jit(advance_lanes)", "jit(evaluate_lanes)", "jit(start_lanes)"]
COMPILED = "/jax/core/compile/backend_compile_duration"
_listening: list[list[str]] = []


def _listen(event, duration, **details):
    if event == COMPILED:
        for names in _listening:
            names.append(str(details.get("fun_name", "?")))


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextmanager
def compilations():
    """A list that grows by one with every program that XLA compiles."""
    names: list[str] = []
    _listening.append(names)
    try:
        yield names
    finally:
        _listening.remove(names)


def ran(sweep, programs=1):
    """The result of a sweep, of which so many programs were compiled."""
    with compilations() as names:
        result = sweep.run(progress=False)
    assert sum("advance_lanes" in name for name in names) == programs
    return result
