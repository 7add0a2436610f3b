"""Python's garbage collector, paused while programs are traced."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses the garbage collector for its body, or as a decorator for a call.

    Tracing makes many objects that stay, and few that only the collector would free. It would look through all that
    JAX and Flax hold several times, which takes as long as a fifth of the tracing.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
