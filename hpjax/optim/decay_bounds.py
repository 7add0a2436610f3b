"""What the numbers inside Optax's own transformations must be, which Optax does not check."""

from collections.abc import Iterator
from types import MethodType
from typing import Any, NamedTuple

import jax
import optax

from hpjax.core.bounds import check_bounds

# Beyond [0, 1] an average grows without end, or alternates.
DECAYS = ("decay", "b1", "b2", "b3")
# As users know it, where Optax has another name.
CALLED = {"trace.decay": "sgd.momentum"}


class Variable(NamedTuple):
    """A variable that a function closes over."""

    function: Any
    name: str
    value: Any


def check_decays(optimizer: optax.GradientTransformation) -> None:
    """Checks momentum, b1, b2 and the decay of averages, wherever they stand in an optimizer: all lie in [0, 1].

    A transformation keeps its numbers in the closures of its functions. Where a version of Optax kept them
    elsewhere, nothing would be found, and nothing checked.

    Raises:
      InputError: one of them is a number outside.
    """
    for function, name, value in _variables(optimizer, set()):
        if function.__module__.startswith("optax.") and name in DECAYS and isinstance(value, int | float | jax.Array):
            field = f"{function.__qualname__.split('.')[0]}.{name}"
            check_bounds(f"optax.{CALLED.get(field, field)}", value, 0, 1)


def _variables(thing: Any, seen: set[int]) -> Iterator[Variable]:
    """What functions close over, however deep they stand in containers and in the closures of others."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, dict):
        yield from _variables(tuple(thing.values()), seen)
    elif isinstance(thing, MethodType):
        yield from _variables(vars(thing.__self__), seen)
    elif isinstance(thing, tuple | list):
        for part in thing:
            yield from _variables(part, seen)
    elif hasattr(thing, "__code__"):
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # it has none yet
                continue
            yield Variable(thing, name, value)
            # inject_hyperparams keeps them by name.
            yield from (Variable(thing, *item) for item in value.items()) if isinstance(value, dict) else ()
            yield from _variables(value, seen)
