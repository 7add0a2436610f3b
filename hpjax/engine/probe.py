"""Traces a program abstractly: what it gives, or why it cannot be carried."""

import re
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.bounds import Check, collecting
from hpjax.core.errors import ProgramError, annotate_errors
from hpjax.core.hashing import digest, without_addresses
from hpjax.core.hparams import Hparams, reading
from hpjax.core.keys import lane_key
from hpjax.core.program import Arrays, Metrics, Program, State
from hpjax.engine.flops import mark, parts
from hpjax.engine.lane import _reported
from hpjax.engine.lowering import has_windows
from hpjax.engine.shapes import ProgramShapes, _is_key, as_array

# In place of a name where what is checked is computed from hyperparameters.
DERIVED = ""


# As they are called where a program is printed.
DECOMPOSITIONS = ("geqrf", "qr", "householder_product", "eigh", "eig", "svd", "schur", "lu", "cholesky")


def trace_program(program: Program, h: Hparams, train: Arrays, valid: Arrays) -> ProgramShapes:
    """Traces a whole life abstractly, nothing compiles; ``h`` and the splits may be shapes.

    Raises:
      ProgramError: what the program gives cannot be carried: its ``step`` changes the state's type, or a
        metric is no scalar. Whatever the user's functions raise passes through.
    """

    generators: list[Hashable] = []
    read: set[str] = set()
    checks: list[tuple[str, Check]] = []

    def watched(h: Hparams, train: Arrays, valid: Arrays) -> Any:
        with reading() as names, collecting() as found:
            state, *metrics = trace_lifecycle(program, h, train, valid)
        read.update(names)
        generators[:] = map(_generator, jax.tree.leaves(state))
        for check in found:
            mine = [name for name in h if h[name] is check.value]
            # Of a value that the program computes from hyperparameters, the plan only knows that it must be checked.
            checks.extend((name, check) for name in mine or [DERIVED] if isinstance(check.value, jax.core.Tracer))
        return state, *metrics, program.parameters(state)

    traced, (state, emitted, evaluated, parameters) = jax.make_jaxpr(watched, return_shape=True)(h, train, valid)
    used = {id(v) for equation in traced.jaxpr.eqns for v in equation.invars} | {id(v) for v in traced.jaxpr.outvars}
    tracers = [path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(h)]
    names = {name for name, v in zip(tracers, traced.jaxpr.invars, strict=False) if id(v) in used}
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    text = str(traced.jaxpr)
    _, step, evaluation = parts(traced.jaxpr)
    return ProgramShapes(
        state,
        tuple(generators),
        tuple(sorted(emitted)),
        tuple(sorted(evaluated)),
        count,
        # A traced one is read where the program uses its value, a static one where the user's code asks for it.
        frozenset(names | read.difference(tracers)),
        tuple(dict.fromkeys((name, check._replace(value=None)) for name, check in checks)),
        re.search(rf"= ({'|'.join(DECOMPOSITIONS)})\b", text) is not None,
        has_windows(traced),
        step,
        evaluation,
        digest(without_addresses(text)),
    )


def trace_lifecycle(program: Program, h: Hparams, train: Arrays, valid: Arrays) -> tuple[State, Metrics, Metrics]:
    """Every function of a program, one after the other: its first state, and the metrics of a step and an evaluation.

    Raises:
      ProgramError: as ``trace_program``.
    """
    key = lane_key(0, 0)
    state = jax.tree.map(as_array, annotate_errors("Program.init", program.init)(key, h))
    if any("rbg" in str(_generator(leaf)) for leaf in jax.tree.leaves(state)):
        raise ProgramError(
            "the state holds an rbg key, and under vmap its numbers would depend on the neighbours. "
            "Use threefry2x32 keys."
        )
    mark()
    batch = annotate_errors("Program.batch", program.batch)(key, jnp.int32(0), train, h)
    after = annotate_errors("Program.step", program.step)(key, state, batch, h)
    if not (isinstance(after, tuple) and len(after) == 2):
        raise ProgramError(f"Program.step must return (state, metrics), got {type(after).__name__}.")
    moved = jax.tree.map(as_array, after[0])
    _same_type("step", state, moved)
    mark()
    emitted = _scalars("step", after[1])
    evaluated = _scalars("evaluate", annotate_errors("Program.evaluate", program.evaluate)(key, moved, valid, h))
    reacted = _reacted(moved, annotate_errors("Program.react", program.react)(moved, _reported(emitted, evaluated), h))
    finished = annotate_errors("Program.finish", program.finish)(reacted, h)
    _same_type("finish", moved, jax.tree.map(as_array, finished))
    return state, emitted, evaluated


def _generator(leaf: Any) -> Hashable:
    """Of a typed PRNG key its generator."""
    return jax.random.key_impl(leaf) if _is_key(leaf) else None


def _reacted(before: State, reaction: Any) -> State:
    """The state after a reaction, which is what it must be."""
    if not (isinstance(reaction, tuple) and len(reaction) == 2):
        raise ProgramError(f"Program.react must return (state, done), got {type(reaction).__name__}.")
    state = jax.tree.map(as_array, reaction[0])
    _same_type("react", before, state)
    done = jnp.asarray(reaction[1])
    if done.shape != () or done.dtype != jnp.bool_:
        raise ProgramError(f"Program.react must give done as a bool (), got {done.dtype}{list(done.shape)}.")
    return state


def _same_type(where: str, before: State, after: State) -> None:
    there, here = jax.tree.structure(before), jax.tree.structure(after)
    if there != here:  # type: ignore[operator]
        raise ProgramError(
            f"Program.{where} changes the structure of the state: init gives\n"
            f"  {there}\n{where} gives\n  {here}\nReturn the same structure."
        )
    for (path, x), (_, y) in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree_util.tree_leaves_with_path(after), strict=True
    ):
        if x.shape != y.shape or x.dtype != y.dtype:
            raise ProgramError(
                f"Program.{where} changes state{jax.tree_util.keystr(path)} from {x.dtype}{list(x.shape)} to "
                f"{y.dtype}{list(y.shape)}. Give it the same shape and dtype in init, or "
                f"cast it with .astype in {where}."
            )


def _scalars(where: str, metrics: Metrics) -> dict[str, jax.Array]:
    if not isinstance(metrics, dict):
        raise ProgramError(f"Program.{where} must give its metrics as a dict of scalars, got {type(metrics).__name__}.")
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise ProgramError(f"metrics of Program.{where} must have strings as names, got {name!r}.")
        if not isinstance(value, jax.Array | np.ndarray | np.generic | int | float):
            raise ProgramError(f"metric {name!r} of Program.{where} must be a number, got {type(value).__name__}.")
        array = jnp.asarray(value)
        kinds = (jnp.floating, jnp.integer, jnp.bool_)
        if array.shape != () or not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
            found = f"{array.dtype}{list(array.shape)}"
            remedy = "Reduce it with .mean()." if array.shape else "Take its real part."
            raise ProgramError(f"metric {name!r} of Program.{where} must be a scalar number, got {found}. {remedy}")
    return {name: jnp.asarray(value) for name, value in metrics.items()}
