"""The functions that an Optax transformation is made of, which Optax keeps in the closures of its functions."""

from collections.abc import Callable, Iterator
from functools import cache
from types import MethodType
from typing import Any

import optax

from hpjax.core.fallback import warn_once


def functions_in(thing: Any) -> Iterator[Callable[..., Any]]:
    """Yields all functions in ``thing``: in containers, and in the closures of functions.

    Fallback: where a version of Optax keeps its functions elsewhere, they are not found, and a warning tells once.

    Args:
      thing: a transformation, a function, or a container of such.

    Example:
      >>> any("trace" in f.__qualname__ for f in functions_in(optax.sgd(0.1, momentum=0.9)))
      True
    """
    if not _adam_has_decays():
        warn_once(
            f"optimizer: optax {optax.__version__} keeps its functions where hpjax does not look. Momentum and other "
            "decays are not checked, and optax.lookahead and contrib.sam are not recognized."
        )
    yield from _functions_in(thing, set())


@cache
def _adam_has_decays() -> bool:
    """Returns whether the decays of an optimizer that has two are found."""
    found = {name for function in _functions_in(optax.adam(0.1), set()) for name, _ in variables_of(function)}
    return {"b1", "b2"} <= found


def variables_of(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Yields name and value of the variables in the closure of a function, and of the items of dicts among them."""
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
        yield name, value
        # optax.inject_hyperparams keeps its numbers in a dict, by name.
        yield from value.items() if isinstance(value, dict) else ()


def _functions_in(thing: Any, seen: set[int]) -> Iterator[Callable[..., Any]]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, dict):
        yield from _functions_in(tuple(thing.values()), seen)
    elif isinstance(thing, MethodType):
        yield from _functions_in(vars(thing.__self__), seen)
    elif isinstance(thing, tuple | list):
        for part in thing:
            yield from _functions_in(part, seen)
    elif hasattr(thing, "__code__"):
        yield thing
        for _, value in variables_of(thing):
            yield from _functions_in(value, seen)
