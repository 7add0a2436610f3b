"""Sums over the turns of a loop that are better taken after it: one product of all turns, for one in each.

Backward through time a loop computes in each turn a gradient of all weights, and adds it to what there is, which is
read and written for that. What the product is of is often less: then the loop stacks it, as it does much else. Pure
functions.

They read ``jax.extend.core``, the parameters ``dimension_numbers`` of ``dot_general`` and ``axes`` of ``reduce_sum``,
and call ``Jaxpr.replace`` and ``debug_info.with_unknown_names``, as they are in jax 0.10.2 (the oldest that hpjax
takes) to 0.12. Fallback: loops stay as they are.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

# Operations of which the sum over turns is the same operation of the sum: numbers that change places, or their type,
# where the sum after the loop rounds once and not in each turn.
LINEAR = {"convert_element_type", "reshape", "slice", "split", "squeeze", "transpose"}


class LoopSums(NamedTuple):
    """A loop without some of the values that it carries, which are sums.

    Attributes:
      body: what a turn computes of the constants, the values that are still carried, and a turn's inputs: these values,
        a turn's outputs, and what is stacked for the sums.
      carried: the numbers of the values that are still carried.
      sums: the others, by their numbers.
      products: the products and sums of which they are parts, each with the places of its operands.
      parts: the operations that take them apart, in their order.
    """

    body: core.ClosedJaxpr
    carried: tuple[int, ...]
    sums: dict[int, Any]
    products: tuple[tuple[core.JaxprEqn, tuple["Place", ...]], ...]
    parts: tuple[core.JaxprEqn, ...]

    def totals(
        self, stacked: Sequence[jax.Array], added: Sequence[jax.Array], evaluate: Callable[..., list[Any]]
    ) -> dict[int, jax.Array]:
        """Returns the sums over all turns, by their numbers.

        Args:
          stacked: a turn's inputs, (turns, ...).
          added: what the loop stacked for the sums, (turns, ...).
          evaluate: evaluates an equation of a jaxpr for arguments.
        """
        values: dict[Any, Any] = {}
        for equation, places in self.products:
            operands = [(added if place.new else stacked)[place.number] for place in places]
            values[equation.outvars[0]] = _over_turns(equation, operands)
        for equation in self.parts:
            found = evaluate(self.body.jaxpr, equation, [values[v] for v in equation.invars])
            values.update(zip(equation.outvars, found, strict=True))
        return {number: values[v] for number, v in self.sums.items()}


class Place(NamedTuple):
    """Where an operand is after the loop: among what was stacked for the sums if it is new, else among the inputs."""

    new: bool
    number: int


def loop_sums(closed: core.ClosedJaxpr, consts: int, carried: int) -> LoopSums | None:
    """Returns a loop whose sums are taken after it where that moves fewer bytes; None where there are none.

    Args:
      closed: the body of a ``scan``.
      consts: how many constants it has.
      carried: how many values it carries.
    """
    jaxpr = closed.jaxpr
    fixed, carry, inputs = (
        jaxpr.invars[:consts],
        jaxpr.invars[consts : consts + carried],
        jaxpr.invars[consts + carried :],
    )
    made = {v: equation for equation in jaxpr.eqns for v in equation.outvars}
    used = Counter(v for equation in jaxpr.eqns for v in equation.invars if not isinstance(v, core.Literal))
    used.update(v for v in jaxpr.outvars if not isinstance(v, core.Literal))
    same = _duplicates(jaxpr)
    found: dict[tuple[Any, ...], list[_Sum]] = defaultdict(list)
    for number, (begin, end) in enumerate(zip(carry, jaxpr.outvars[:carried], strict=True)):
        added = _added(begin, end, made, used)
        if added is None or (chain := _chain(added, made)) is None:
            continue
        *parts, product = chain
        operands = tuple(same.get(v, v) for v in product.invars if not isinstance(v, core.Literal))
        if len(operands) == len(product.invars) and not set(operands) & {*fixed, *jaxpr.constvars}:
            own = tuple(dict.fromkeys(v for v in operands if v not in inputs))
            found[own].append(_Sum(number, added, product, operands, parts))
    taken = [sums for own, sums in found.items() if _bytes(own) <= _bytes(carry[each.number] for each in sums)]
    late = [each for sums in taken for each in sums]
    new = list(dict.fromkeys(v for each in late for v in each.operands if v not in inputs))
    # No more than the loop stacks anyway: one over microbatches is there to keep little of all.
    if not late or _bytes(new) > _bytes(inputs):
        return None
    numbers = {each.number for each in late}
    still = tuple(i for i in range(carried) if i not in numbers)
    outputs = [*(jaxpr.outvars[i] for i in still), *jaxpr.outvars[carried:], *new]
    body = jaxpr.replace(
        invars=[*fixed, *(carry[i] for i in still), *inputs],
        outvars=outputs,
        eqns=_needed(jaxpr.eqns, outputs),
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    places = {v: Place(False, i) for i, v in enumerate(inputs)} | {v: Place(True, i) for i, v in enumerate(new)}
    products = {id(each.product): (each.product, tuple(places[v] for v in each.operands)) for each in late}
    splits = {id(equation): equation for each in late for equation in reversed(each.parts)}
    return LoopSums(
        core.ClosedJaxpr(body, closed.consts),
        still,
        {each.number: each.added for each in late},
        tuple(products.values()),
        tuple(splits.values()),
    )


class _Sum(NamedTuple):
    """A value that a loop carries, and only adds to.

    Attributes:
      number: its number.
      added: what is added in a turn.
      product: the product or sum of which that is a part.
      operands: what it is of.
      parts: the operations by which it is a part of it, the last first.
    """

    number: int
    added: Any
    product: core.JaxprEqn
    operands: tuple[Any, ...]
    parts: list[core.JaxprEqn]


def _added(begin: Any, end: Any, made: dict[Any, core.JaxprEqn], used: Counter[Any]) -> Any:
    """Returns what a turn adds to a carried value that it uses for nothing else; None where it is no such sum."""
    if isinstance(end, core.Literal) or end not in made or used[begin] != 1 or used[end] != 1:
        return None
    equation = made[end]
    if equation.primitive.name not in ("add", "add_any") or not any(v is begin for v in equation.invars):
        return None
    (other,) = (v for v in equation.invars if v is not begin)
    return None if isinstance(other, core.Literal) else other


def _chain(value: Any, made: dict[Any, core.JaxprEqn]) -> list[core.JaxprEqn] | None:
    """Returns the operations from a value back to the product or sum of which it is a part; None if it is of none."""
    found = []
    while (equation := made.get(value)) is not None:
        found.append(equation)
        if equation.primitive.name in ("dot_general", "reduce_sum"):
            return found
        if equation.primitive.name not in LINEAR:
            return None
        (value,) = equation.invars
        if not jnp.issubdtype(value.aval.dtype, jnp.floating):
            return None
    return None


def _duplicates(jaxpr: core.Jaxpr) -> dict[Any, Any]:
    """Returns variable to an earlier one of the same value."""
    known: dict[Any, core.JaxprEqn] = {}
    same: dict[Any, Any] = {}
    for equation in jaxpr.eqns:
        if equation.effects or any(True for _ in core.jaxprs_in_params(equation.params)):
            continue
        given = [("literal", repr(v.val)) if isinstance(v, core.Literal) else same.get(v, v) for v in equation.invars]
        key = equation.primitive.name, repr(sorted(equation.params.items())), tuple(given)
        first = known.setdefault(key, equation)
        if first is not equation:
            same.update(zip(equation.outvars, first.outvars, strict=True))
    return same


def _needed(equations: Sequence[core.JaxprEqn], outputs: Iterable[Any]) -> list[core.JaxprEqn]:
    """Returns the equations on which outputs depend."""
    live, kept = {v for v in outputs if not isinstance(v, core.Literal)}, []
    for equation in reversed(equations):
        if equation.effects or not live.isdisjoint(equation.outvars):
            live.update(v for v in equation.invars if not isinstance(v, core.Literal))
            kept.append(equation)
    return kept[::-1]


def _over_turns(equation: core.JaxprEqn, operands: Sequence[jax.Array]) -> Any:
    """Returns the sum over turns of a product, or of a sum, of stacked operands."""
    if equation.primitive.name == "reduce_sum":
        return operands[0].sum((0, *(axis + 1 for axis in equation.params["axes"])))
    contracted, batch = (
        [tuple(axis + 1 for axis in axes) for axes in both] for both in equation.params["dimension_numbers"]
    )
    contracted = [(0, *axes) for axes in contracted]
    params = equation.params | {"dimension_numbers": (tuple(contracted), tuple(batch))}
    return lax.dot_general_p.bind(*operands, **params)


def _bytes(variables: Iterable[Any]) -> int:
    return sum(v.aval.size * v.aval.dtype.itemsize for v in variables)
