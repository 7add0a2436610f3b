"""How much a program computes, counted in its jaxpr: what decides how long it takes to run and to compile. Pure."""

from math import prod
from typing import Any, NamedTuple

import numpy as np
from jax import lax
from jax.extend import core

# A number that no barrier of a user's program has.
MARK = np.int32(0x68706A78)


class Work(NamedTuple):
    """What a part of a program computes for one lane.

    Attributes:
      flops: multiplications and additions of matrix products and convolutions.
      elements: numbers that all else gives.
      equations: how many operations it is written in, loops counted once.
    """

    flops: float = 0.0
    elements: float = 0.0
    equations: int = 0

    @property
    def arithmetic(self) -> float:
        """Operations on single numbers."""
        return self.flops + self.elements

    def seconds(self, platform: str) -> float:
        """What a device takes, to an order of magnitude: on a CPU a core, on an accelerator one that is kept busy."""
        if platform == "cpu":
            return self.flops / 40e9 + self.elements / 1e9
        return self.flops / 10e12 + self.elements / 100e9

    def plus(self, other: "Work", times: float = 1) -> "Work":
        """This and so many times another."""
        flops, elements = self.flops + times * other.flops, self.elements + times * other.elements
        return Work(flops, elements, self.equations + other.equations)


def mark() -> None:
    """Marks, in the jaxpr that is traced, where one part ends and the next begins."""
    lax.optimization_barrier(MARK)


def parts(jaxpr: core.Jaxpr) -> list[Work]:
    """The work between marks."""
    found = [Work()]
    for equation in jaxpr.eqns:
        if _is_mark(equation):
            found.append(Work())
        else:
            found[-1] = found[-1].plus(_of(equation))
    return found


def _is_mark(equation: core.JaxprEqn) -> bool:
    if equation.primitive.name != "optimization_barrier":
        return False
    first: Any = equation.invars[0]
    return isinstance(first, core.Literal) and bool(np.all(first.val == MARK))


def _of(equation: core.JaxprEqn) -> Work:
    name, params = equation.primitive.name, equation.params
    inner = list(core.jaxprs_in_params(params))
    if inner:
        # Under vmap every branch of a condition is computed; how often a while loop turns is not known.
        total = Work()
        for jaxpr in inner:
            total = total.plus(_total(jaxpr), params.get("length", 1) if name == "scan" else 1)
        return total
    shapes: list[Any] = [v.aval for v in (*equation.invars, *equation.outvars)]
    size = sum(prod(getattr(v.aval, "shape", ())) for v in equation.outvars)
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return Work(2.0 * size * prod(shapes[0].shape[axis] for axis in contracted), 0, 1)
    if name == "conv_general_dilated":
        kernel = shapes[1].shape
        return Work(2.0 * size * prod(kernel) / kernel[params["dimension_numbers"].rhs_spec[0]], 0, 1)
    return Work(0, float(size), 1)


def _total(jaxpr: core.Jaxpr) -> Work:
    total = Work()
    for equation in jaxpr.eqns:
        total = total.plus(_of(equation))
    return total
