"""Dataflow of a traced function: which inputs each output depends on, and which input it passes on unchanged.

It reads ``jax.extend.core``, as it is in jax 0.10.2 (the oldest that hpjax takes) to 0.12. Fallback: of any operation
that it does not know, each output depends on every input, and is none of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

# Operations that hold one jaxpr with the inputs and outputs of their own, and call it once.
CALLS = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"}
# Operations that give what they get, where shape and dtype stay.
IDENTITIES = {"convert_element_type", "copy", "copy_p", "optimization_barrier", "broadcast_in_dim", "reshape", "name"}


class Flow(NamedTuple):
    """How a value follows from the inputs of a function.

    Attributes:
      inputs: the numbers of the inputs that it depends on.
      same: the number of the input that it is, bit by bit; None where it is none, or is not known to be.
    """

    inputs: frozenset[int] = frozenset()
    same: int | None = None


def flows(function: Callable[..., Any], *args: Any) -> list[Flow]:
    """Returns the flow of each array that a function returns; nothing is compiled or computed.

    Args:
      function: a function that JAX can trace.
      *args: its arguments, pytrees of arrays or ``ShapeDtypeStruct``s. Their leaves, in their order, are the inputs.

    Example:
      >>> flows(lambda x, y: (x + y, y), 1.0, 2.0)
      [Flow(inputs=frozenset({0, 1}), same=None), Flow(inputs=frozenset({1}), same=1)]
    """
    traced = jax.make_jaxpr(function)(*args).jaxpr
    return _walk(traced, [Flow(frozenset({i}), i) for i in range(len(traced.invars))])


def _walk(jaxpr: core.Jaxpr, given: Sequence[Flow]) -> list[Flow]:
    """Returns the flow of each output of a jaxpr whose inputs have these flows."""
    known: dict[Any, Flow] = dict.fromkeys(jaxpr.constvars, Flow()) | dict(zip(jaxpr.invars, given, strict=True))

    def flow(atom: Any) -> Flow:
        return Flow() if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        known.update(zip(equation.outvars, _outputs(equation, [flow(v) for v in equation.invars]), strict=True))
    return [flow(v) for v in jaxpr.outvars]


def _outputs(equation: core.JaxprEqn, given: Sequence[Flow]) -> list[Flow]:
    """Returns the flow of each output of one operation."""
    name, inner = equation.primitive.name, list(core.jaxprs_in_params(equation.params))
    sizes = len(equation.invars), len(equation.outvars)
    if name in CALLS and [(len(j.invars), len(j.outvars)) for j in inner] == [sizes]:
        return _walk(inner[0], given)
    if name == "cond" and all((len(j.invars) + 1, len(j.outvars)) == sizes for j in inner):
        branches = zip(*(_walk(branch, given[1:]) for branch in inner), strict=True)
        return [_either(flows, given[0]) for flows in branches]
    if name == "select_n":
        return [_either(given[1:], given[0])]
    if name in IDENTITIES and [_type(v) for v in equation.invars] == [_type(v) for v in equation.outvars]:
        return list(given)
    return [Flow(frozenset().union(*(flow.inputs for flow in given)))] * len(equation.outvars)


def _either(cases: Sequence[Flow], chosen: Flow) -> Flow:
    """Returns the flow of a value that is one of several, as another value says."""
    if all(case == cases[0] and case.same is not None for case in cases):
        return cases[0]
    return Flow(chosen.inputs.union(*(case.inputs for case in cases)))


def _type(variable: Any) -> tuple[Any, Any]:
    return variable.aval.shape, variable.aval.dtype
