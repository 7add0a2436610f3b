"""The names that models give to axes of their parameters, as ``flax.linen.with_partitioning`` does."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# The path of a parameter in nested dicts to the names of its axes, None for an axis without one.
AxisNames = dict[tuple[str | int, ...], tuple[Any, ...]]

# One for each ``collecting_axis_names`` block that is open in this thread.
_collectors: ContextVar[tuple[AxisNames, ...]] = ContextVar("axis_names", default=())


def name_axes(names: Mapping[tuple[str | int, ...], tuple[Any, ...]]) -> None:
    """Tells the plan that traces this code the names of axes; elsewhere it does nothing."""
    for found in _collectors.get():
        found.update(names)


@contextmanager
def collecting_axis_names() -> Iterator[AxisNames]:
    """Collects the names of axes of what is traced in this block, in the thread that runs it.

    Yields:
      A dict that grows with each call of ``name_axes``.
    """
    found: AxisNames = {}
    token = _collectors.set((*_collectors.get(), found))
    try:
        yield found
    finally:
        _collectors.reset(token)


def named_axes(found: AxisNames, path: tuple[str | int, ...]) -> tuple[Any, ...]:
    """Returns the names of the axes of an array of a state: those of the parameter that its path ends with.

    Example:
      >>> named_axes({("kernel",): ("data", None)}, ("opt_state", 0, "kernel"))
      ('data', None)
    """
    own = max((own for own in found if own and path[-len(own) :] == own), key=len, default=None)
    return () if own is None else found[own]
