"""Gathers weights that are split over devices where they meet examples, so that these are what the devices divide.

Left to itself XLA may divide a product along the axis of its weights, and would gather the activations of all examples
for the next one, which are larger. Where weights are whole, the split of the batch is the only one that it can follow,
as in fully sharded data parallelism (Rajbhandari et al. 2020, arXiv:1910.02054; Xu et al. 2021, arXiv:2105.04663).

It evaluates jaxprs as ``lowering`` does, and relies on the same of JAX. Fallback: where it cannot, functions stay as
they are, and a warning tells once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from hpjax.core.fallback import warn_once
from hpjax.engine.lowering import evaluate_unchanged, scan_sizes

# Operations in which weights meet examples. Sums of both, such as an update's, are none of them: there weights stay
# split, and what is added to them is reduced to parts.
PRODUCTS = {"dot_general", "conv_general_dilated", "gather"}
CALLS = {"jit", "pjit", "closed_call"}

Gather = Callable[[jax.Array], jax.Array]


def gathering(function: Callable[..., Any], examples: Any, gather: Gather) -> Callable[..., Any]:
    """Returns ``function`` with ``gather`` applied to other arrays before what combines them with examples.

    Args:
      function: a function of pytrees of arrays.
      examples: the arrays, given to the function or closed over by it, whose examples the devices divide.
      gather: returns an array whole on each device.
    """
    split = set(map(id, jax.tree.leaves(examples)))

    def gathered(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        values = [*closed.consts, *jax.tree.leaves(args)]
        try:
            found = _evaluate(closed.jaxpr, values, [id(value) in split for value in values], gather)
        except (AttributeError, KeyError, TypeError) as error:  # another version of JAX
            warn_once(
                f"partition: XLA alone decides where weights are gathered, and may move more than it need, because jax "
                f"{jax.__version__} is not known to hpjax here ({type(error).__name__}: {error})."
            )
            return function(*args)
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return gathered


def _evaluate(jaxpr: core.Jaxpr, values: Sequence[Any], split: Sequence[bool], gather: Gather) -> list[Any]:
    """Returns the outputs of a jaxpr.

    Args:
      jaxpr: the jaxpr.
      values: its constants and inputs.
      split: whether each of these depends on examples.
      gather: as for ``gathering``.
    """
    variables = [*jaxpr.constvars, *jaxpr.invars]
    known = {v: (value, own) for v, value, own in zip(variables, values, split, strict=True)}

    def read(atom: Any) -> tuple[Any, bool]:
        return (atom.val, False) if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        read_all = list(map(read, equation.invars))
        given, depend = [value for value, _ in read_all], [own for _, own in read_all]
        found = _outputs(jaxpr, equation, given, depend, gather)
        known |= {v: (value, any(depend)) for v, value in zip(equation.outvars, found, strict=True)}
    return [read(v)[0] for v in jaxpr.outvars]


def _outputs(
    jaxpr: core.Jaxpr, equation: core.JaxprEqn, given: list[Any], depend: list[bool], gather: Gather
) -> list[Any]:
    """Returns the outputs of one equation; ``depend`` says of each of its inputs whether it depends on examples."""
    name, params = equation.primitive.name, equation.params
    if any(depend) and name in CALLS:
        inner = params.get("jaxpr") or params["call_jaxpr"]
        return _evaluate(inner.jaxpr, [*inner.consts, *given], [*(False for _ in inner.consts), *depend], gather)
    if any(depend) and name == "scan":
        return _scan(params, given, depend, gather)
    result: Any = equation.outvars[0].aval if equation.outvars else None
    # Before weights are added to each example, or multiplied by it, they are repeated.
    repeats = name == "broadcast_in_dim" and result.ndim > jnp.ndim(given[0])
    # What else holds jaxprs is not looked into.
    if repeats or (any(depend) and (name in PRODUCTS or list(core.jaxprs_in_params(params)))):
        given = [x if own or not _is_weight(x) else gather(x) for x, own in zip(given, depend, strict=True)]
    return evaluate_unchanged(jaxpr, equation, given)


def _scan(params: dict[str, Any], given: list[Any], depend: list[bool], gather: Gather) -> list[Any]:
    """Returns the outputs of a loop, in each turn of which weights are gathered: those of a layer, where it is one."""
    closed, (consts, carried) = params["jaxpr"], scan_sizes(params)
    fixed, first, each = given[:consts], given[consts : consts + carried], given[consts + carried :]
    own = [*depend[:consts], *(True for _ in first), *depend[consts + carried :]]
    flags = [*(False for _ in closed.consts), *own]

    def turn(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        found = _evaluate(closed.jaxpr, [*closed.consts, *fixed, *carry, *x], flags, gather)
        return found[:carried], found[carried:]

    last, stacked = lax.scan(turn, first, each, params["length"], params["reverse"], params["unroll"])
    return [*last, *stacked]


def _is_weight(x: Any) -> bool:
    return jnp.ndim(x) > 0 and jnp.issubdtype(jnp.result_type(x), jnp.inexact)
