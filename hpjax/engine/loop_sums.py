"""Sums over the turns of a loop that are better taken after it: one product of all turns, for one in each.

Backward through time a loop computes in each turn a gradient of all weights, and adds it to the sum of those before,
which is read and written for that. The operands of such a product are often smaller than the weights: then the loop
stacks them, as it stacks its other outputs. Pure functions.

They read ``jax.extend.core``, the primitives ``add``, ``add_any``, ``dot_general`` with ``dimension_numbers``,
``reduce_sum`` with ``axes`` and those of ``LINEAR``, and call ``Jaxpr.replace`` and
``debug_info.with_unknown_names``, as they are in jax 0.10.2 (the oldest that hpjax takes) to 0.12. Fallback: loops stay
as they are.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from hpjax.engine.conv_kernels import NotRewrittenError
from hpjax.engine.fused_kernels import product

# Operations of which the sum over turns is the same operation of the sum: numbers that change places, or that are
# rounded, which the sum after the loop is once and not in each turn.
LINEAR = {"convert_element_type", "reshape", "slice", "split", "squeeze", "transpose"}


class LoopSums(NamedTuple):
    """A loop without some of the values that it carries, which are sums.

    Attributes:
      body: what a turn computes of the constants, the values that are still carried, and a turn's inputs: these values,
        a turn's outputs, and further operands of products.
      carried: the numbers of the values that are still carried.
      sums: number to variable of the others.
      products: the products and reductions that they are, or are parts of; each with the places of its operands among a
        turn's inputs, its outputs and the further operands, one after the other.
      parts: the operations that take them apart, in their order.
    """

    body: core.ClosedJaxpr
    carried: tuple[int, ...]
    sums: dict[int, Any]
    products: tuple[tuple[core.JaxprEqn, tuple[int, ...]], ...]
    parts: tuple[core.JaxprEqn, ...]

    def totals(self, stacked: Sequence[jax.Array], evaluate: Callable[..., list[Any]]) -> dict[int, jax.Array]:
        """Returns the sums over all turns, by their numbers.

        Args:
          stacked: a turn's inputs, its outputs and the further operands, each (turns, ...).
          evaluate: evaluates an equation of a jaxpr for arguments.
        """
        values: dict[Any, Any] = {}
        for equation, places in self.products:
            values[equation.outvars[0]] = _over_turns(equation, [stacked[place] for place in places])
        for equation in self.parts:
            found = evaluate(self.body.jaxpr, equation, [values[v] for v in equation.invars])
            values.update(zip(equation.outvars, found, strict=True))
        return {number: values[v] for number, v in self.sums.items()}


def loop_sums(closed: core.ClosedJaxpr, consts: int, carried: int) -> LoopSums | None:
    """Returns a loop whose sums are taken after it where their operands are smaller; None where there are none.

    Args:
      closed: the body of a ``scan``.
      consts: how many constants it has.
      carried: how many values it carries.
    """
    jaxpr, last = closed.jaxpr, consts + carried
    fixed, carry, inputs = jaxpr.invars[:consts], jaxpr.invars[consts:last], jaxpr.invars[last:]
    outputs = jaxpr.outvars[carried:]
    stacked = {v: i for i, v in enumerate([*inputs, *outputs]) if not isinstance(v, core.Literal)}
    made = {v: equation for equation in jaxpr.eqns for v in equation.outvars}
    used = Counter(v for equation in jaxpr.eqns for v in equation.invars if not isinstance(v, core.Literal))
    used.update(v for v in jaxpr.outvars if not isinstance(v, core.Literal))
    same = _duplicates(jaxpr)
    found: dict[tuple[Any, ...], list[_Sum]] = defaultdict(list)
    for number, (begin, end) in enumerate(zip(carry, jaxpr.outvars[:carried], strict=True)):
        added = _added(begin, end, made, used)
        if added is None or (chain := _chain(added, made, used)) is None:
            continue
        *parts, source = chain
        operands = tuple(same.get(v, v) for v in source.invars if not isinstance(v, core.Literal))
        if len(operands) == len(source.invars) and not set(operands) & {*fixed, *jaxpr.constvars}:
            own = tuple(dict.fromkeys(v for v in operands if v not in stacked))
            found[own].append(_Sum(number, added, source, operands, parts))
    taken = [sums for own, sums in found.items() if _bytes(own) <= _bytes(carry[each.number] for each in sums)]
    late = [each for sums in taken for each in sums]
    operands = tuple(dict.fromkeys(v for each in late for v in each.operands))
    new = [v for v in operands if v not in stacked]
    # No more than is stacked for other things: a loop over microbatches, which reads examples alone, is there to keep
    # little of all.
    if not late or _bytes(new) > _bytes(v for v in inputs if v not in operands):
        return None
    numbers = {each.number for each in late}
    still = tuple(i for i in range(carried) if i not in numbers)
    results = [*(jaxpr.outvars[i] for i in still), *outputs, *new]
    body = jaxpr.replace(
        invars=[*fixed, *(carry[i] for i in still), *inputs],
        outvars=results,
        eqns=needed(jaxpr.eqns, results),
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    places = stacked | {v: len(inputs) + len(outputs) + i for i, v in enumerate(new)}
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
      product: the product or reduction that this is, or is a part of.
      operands: the operands of that.
      parts: the operations that take it apart, the last first.
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


def _chain(value: Any, made: dict[Any, core.JaxprEqn], used: Counter[Any]) -> list[core.JaxprEqn] | None:
    """Returns the operations from a value back to the product or reduction that it is a part of; None if of none.

    Nothing else may use what they give, for which they would stay in the loop.
    """
    found: list[core.JaxprEqn] = []
    while not isinstance(value, core.Literal) and value in made and used[value] == 1:
        equation = made[value]
        found.append(equation)
        if equation.primitive.name in ("dot_general", "reduce_sum"):
            return found
        if equation.primitive.name not in LINEAR:
            return None
        given: Any = equation.invars[0]
        before, after = given.aval.dtype, value.aval.dtype
        # A wider type would have the sum overflow, or be rounded, before it is reached.
        if before != after and not (_floating(before) and _floating(after) and after.itemsize <= before.itemsize):
            return None
        value = given
    return None


def _floating(kind: Any) -> bool:
    return bool(jnp.issubdtype(kind, jnp.floating))


def _duplicates(jaxpr: core.Jaxpr) -> dict[Any, Any]:
    """Returns, for variables whose value an earlier one has, that one."""
    known: dict[Any, core.JaxprEqn] = {}
    same: dict[Any, Any] = {}
    for equation in jaxpr.eqns:
        if equation.effects or any(True for _ in core.jaxprs_in_params(equation.params)):
            continue
        given = tuple(_constant(v) if isinstance(v, core.Literal) else same.get(v, v) for v in equation.invars)
        key = equation.primitive.name, repr(sorted(equation.params.items())), given
        first = known.setdefault(key, equation)
        if first is not equation:
            same.update(zip(equation.outvars, first.outvars, strict=True))
    return same


def _constant(literal: Any) -> tuple[bytes, str]:
    """Returns what two literals of the same value have in common."""
    return np.asarray(literal.val).tobytes(), str(literal.aval)


def needed(equations: Sequence[core.JaxprEqn], outputs: Iterable[Any]) -> list[core.JaxprEqn]:
    """Returns the equations on which outputs depend."""
    live, kept = {v for v in outputs if not isinstance(v, core.Literal)}, []
    for equation in reversed(equations):
        if equation.effects or not live.isdisjoint(equation.outvars):
            live.update(v for v in equation.invars if not isinstance(v, core.Literal))
            kept.append(equation)
    return kept[::-1]


def _over_turns(equation: core.JaxprEqn, operands: Sequence[jax.Array]) -> Any:
    """Returns the sum over turns of a product, or of a reduction, of stacked operands."""
    if equation.primitive.name == "reduce_sum":
        axes = (0, *(axis + 1 for axis in equation.params["axes"]))
        return lax.reduce_sum_p.bind(*operands, **equation.params | {"axes": axes})
    contracted, batch = (
        [tuple(axis + 1 for axis in axes) for axes in both] for both in equation.params["dimension_numbers"]
    )
    contracted = [(0, *axes) for axes in contracted]
    params = equation.params | {"dimension_numbers": (tuple(contracted), tuple(batch))}
    a, b = operands
    try:
        return product(a, b, params)
    except NotRewrittenError:
        return lax.dot_general_p.bind(a, b, **params)


def _bytes(variables: Iterable[Any]) -> int:
    return sum(v.aval.size * v.aval.dtype.itemsize for v in variables)
