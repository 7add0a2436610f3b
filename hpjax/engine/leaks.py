"""Finds leaks: whether a function kept an array that it computed while it was traced, in a list or an attribute.

It goes by whether anything still refers to the trace, ``Tracer._trace``, an internal of JAX that is the same in jax
0.10.2 (the oldest that hpjax takes) to 0.12. Fallback: without it ``leak_of`` says that something may be kept, for
which the plan traces a program once more; a warning tells once.
"""

import gc
from collections.abc import Callable
from typing import Any
from weakref import ref

import jax

from hpjax.core.fallback import warn_once


def leak_of(tree: Any) -> Callable[[], bool]:
    """Returns a function that tells whether anything still refers to the trace that some arrays belong to.

    If so, an array of it may have been kept.

    Args:
      tree: a pytree of arrays, of which one is traced; without such a one the function says that something may be kept.
    """
    tracer = next((leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.core.Tracer)), None)
    if tracer is None:
        return lambda: True
    try:
        trace = ref(tracer._trace)
    except (AttributeError, TypeError):
        warn_once(f"Tracer._trace: jax {jax.__version__} has none, so that plans trace each program once more.")
        return lambda: True

    def alive() -> bool:
        if trace() is not None:
            # Modules and their variables refer to each other in circles. All of them are young: nothing was collected
            # while the program was traced.
            gc.collect(0)
        return trace() is not None

    return alive
