"""Bounds on the numbers inside Optax's own transformations, which Optax does not check."""

from collections.abc import Iterator
from types import MethodType
from typing import Any, NamedTuple

import jax
import optax

from hpjax.core.bounds import check_bounds

# Outside [0, 1] a moving average grows without bound or alternates.
DECAYS = ("decay", "b1", "b2", "b3")
# Optax's internal names, and those that users know.
CALLED = {"trace.decay": "sgd.momentum"}


class Variable(NamedTuple):
    """A variable in the closure of a function.

    Attributes:
      function: the function.
      name: the name of the variable.
      value: the current value.
    """

    function: Any
    name: str
    value: Any


def check_decays(optimizer: optax.GradientTransformation) -> None:
    """Raises unless momentum, b1, b2 and all decays of averages in an optimizer lie in [0, 1].

    Optax's transformations keep their numbers in the closures of their functions, and this function looks there. If a
    version of Optax kept them elsewhere, nothing would be found, and nothing checked.

    Raises:
      InputError: one of them is a number outside [0, 1].
    """
    for function, name, value in _variables(optimizer, set()):
        if function.__module__.startswith("optax.") and name in DECAYS and isinstance(value, int | float | jax.Array):
            field = f"{function.__qualname__.split('.')[0]}.{name}"
            check_bounds(f"optax.{CALLED.get(field, field)}", value, 0, 1)


def _variables(thing: Any, seen: set[int]) -> Iterator[Variable]:
    """Yields the closure variables of all functions in ``thing``: in containers, and in other closures."""
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
            except ValueError:  # the variable has no value yet
                continue
            yield Variable(thing, name, value)
            # optax.inject_hyperparams keeps its numbers in a dict, by name.
            yield from (Variable(thing, *item) for item in value.items()) if isinstance(value, dict) else ()
            yield from _variables(value, seen)
