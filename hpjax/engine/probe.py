"""Abstract tracing of a program: finds out its shapes, or why it cannot train. Nothing is compiled or computed."""

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
from hpjax.engine.lane import reported_metrics
from hpjax.engine.lowering import has_windows
from hpjax.engine.shapes import ProgramShapes, as_array, is_key

# In place of a hyperparameter's name, for a checked value that is computed from hyperparameters.
DERIVED = ""

# The names of matrix decompositions in a printed jaxpr.
DECOMPOSITIONS = ("geqrf", "qr", "householder_product", "eigh", "eig", "svd", "schur", "lu", "cholesky")


def trace_program(program: Program, h: Hparams, train: Arrays, valid: Arrays) -> ProgramShapes:
    """Traces every function of a program once, and returns what that shows.

    Args:
      program: the program.
      h: its hyperparameters; traced ones are arrays or ``ShapeDtypeStruct``s, ().
      train, valid: the splits, as arrays or ``ShapeDtypeStruct``s.

    Raises:
      ProgramError: the program cannot train: ``step`` changes the structure, a shape or a dtype of the state, or a
        metric is no scalar.
      Exception: whatever the user's functions raise.
    """
    # Filled while tracing, because make_jaxpr returns arrays and no names.
    generators: list[Hashable] = []
    read: set[str] = set()
    checks: list[tuple[str, Check]] = []

    def watched(h: Hparams, train: Arrays, valid: Arrays) -> Any:
        with reading() as names, collecting() as found_checks:
            state, *metrics = trace_lifecycle(program, h, train, valid)
        read.update(names)
        generators[:] = map(_generator, jax.tree.leaves(state))
        for check in found_checks:
            mine = [name for name in h if h[name] is check.value]
            # A value that the program computes from hyperparameters has no name. The plan then knows only that there is
            # something to check, and computes the values of all trials.
            checks.extend((name, check) for name in mine or [DERIVED] if isinstance(check.value, jax.core.Tracer))
        return state, *metrics, program.parameters(state)

    traced, found = jax.make_jaxpr(watched, return_shape=True)(h, train, valid)
    state, train_metrics, valid_metrics, parameters = found
    used = {id(v) for equation in traced.jaxpr.eqns for v in equation.invars} | {id(v) for v in traced.jaxpr.outvars}
    # The leaves of h are the first inputs of the jaxpr, in this order.
    tracers = [path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(h)]
    names = {name for name, v in zip(tracers, traced.jaxpr.invars, strict=False) if id(v) in used}
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    text = str(traced.jaxpr)
    _, step, evaluation = parts(traced.jaxpr)
    return ProgramShapes(
        state=state,
        keys=tuple(generators),
        train=tuple(sorted(train_metrics)),
        valid=tuple(sorted(valid_metrics)),
        parameters=count,
        # A traced hyperparameter counts as read where an operation uses it, a static one where the user's code asks for
        # it: attribute access alone says nothing of a tracer, which is often read only to be passed on.
        reads=frozenset(names | read.difference(tracers)),
        checks=tuple(dict.fromkeys((name, check._replace(value=None)) for name, check in checks)),
        lapack=re.search(rf"= ({'|'.join(DECOMPOSITIONS)})\b", text) is not None,
        windows=has_windows(traced),
        step=step,
        evaluation=evaluation,
        fingerprint=digest(without_addresses(text)),
    )


def trace_lifecycle(program: Program, h: Hparams, train: Arrays, valid: Arrays) -> tuple[State, Metrics, Metrics]:
    """Calls every function of a program once, and returns its first state and the metrics of a step and an evaluation.

    Under ``make_jaxpr`` or ``eval_shape`` this traces the program; marks separate ``init``, ``step`` and the rest.

    Raises:
      ProgramError: as for ``trace_program``.
      Exception: whatever the user's functions raise.
    """
    key = lane_key(0, 0)
    state = jax.tree.map(as_array, annotate_errors("Program.init", program.init)(key, h))
    if any("rbg" in str(_generator(leaf)) for leaf in jax.tree.leaves(state)):
        raise ProgramError(
            "the state holds an rbg key, and under vmap its numbers would depend on the neighbours. "
            'Write jax.random.key(seed, impl="threefry2x32").'
        )
    mark()
    batch = annotate_errors("Program.batch", program.batch)(key, jnp.int32(0), train, h)
    after = annotate_errors("Program.step", program.step)(key, state, batch, h)
    if not (isinstance(after, tuple) and len(after) == 2):
        raise ProgramError(
            f"Program.step must return (state, metrics), got {type(after).__name__}. Write return state, metrics."
        )
    moved = jax.tree.map(as_array, after[0])
    _same_type("step", state, moved)
    mark()
    train_metrics = _scalars("step", after[1])
    valid_metrics = _scalars("evaluate", annotate_errors("Program.evaluate", program.evaluate)(key, moved, valid, h))
    metrics = reported_metrics(train_metrics, valid_metrics)
    reacted = _reacted(moved, annotate_errors("Program.react", program.react)(moved, metrics, h))
    finished = annotate_errors("Program.finish", program.finish)(reacted, h)
    _same_type("finish", moved, jax.tree.map(as_array, finished))
    return state, train_metrics, valid_metrics


def _generator(leaf: Any) -> Hashable:
    """Returns the generator of a typed PRNG key, None for any other array."""
    return jax.random.key_impl(leaf) if is_key(leaf) else None


def _reacted(before: State, reaction: Any) -> State:
    """Validates what ``Program.react`` returned; returns the new state."""
    if not (isinstance(reaction, tuple) and len(reaction) == 2):
        raise ProgramError(
            f"Program.react must return (state, done), got {type(reaction).__name__}. Write return state, done."
        )
    state = jax.tree.map(as_array, reaction[0])
    _same_type("react", before, state)
    done = jnp.asarray(reaction[1])
    if done.shape != () or done.dtype != jnp.bool_:
        raise ProgramError(
            f"Program.react must give done as a bool (), got {done.dtype}{list(done.shape)}. "
            "Write return state, jnp.bool_(False) for a trial that is never done."
        )
    return state


def _same_type(where: str, before: State, after: State) -> None:
    """Raises unless both states have the same structure, shapes and dtypes; ``where`` is the function that returned."""
    there, here = jax.tree.structure(before), jax.tree.structure(after)
    if there != here:  # type: ignore[operator]
        raise ProgramError(
            f"Program.{where} changes the structure of the state: init gives\n"
            f"  {there}\n{where} gives\n  {here}\nReturn the structure that init gives."
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
    """Returns metrics as arrays, (). Raises unless they are a dict of names and scalar numbers."""
    if not isinstance(metrics, dict):
        raise ProgramError(
            f"Program.{where} must give its metrics as a dict of scalars, got {type(metrics).__name__}. "
            'Write {"loss": loss}, or {} for none.'
        )
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise ProgramError(
                f"metrics of Program.{where} must have strings as names, got {name!r}. Write {str(name)!r}."
            )
        if not isinstance(value, jax.Array | np.ndarray | np.generic | int | float):
            raise ProgramError(
                f"metric {name!r} of Program.{where} must be a number, got {type(value).__name__}. "
                "Return a number, or leave it out of the dict."
            )
        array = jnp.asarray(value)
        kinds = (jnp.floating, jnp.integer, jnp.bool_)
        if array.shape != () or not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
            found = f"{array.dtype}{list(array.shape)}"
            remedy = "Reduce it with .mean()." if array.shape else "Take its real part with .real."
            raise ProgramError(f"metric {name!r} of Program.{where} must be a scalar number, got {found}. {remedy}")
    return {name: jnp.asarray(value) for name, value in metrics.items()}
