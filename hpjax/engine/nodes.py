"""The equations of a jaxpr as nodes that can be evaluated in any order which their values allow."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

from hpjax.engine.draws import Draw
from hpjax.engine.primitives import primitive_names


class Value:
    """The value of a variable of a jaxpr, once it is known.

    Args:
      *value: the value, if it is.
    """

    def __init__(self, *value: Any) -> None:
        self._value = value

    @property
    def known(self) -> bool:
        """Whether it is known."""
        return len(self._value) == 1

    @property
    def value(self) -> Any:
        """The value, which must be known."""
        return self._value[0]

    def set(self, value: Any) -> None:
        """Makes it known."""
        self._value = (value,)


class Node(NamedTuple):
    """An equation, with the values of its variables.

    Attributes:
      jaxpr: what the equation is of.
      equation: the equation.
      inputs, outputs: the values of its variables, in their order.
      draws: whether it is to be a draw that is put together with others.
    """

    jaxpr: core.Jaxpr
    equation: core.JaxprEqn
    inputs: list[Value]
    outputs: list[Value]
    draws: bool

    @property
    def ready(self) -> bool:
        """Whether it can be evaluated."""
        return all(x.known for x in self.inputs)

    @property
    def given(self) -> list[Any]:
        """Its arguments."""
        return [x.value for x in self.inputs]

    @property
    def draw(self) -> Draw | None:
        """The draw that it is, where it can be put together with others."""
        equation = self.equation
        return Draw.of(equation.primitive.name, self.given, equation.params) if self.draws else None

    def fill(self, found: Sequence[Any]) -> None:
        """Makes its results known."""
        for place, value in zip(self.outputs, found, strict=True):
            place.set(value)


def inlined(
    closed: core.ClosedJaxpr, inputs: Sequence[Value], drawing: Collection[str]
) -> tuple[list[Node], list[Value]]:
    """Returns the equations of a jaxpr, with those of jitted functions within it that draw; and its outputs.

    Args:
      closed: the jaxpr.
      inputs: its arguments.
      drawing: the primitives that draw.
    """
    consts = [Value(const) for const in closed.consts]
    values = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*consts, *inputs], strict=True))
    nodes: list[Node] = []
    for equation in closed.jaxpr.eqns:
        given = [Value(x.val) if isinstance(x, core.Literal) else values[x] for x in equation.invars]
        name = equation.primitive.name
        inner = equation.params.get("jaxpr") if name == "jit" else None
        if isinstance(inner, core.ClosedJaxpr) and not primitive_names(inner.jaxpr).isdisjoint(drawing):
            more, outputs = inlined(inner, given, drawing)
        else:
            outputs = [Value() for _ in equation.outvars]
            more = [Node(closed.jaxpr, equation, given, outputs, name in drawing)]
        nodes += more
        values.update(zip(equation.outvars, outputs, strict=True))
    found = [Value(jnp.asarray(x.val)) if isinstance(x, core.Literal) else values[x] for x in closed.jaxpr.outvars]
    return nodes, found
