"""Rewrites functions that are slow under ``vmap``: evaluates their jaxprs with other kernels for a few primitives.

With ``nodes``, ``loop_sums`` and ``gathering`` this is the only file that takes jaxprs apart and builds them anew, so
that a new JAX changes these.
It relies on, as they are in jax 0.10.2 (the oldest that hpjax takes) to 0.12:

- ``jax.extend.core``: ``ClosedJaxpr`` (in 0.12 the same class as ``Jaxpr``), ``Literal``, ``jaxpr_as_fun``,
  ``jaxprs_in_params``. No fallback: they are documented, and without them the import raises.
- ``Jaxpr.replace`` and ``debug_info.with_unknown_names``, which are not documented. Fallback: the function as it was.
- the names of primitives, the keys of ``WINDOWS``, ``FUSED``, ``SUMS``, ``DRAWS`` and ``CALLS``, and that all but those
  of ``CALLS`` are bound to operands and parameters as they are. Fallback: one of another name is evaluated unchanged.
- the parameters of these primitives: ``scan`` has ``ft_in`` since 0.12, and ``num_consts`` and ``num_carry`` before.
  Fallback: where one is missing, the operation is evaluated unchanged.

Whatever a kernel returns must have the shapes and dtypes of the original; else that is evaluated unchanged, too.
Of every convolution or pooling that is not rewritten, for one of these reasons or for one of a kernel's own, a warning
tells once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from hpjax.core.fallback import warn_once
from hpjax.core.threefry import fast, key_types, plain
from hpjax.engine import conv_kernels, fused_kernels
from hpjax.engine.conv_kernels import NotRewrittenError
from hpjax.engine.draws import together
from hpjax.engine.loop_sums import loop_sums
from hpjax.engine.nodes import Value, inlined
from hpjax.engine.primitives import equations, primitive_names
from hpjax.engine.thin_sums import thin_sum

# The primitives that are rewritten.
_on: ContextVar[frozenset[str]] = ContextVar("lowering", default=frozenset())


@contextmanager
def lowering(windows: bool, draws: bool = False, fused: bool = False, sums: bool = False) -> Iterator[None]:
    """Switches rewriting on or off for all that is traced in its body, in this thread.

    Args:
      windows: whether convolutions and pooling become matrix products.
      draws: whether random numbers are drawn by the kernel of ``core.threefry``, bit by bit the same; small draws that
        do not wait for each other by one.
      fused: whether operations are written so that an accelerator's compiler fuses them with others.
      sums: whether sums leave out axes of size 1.
    """
    with _rewriting([*WINDOWS] * windows + [*DRAWS] * draws + [*FUSED] * fused + [*SUMS] * sums):
        yield


@contextmanager
def _rewriting(names: Iterable[str]) -> Iterator[None]:
    before = _on.set(frozenset(names))
    try:
        yield
    finally:
        _on.reset(before)


def lowered(function: Callable[..., Any], differentiable: bool = False) -> Callable[..., Any]:
    """Returns ``function`` with the operations rewritten for which ``lowering`` is on.

    Args:
      function: a function of pytrees of arrays. Where it takes gradients, the operations within ``jax.grad`` are
        rewritten after they were differentiated; to have the rewritten kernels differentiated instead, put ``lowered``
        within ``jax.grad``.
      differentiable: whether it is within ``jax.grad``: operations whose other kernels have no gradient stay.
    """

    def rewritten(*args: Any) -> Any:
        on = _on.get() - FUSED.keys() if differentiable else _on.get()
        if not on:
            return function(*args)
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        try:
            with _rewriting(on):
                found = _evaluate(closed, jax.tree.leaves(args))
        except AttributeError as error:
            if on & WINDOWS.keys():
                _warn("convolutions and pooling", _not_known(error))
            elif on & DRAWS.keys():
                warn_once(
                    f"random numbers: drawn by JAX's own kernels, which compile slowly, because {_not_known(error)}."
                )
            return function(*args)
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return rewritten


def has_windows(closed: core.ClosedJaxpr) -> bool:
    """Returns whether a jaxpr, or one within it, has convolutions or pooling.

    Warns once of each of these that this version of JAX computes by a primitive that is not known here.
    """
    for name in _renamed():
        _warn(name, f"jax {jax.__version__} has another name for it")
    return _has_windows(closed.jaxpr)


def draws(closed: core.ClosedJaxpr) -> bool:
    """Returns whether a jaxpr, or one within it, draws random numbers with threefry keys of JAX's own."""
    return any(map(_draws, equations(closed.jaxpr)))


def _draws(equation: core.JaxprEqn) -> bool:
    key: Any = equation.invars[0].aval if equation.invars else None
    return equation.primitive.name in DRAWS and key.dtype == key_types()[0]


def _to_rewrite(jaxpr: core.Jaxpr) -> bool:
    return not primitive_names(jaxpr).isdisjoint(_on.get())


def _has_windows(jaxpr: core.Jaxpr) -> bool:
    return not primitive_names(jaxpr).isdisjoint(WINDOWS)


@cache
def _renamed() -> list[str]:
    """Returns the primitives of ``WINDOWS`` to which the public functions for them do not lead."""
    window: tuple[Any, ...] = ((1, 2, 2, 1), (1, 1, 1, 1), "VALID")

    def largest(x: jax.Array) -> jax.Array:
        found: jax.Array = lax.reduce_window(x, -jnp.inf, lax.max, *window)
        return found

    public: dict[str, Callable[[jax.Array], jax.Array]] = {
        "conv_general_dilated": lambda x: lax.conv_general_dilated(x, x, (1, 1), "VALID"),
        "reduce_window_sum": lambda x: lax.reduce_window(x, 0.0, lax.add, *window),
        "reduce_window_max": largest,
        "select_and_scatter_add": jax.grad(lambda x: largest(x).sum()),
    }
    x = jax.ShapeDtypeStruct((1, 2, 2, 1), jnp.float32)
    return [name for name, use in public.items() if name not in primitive_names(jax.make_jaxpr(use)(x).jaxpr)]


def _warn(what: str, reason: str) -> None:
    warn_once(
        f"{what}: not rewritten to matrix products, and slow under vmap, because {reason}. "
        'With Sweep(kernels="xla") XLA computes them, and nothing is said.'
    )


def _warn_unfused(name: str, error: BaseException) -> None:
    if _on.get() & (FUSED | SUMS).keys():
        warn_once(f"{name}: computed as JAX has it, which takes longer than it need, because {_not_known(error)}.")


def _not_known(error: BaseException) -> str:
    return f"jax {jax.__version__} is not known to hpjax here ({type(error).__name__}: {error})"


def _evaluate(closed: core.ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """Returns the outputs of a jaxpr for arguments, with its operations rewritten."""
    # Most functions have nothing to rewrite. They keep their jaxpr, which also spares tracing it again.
    if not _to_rewrite(closed.jaxpr):
        return list(core.jaxpr_as_fun(closed)(*args))
    nodes, outputs = inlined(closed, [Value(arg) for arg in args], _on.get() & DRAWS.keys())
    while nodes:
        later, draws = [], []
        for node in nodes:
            if not node.ready:
                later.append(node)
            elif not closed.jaxpr.effects and (draw := node.draw) is not None:  # with effects the order stays
                draws.append((node, draw))
            else:
                node.fill(_evaluate_equation(node.jaxpr, node.equation, node.given))
        if len(draws) == 1:
            ((node, _),) = draws
            node.fill(_evaluate_equation(node.jaxpr, node.equation, node.given))
        elif draws:
            for (node, _), found in zip(draws, together([draw for _, draw in draws]), strict=True):
                node.fill([found])
        nodes = later
    return [x.value for x in outputs]


def _evaluate_equation(jaxpr: core.Jaxpr, equation: core.JaxprEqn, args: list[Any]) -> list[Any]:
    """Returns the outputs of one equation of a jaxpr, rewritten where that is possible."""
    name, inner = equation.primitive.name, list(core.jaxprs_in_params(equation.params))
    shapes: list[Any] = [v.aval for v in (*equation.invars, *equation.outvars)]
    if name in _on.get() & DRAWS.keys():
        return [DRAWS[name](equation, args)] if _draws(equation) else list(evaluate_unchanged(jaxpr, equation, args))
    # Nothing is lost where there is nothing to compute.
    if (name in _on.get() and not any(0 in x.shape for x in shapes)) or any(map(_to_rewrite, inner)):
        try:
            return _rewrite(equation, args)
        except NotRewrittenError as reason:
            if name in WINDOWS or (_on.get() & WINDOWS.keys() and any(map(_has_windows, inner))):
                _warn(name if name in WINDOWS else f"convolutions and pooling within {name}", str(reason))
            elif reason.__cause__ is not None:
                _warn_unfused(name, reason.__cause__)
    return evaluate_unchanged(jaxpr, equation, args)


def _rewrite(equation: core.JaxprEqn, args: list[Any]) -> list[Any]:
    """Returns the outputs of one equation, rewritten.

    Raises:
      NotRewrittenError: that is not possible, or not worth it.
    """
    name, params = equation.primitive.name, equation.params
    try:
        if (kernel := (WINDOWS | FUSED | SUMS).get(name)) is not None:
            found = [kernel(*args, params)]
        elif name in CALLS:
            found = CALLS[name](params, args)
        else:
            raise NotRewrittenError(f"{name} is not looked into")
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # another version of JAX
        raise NotRewrittenError(_not_known(error)) from error
    wanted: list[Any] = [v.aval for v in equation.outvars]
    if [(x.shape, x.dtype) for x in found] != [(a.shape, a.dtype) for a in wanted]:
        raise NotRewrittenError("it would have other shapes or dtypes")
    return found


def evaluate_unchanged(jaxpr: core.Jaxpr, equation: core.JaxprEqn, args: list[Any]) -> list[Any]:
    """Returns the outputs of one equation of a jaxpr, evaluated as it is."""
    if not list(core.jaxprs_in_params(equation.params)):
        found = equation.primitive.bind(*args, **equation.params)
        return list(found) if equation.primitive.multiple_results else [found]
    # As a jaxpr of its own, whose evaluation is JAX's business: how a primitive is bound to its parameters differs
    # between primitives and between versions (``Primitive.get_bind_params``).
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
    return _evaluate(params["jaxpr"], args)


def _remat(params: dict[str, Any], args: list[Any]) -> list[Any]:
    # Within a gradient the jaxpr is that of the backward pass already, with barriers that must stay.
    if params["differentiated"]:
        raise NotRewrittenError("its gradient was taken before, which leaves barriers in it")
    inner = core.ClosedJaxpr(params["jaxpr"], ())
    again = jax.checkpoint(
        lambda *args: _evaluate(inner, args), prevent_cse=params["prevent_cse"], policy=params["policy"]
    )
    return list(again(*args))


def scan_sizes(params: dict[str, Any]) -> tuple[int, int]:
    """Returns how many constants a ``scan`` has, and how many values it carries; raises for another version of JAX."""
    if "ft_in" in params:  # since jax 0.12
        consts, carried, _ = (len(part) for part in params["ft_in"].unpack())
        return consts, carried
    return params["num_consts"], params["num_carry"]


def _scan(params: dict[str, Any], args: list[Any]) -> list[Any]:
    consts, carried = scan_sizes(params)
    fixed, first, each = args[:consts], args[consts : consts + carried], args[consts + carried :]
    late = None
    if _on.get() & FUSED.keys():
        try:
            late = loop_sums(params["jaxpr"], consts, carried)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # another version of JAX
            _warn_unfused("scan", error)
    inner, still = (params["jaxpr"], range(carried)) if late is None else (late.body, late.carried)

    def body(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        found = _evaluate(inner, [*fixed, *carry, *x])
        return found[: len(still)], found[len(still) :]

    begun = [first[i] for i in still]
    last, stacked = lax.scan(body, begun, each, params["length"], params["reverse"], params["unroll"])
    if late is None:
        return [*last, *stacked]
    outputs = len(params["jaxpr"].jaxpr.outvars) - carried
    totals = late.totals([*each, *stacked], _evaluate_equation)
    ended = dict(zip(still, last, strict=True)) | {i: first[i] + total for i, total in totals.items()}
    return [*(ended[i] for i in range(carried)), *stacked[:outputs]]


def _cond(params: dict[str, Any], args: list[Any]) -> list[Any]:
    branches = [lambda *args, branch=branch: _evaluate(branch, args) for branch in params["branches"]]
    return list(lax.switch(args[0], branches, *args[1:]))


def _while(params: dict[str, Any], args: list[Any]) -> list[Any]:
    a, b = params["cond_nconsts"], params["body_nconsts"]
    asked, done, first = args[:a], args[a : a + b], args[a + b :]
    return list(
        lax.while_loop(
            lambda carry: _evaluate(params["cond_jaxpr"], [*asked, *carry])[0],
            lambda carry: _evaluate(params["body_jaxpr"], [*done, *carry]),
            first,
        )
    )


WINDOWS: dict[str, Callable[..., jax.Array]] = {
    "conv_general_dilated": conv_kernels.convolution,
    "reduce_window_sum": conv_kernels.sum_pool,
    "reduce_window_max": conv_kernels.max_pool,
    "select_and_scatter_add": conv_kernels.max_pool_gradient,
}
FUSED: dict[str, Callable[..., jax.Array]] = {
    "dot_general": fused_kernels.product,
    "gather": fused_kernels.picked,
    "scatter-add": fused_kernels.added,
}
SUMS: dict[str, Callable[..., jax.Array]] = {"reduce_sum": thin_sum}


def _drawing(equation: core.JaxprEqn, args: list[Any]) -> jax.Array:
    key, *rest = args
    found: jax.Array = equation.primitive.bind(fast(key), *rest, **equation.params)
    return found


# The primitives that draw with a key, each by the same primitive with a key of another dtype.
DRAWS: dict[str, Callable[[core.JaxprEqn, list[Any]], jax.Array]] = {
    "random_bits": _drawing,
    "random_fold_in": lambda equation, args: plain(_drawing(equation, args)),
    "random_split": lambda equation, args: plain(_drawing(equation, args)),
}
# The primitives that hold other jaxprs. Functions with derivatives of their own (custom_jvp, custom_vjp) are not among
# them: rewritten, they would lose these.
CALLS: dict[str, Callable[..., list[Any]]] = {
    "jit": _jit,
    "remat2": _remat,
    "scan": _scan,
    "cond": _cond,
    "while": _while,
}
