"""Constants: the large arrays that a program closes over, which all lanes share.

XLA would make them a part of the compiled program: slow to compile, and copied with it. Instead they are arguments,
held once on each device: a frozen base model, the points of a physics loss, a table.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

# Bytes from which an array is large; of smaller ones XLA computes what it can beforehand.
LARGE = 2**16


def large_constants(closed: core.ClosedJaxpr) -> list[Any]:
    """Returns the large arrays that a traced function closes over."""
    return [constant for constant in closed.consts if _is_large(constant)]


def hoisted(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Returns a function that takes the large arrays that ``function`` closes over as one more argument, and these.

    What a jitted function within it closes over stays where it is.

    Args:
      function: a function of pytrees of arrays.
      *arguments: its arguments, as arrays or ``ShapeDtypeStruct``s.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    tree = jax.tree.structure(shapes)

    def with_constants(*given: Any) -> Any:
        *own, constants = given
        rest = iter(constants)
        consts = [next(rest) if _is_large(constant) else constant for constant in closed.consts]
        outputs = core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, consts))(*jax.tree.leaves(own))
        return jax.tree.unflatten(tree, outputs)

    with_constants.__name__ = getattr(function, "func", function).__name__  # the name that profiles show
    return with_constants, large_constants(closed)


def jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns ``jax.jit(function)``, in which large constants are arguments."""
    known: dict[Any, tuple[Callable[..., Any], list[Any]]] = {}

    def call(*arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        key = (tree, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))
        if key not in known:
            own, constants = hoisted(function, *arguments)
            known[key] = jax.jit(own), constants
        compiled, constants = known[key]
        return compiled(*arguments, constants)

    return call


def _is_large(constant: Any) -> bool:
    return bool(constant.size * constant.dtype.itemsize >= LARGE)
