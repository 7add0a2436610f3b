"""Rewrites what collapses under ``vmap``: re-evaluates a function's jaxpr with other kernels for a few primitives.

This is the one file that takes jaxprs apart and builds them anew. What it does not know stays as it was.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax import lax
from jax.extend import core

from hpjax.engine import conv_kernels as kernels

_on: ContextVar[bool] = ContextVar("lowering", default=False)


@contextmanager
def lowering(on: bool) -> Iterator[None]:
    """Whether what is traced meanwhile is rewritten where ``lowered`` asks for it."""
    before = _on.set(on)
    try:
        yield
    finally:
        _on.reset(before)


def lowered(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of arrays with convolutions and pooling as matrix products, where ``lowering`` is on.

    To have gradients of the rewritten kernels, it must stand within ``jax.grad``.
    """

    def rewritten(*args: Any) -> Any:
        if not _on.get():
            return function(*args)
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        found = _evaluated(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return rewritten


def has_windows(closed: core.ClosedJaxpr) -> bool:
    """Whether anything in it can be rewritten."""
    return _has_windows(closed.jaxpr)


def _has_windows(jaxpr: core.Jaxpr) -> bool:
    return any(
        equation.primitive.name in KERNELS
        or (equation.primitive.name in CALLS and any(map(_has_windows, core.jaxprs_in_params(equation.params))))
        for equation in jaxpr.eqns
    )


def _evaluated(closed: core.ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """What a jaxpr gives for arguments, rewritten."""
    if not has_windows(closed):
        return list(core.jaxpr_as_fun(closed)(*args))
    values = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *args], strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in closed.jaxpr.eqns:
        given = [value(atom) for atom in equation.invars]
        values.update(zip(equation.outvars, _rewritten(closed.jaxpr, equation, given), strict=True))
    return [value(atom) for atom in closed.jaxpr.outvars]


def _rewritten(jaxpr: core.Jaxpr, equation: core.JaxprEqn, args: list[Any]) -> list[Any]:
    name = equation.primitive.name
    found: Any = None
    try:
        if name in KERNELS:
            one = KERNELS[name](*args, equation.params)
            found = None if one is None else [one]
        elif name in CALLS and any(map(_has_windows, core.jaxprs_in_params(equation.params))):
            found = CALLS[name](equation.params, args)
    except (AttributeError, KeyError):  # of a JAX that calls the parameters otherwise
        found = None
    wanted: list[Any] = [v.aval for v in equation.outvars]
    if found is None or [(x.shape, x.dtype) for x in found] != [(a.shape, a.dtype) for a in wanted]:
        found = _untouched(jaxpr, equation, args)
    return list(found)


def _untouched(jaxpr: core.Jaxpr, equation: core.JaxprEqn, args: list[Any]) -> list[Any]:
    """One equation of a jaxpr as it was: as a jaxpr of its own, so that primitives need not be known."""
    inputs = list(dict.fromkeys(atom for atom in equation.invars if not isinstance(atom, core.Literal)))
    alone = jaxpr.replace(
        constvars=(),
        invars=inputs,
        outvars=equation.outvars,
        eqns=[equation],
        effects=equation.effects,
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    values = {id(atom): arg for atom, arg in zip(equation.invars, args, strict=True)}
    return list(core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*(values[id(atom)] for atom in inputs)))


def _jit(params: dict[str, Any], args: list[Any]) -> list[Any]:
    return _evaluated(params["jaxpr"], args)


def _remat(params: dict[str, Any], args: list[Any]) -> list[Any] | None:
    if params["differentiated"]:
        return None
    inner = core.ClosedJaxpr(params["jaxpr"], ())
    again = jax.checkpoint(
        lambda *args: _evaluated(inner, args), prevent_cse=params["prevent_cse"], policy=params["policy"]
    )
    return list(again(*args))


def _scan(params: dict[str, Any], args: list[Any]) -> list[Any]:
    if "ft_in" in params:  # since jax 0.12
        consts, carried, _ = (len(part) for part in params["ft_in"].unpack())
    else:
        consts, carried = params["num_consts"], params["num_carry"]
    fixed, first, each = args[:consts], args[consts : consts + carried], args[consts + carried :]

    def body(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        found = _evaluated(params["jaxpr"], [*fixed, *carry, *x])
        return found[:carried], found[carried:]

    last, stacked = lax.scan(body, first, each, params["length"], params["reverse"], params["unroll"])
    return [*last, *stacked]


def _cond(params: dict[str, Any], args: list[Any]) -> list[Any]:
    branches = [lambda *args, branch=branch: _evaluated(branch, args) for branch in params["branches"]]
    return list(lax.switch(args[0], branches, *args[1:]))


def _while(params: dict[str, Any], args: list[Any]) -> list[Any]:
    a, b = params["cond_nconsts"], params["body_nconsts"]
    asked, done, first = args[:a], args[a : a + b], args[a + b :]
    return list(
        lax.while_loop(
            lambda carry: _evaluated(params["cond_jaxpr"], [*asked, *carry])[0],
            lambda carry: _evaluated(params["body_jaxpr"], [*done, *carry]),
            first,
        )
    )


KERNELS: dict[str, Callable[..., jax.Array | None]] = {
    "conv_general_dilated": kernels.convolution,
    "reduce_window_sum": kernels.sum_pool,
    "reduce_window_max": kernels.max_pool,
    "select_and_scatter_add": kernels.max_pool_gradient,
}
# What holds other jaxprs; those with derivatives of their own are left alone.
CALLS: dict[str, Callable[..., list[Any] | None]] = {
    "jit": _jit,
    "remat2": _remat,
    "checkpoint": _remat,
    "scan": _scan,
    "cond": _cond,
    "while": _while,
}
