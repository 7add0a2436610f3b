"""The amount of work in a program, counted in its jaxpr, from which times are estimated. Pure functions.

It reads ``jax.extend.core`` and the parameters ``dimension_numbers`` of ``dot_general`` and ``conv_general_dilated``
and ``length`` of ``scan``, as they are in jax 0.10.2 (the oldest that hpjax takes) to 0.12. Fallback: any other
primitive counts by the size of its outputs, and a loop without a length as one turn. Where these three do not count as
they should, a warning tells once.
"""

import re
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from hpjax.core.fallback import warn_once

# The operand of the barriers that mark the parts of a traced program: the bytes "hpjx", which no barrier of a user's
# program is likely to have.
MARK = np.int32(0x68706A78)
# A convolution is compiled as loops or products with what packs their operands: as long as so many other operations.
CONVOLUTION = 25
# How many times as long as an addition other operations take a CPU core for each number of their outputs. Reshapes and
# broadcasts take none, since XLA computes them along with what reads them; numbers that go to other places are written
# and read; and reductions, which count by their inputs, XLA hardly vectorizes.
FREE, SERIES, MOVED, REDUCED, SORTED = 0, 3, 8, 32, 500
WEIGHTS = {
    **dict.fromkeys(("broadcast_in_dim", "copy", "iota", "reshape", "squeeze"), FREE),
    **dict.fromkeys(("cbrt", "cos", "div", "erf", "erf_inv", "exp", "exp2", "expm1", "log", "log1p"), SERIES),
    **dict.fromkeys(("logistic", "pow", "rsqrt", "sin", "sqrt", "tan", "tanh"), SERIES),
    **dict.fromkeys(("concatenate", "dynamic_slice", "dynamic_update_slice", "gather", "pad", "rev"), MOVED),
    **dict.fromkeys(("scatter", "scatter-add", "slice", "split", "transpose"), MOVED),
    "random_bits": REDUCED,
    "sort": SORTED,
}
REDUCTION = re.compile(r"reduce_(?!precision)|argm|cum|select_and_")
NARROW = (jnp.bfloat16, jnp.float16)


class Work(NamedTuple):
    """The amount of work in a part of a program, for one lane.

    Attributes:
      flops: multiplications and additions in matrix products and convolutions.
      elements: numbers in the outputs of all other operations.
      weighted: likewise, each as many times as it takes a CPU core longer than an addition.
      equations: how many operations the jaxpr has, with bodies of loops counted once; a convolution as several.
      narrow: how many of ``flops`` multiply numbers of 16 bits.
    """

    flops: float = 0.0
    elements: float = 0.0
    weighted: float = 0.0
    equations: int = 0
    narrow: float = 0.0

    @property
    def arithmetic(self) -> float:
        """The number of operations on single numbers."""
        return self.flops + self.elements

    def seconds(self, platform: str) -> float:
        """Returns the seconds that the work takes, to a factor of about two: on one CPU core, or a busy accelerator.

        The CPU core is one that runs the short loop of ``planning.pace`` in the time that is said there. Another core
        counts as slower by as many times as it takes longer for that loop.
        """
        # Fitted to the rows "to run" of experiments/benchmarks/bench.py, whose products are small. The rates of an
        # accelerator are rough: enough for choices whose costs differ by factors.
        if platform == "cpu":
            return self.flops / 160e9 + self.weighted / 27e9
        return max(self.flops / 10e12, self.elements / 100e9)

    def plus(self, other: "Work", times: float = 1) -> "Work":
        """Returns the sum of this work and ``times`` the other; the other's equations count once."""
        return Work(
            self.flops + times * other.flops,
            self.elements + times * other.elements,
            self.weighted + times * other.weighted,
            self.equations + other.equations,
            self.narrow + times * other.narrow,
        )


def mark() -> None:
    """Adds a mark to the jaxpr that is being traced, between two parts; it costs nothing and is never compiled."""
    lax.optimization_barrier(MARK)


def parts(jaxpr: core.Jaxpr) -> list[Work]:
    """Returns the work before the first mark, between each two, and after the last.

    Warns once of each operation that this version of JAX has under names that are not known here.
    """
    for name in _miscounted():
        warn_once(
            f"{name}: its work is not counted, because jax {jax.__version__} has other names for it than hpjax knows. "
            "Times that plans estimate are too short."
        )
    found = [Work()]
    for equation in jaxpr.eqns:
        if _is_mark(equation):
            found.append(Work())
        else:
            found[-1] = found[-1].plus(_work_of(equation))
    return found


def _is_mark(equation: core.JaxprEqn) -> bool:
    if equation.primitive.name != "optimization_barrier":
        return False
    first: Any = equation.invars[0]
    return isinstance(first, core.Literal) and bool(np.all(first.val == MARK))


def _work_of(equation: core.JaxprEqn) -> Work:
    name, params = equation.primitive.name, equation.params
    inner = list(core.jaxprs_in_params(params))
    if inner:
        # Branches of a condition are added up, because under vmap all of them run. The trip count of a while loop is
        # not known and counts as 1.
        total = Work()
        for jaxpr in inner:
            total = total.plus(_total(jaxpr), params.get("length", 1) if name == "scan" else 1)
        return total
    # A product of n outputs that sums over k numbers is n * k multiplications and as many additions.
    shapes: list[Any] = [v.aval for v in (*equation.invars, *equation.outvars)]
    size = sum(prod(getattr(v.aval, "shape", ())) for v in equation.outvars)
    dimensions, narrow = params.get("dimension_numbers"), shapes[:1] and getattr(shapes[0], "dtype", None) in NARROW
    if name == "dot_general" and dimensions:
        (contracted, _), _ = dimensions
        flops = 2.0 * size * prod(shapes[0].shape[axis] for axis in contracted)
        return Work(flops, equations=1, narrow=flops * narrow)
    if name == "conv_general_dilated" and dimensions:
        kernel = shapes[1].shape
        flops = 2.0 * size * prod(kernel) / kernel[dimensions.rhs_spec[0]]
        return Work(flops, equations=CONVOLUTION, narrow=flops * narrow)
    if REDUCTION.match(name):
        inputs = sum(prod(getattr(v.aval, "shape", ())) for v in equation.invars)
        return Work(elements=float(inputs), weighted=float(REDUCED * inputs), equations=1)
    return Work(elements=float(size), weighted=float(WEIGHTS.get(name, 1) * size), equations=1)


@cache
def _miscounted() -> list[str]:
    """Returns the names of operations whose floating-point operations are not counted right."""
    x = jax.ShapeDtypeStruct((2, 2, 2), jnp.float32)

    def convolved(x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, x, (1,), "VALID")

    known: dict[str, tuple[Callable[[jax.Array], Any], Work]] = {
        "dot_general": (lambda x: lax.batch_matmul(x, x), Work(2.0 * 2 * 2**3, equations=1)),
        "conv_general_dilated": (convolved, Work(2.0 * 2 * 2**2 * 2, equations=CONVOLUTION)),
        "scan": (
            lambda x: lax.scan(lambda x, _: (lax.sin(x), None), x, None, 3)[0],
            Work(0.0, 3.0 * 2**3, SERIES * 3.0 * 2**3, 1),
        ),
    }
    return [name for name, (use, work) in known.items() if _total(jax.make_jaxpr(use)(x).jaxpr) != work]


def _total(jaxpr: core.Jaxpr) -> Work:
    total = Work()
    for equation in jaxpr.eqns:
        total = total.plus(_work_of(equation))
    return total
