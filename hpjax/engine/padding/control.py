"""Rules of operations that hold functions: calls, loops and conditions, which are evaluated with padded values."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

from hpjax.engine.padding.values import Fill, NotPaddableError, Padded
from hpjax.engine.padding.walk import Equation, Rule, evaluate

RuleOf = Callable[[Equation], Rule]


def _call(field: str) -> Callable[[Equation, RuleOf], list[Padded]]:
    """Returns the rule of a call, whose function is in the parameter ``field``; it becomes part of its caller."""

    def call(equation: Equation, rule_of: RuleOf) -> list[Padded]:
        return evaluate(_functions(equation, field), equation.given, equation.program, rule_of)

    return call


def _functions(equation: Equation, field: str) -> list[core.ClosedJaxpr]:
    found = [params[field] for params in equation.params]
    return [each if hasattr(each, "consts") else core.ClosedJaxpr(each, ()) for each in found]


def _remat(equation: Equation, rule_of: RuleOf) -> list[Padded]:
    if any(params["differentiated"] for params in equation.params):
        raise NotPaddableError("a gradient computes parts anew (jax.checkpoint)")
    return _call("jaxpr")(equation, rule_of)


def _scan(equation: Equation, rule_of: RuleOf) -> list[Padded]:
    params, bodies, given = equation.params[0], _functions(equation, "jaxpr"), equation.given
    if "ft_in" in params:  # since jax 0.12
        consts, carried, _ = (len(part) for part in params["ft_in"].unpack())
    else:
        consts, carried = params["num_consts"], params["num_carry"]
    settings = equation.same(("length", "reverse", "unroll"))
    fixed, first, each = given[:consts], given[consts : consts + carried], given[consts + carried :]
    slices = [x._replace(sizes=x.sizes[1:]) for x in each]

    def body(carry: Sequence[Padded], arrays: Sequence[Any]) -> list[Padded]:
        here = [x._replace(array=array) for x, array in zip(slices, arrays, strict=True)]
        return evaluate(bodies, [*fixed, *carry, *here], equation.program, rule_of)

    shapes = [jax.ShapeDtypeStruct(x.array.shape[1:], x.array.dtype) for x in each]
    first = _lasting(first, lambda carry: _abstractly(body, carry, shapes)[:carried])
    fills: list[list[Any]] = []

    def turn(arrays: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        found = body([own._replace(array=array) for own, array in zip(first, arrays, strict=True)], x)
        fills.append([own.fill for own in found[carried:]])
        return [own.array for own in found[:carried]], [own.array for own in found[carried:]]

    last, stacked = lax.scan(turn, [x.array for x in first], [x.array for x in each], **settings)
    fill = [*(x.fill for x in first), *fills[-1]]
    return _results([*last, *stacked], equation, fill)


def _while(equation: Equation, rule_of: RuleOf) -> list[Padded]:
    asked, done = _functions(equation, "cond_jaxpr"), _functions(equation, "body_jaxpr")
    a, b = equation.param("cond_nconsts"), equation.param("body_nconsts")
    for_asking, for_doing, first = equation.given[:a], equation.given[a : a + b], equation.given[a + b :]

    def turn(carry: Sequence[Padded], _: Any = None) -> list[Padded]:
        return evaluate(done, [*for_doing, *carry], equation.program, rule_of)

    first = _lasting(first, lambda carry: _abstractly(turn, carry, []))

    def values(arrays: Sequence[Any]) -> list[Padded]:
        return [own._replace(array=array) for own, array in zip(first, arrays, strict=True)]

    found = lax.while_loop(
        lambda arrays: evaluate(asked, [*for_asking, *values(arrays)], equation.program, rule_of)[0].array,
        lambda arrays: [x.array for x in turn(values(arrays))],
        [x.array for x in first],
    )
    return _results(found, equation, [x.fill for x in first])


def _cond(equation: Equation, rule_of: RuleOf) -> list[Padded]:
    index, *given = equation.given
    counts = {len(params["branches"]) for params in equation.params}
    if len(counts) > 1:
        raise NotPaddableError("conditions have different branches")
    fills: list[list[Any]] = []

    def branch(number: int) -> Callable[..., list[Any]]:
        functions = [params["branches"][number] for params in equation.params]

        def run(*arrays: Any) -> list[Any]:
            own = [x._replace(array=array) for x, array in zip(given, arrays, strict=True)]
            found = evaluate(functions, own, equation.program, rule_of)
            fills.append([x.fill for x in found])
            return [x.array for x in found]

        return run

    found = lax.switch(index.array, [branch(number) for number in range(counts.pop())], *(x.array for x in given))
    joint = [each[0] if all(fill == each[0] for fill in each) else None for each in zip(*fills, strict=True)]
    return _results(found, equation, joint)


def _lasting(first: Sequence[Padded], turn: Callable[[Sequence[Padded]], Sequence[Padded]]) -> list[Padded]:
    """Returns what a loop begins with, of whose padding only that is said which holds after each turn."""
    carry = list(first)
    while True:
        after = turn(carry)
        kept = [x if x.fill == y.fill else x._replace(fill=_unknown(x)) for x, y in zip(carry, after, strict=True)]
        if [x.fill for x in kept] == [x.fill for x in carry]:
            return kept
        carry = kept


def _unknown(x: Padded) -> Fill:
    return Fill.UNKNOWN if x.padded else Fill.COPIES


def _abstractly(
    turn: Callable[[Sequence[Padded], Sequence[Any]], list[Padded]], carry: Sequence[Padded], shapes: Sequence[Any]
) -> list[Padded]:
    """Returns what a turn of a loop gives, of which only the fills are used."""
    found: list[list[Padded]] = []

    def traced(arrays: Sequence[Any], x: Sequence[Any]) -> list[Any]:
        after = turn([own._replace(array=array) for own, array in zip(carry, arrays, strict=True)], x)
        found.append([own._replace(array=None) for own in after])
        return [own.array for own in after]

    jax.eval_shape(traced, [x.array for x in carry], list(shapes))
    return found[-1]


def _results(arrays: Sequence[Any], equation: Equation, fills: Sequence[Any]) -> list[Padded]:
    found = [Padded(array, sizes) for array, sizes in zip(arrays, equation.sizes, strict=True)]
    return [x._replace(fill=_unknown(x) if fill is None else fill) for x, fill in zip(found, fills, strict=True)]


RULES: dict[str, Callable[[Equation, RuleOf], list[Padded]]] = {
    "closed_call": _call("call_jaxpr"),
    "composite": _call("jaxpr"),
    "cond": _cond,
    "core_call": _call("call_jaxpr"),
    "custom_jvp_call": _call("call_jaxpr"),
    "custom_vjp_call": _call("call_jaxpr"),
    "jit": _call("jaxpr"),
    "remat2": _remat,
    "scan": _scan,
    "while": _while,
}
