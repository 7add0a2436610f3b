"""Finds the Python functions that a traced program keeps: those it calls on the host, and rules not traced yet.

It reads ``jax.extend.core`` and, of any equation, the parameters that are callable, as they are in jax 0.10.2 (the
oldest that hpjax takes) to 0.12. Fallback: a primitive of another name keeps functions that are not found.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jax.extend import core

# The rule of a custom_vmap is traced when lanes are vectorized, which the trace of one lane does not show. The rules of
# custom derivatives are not among them: where a program differentiates, its trace has what they gave.
RULES = ("custom_vmap_call",)


def kept_functions(jaxpr: core.Jaxpr) -> Iterator[Callable[..., Any]]:
    """Yields the Python functions that a jaxpr keeps, those of nested jaxprs among them, in its order."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if "callback" in name or name in RULES:
            yield from (value for value in equation.params.values() if callable(value))
        for inner in core.jaxprs_in_params(equation.params):
            yield from kept_functions(inner)
