"""One lane: the life of one replicate of one trial, as pure functions that ``vmap`` widens."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.core.hparams import Hparams
from hpjax.core.keys import purpose_key, step_key
from hpjax.core.program import Arrays, Metrics, Program
from hpjax.engine.lowering import lowered
from hpjax.engine.shapes import Lane, ProgramShapes, as_array, float_type, unwrap_keys, wrap_keys

HEALTHY = -1


class Evaluation(NamedTuple):
    """What an evaluation finds.

    Attributes:
      metrics: by the names under which they are reported; train ones averaged since the last evaluation.
      done: bool, whether the program calls its trial complete.
    """

    metrics: dict[str, Any]
    done: Any


def start(program: Program, shapes: ProgramShapes, key: jax.Array, h: Hparams) -> Lane:
    """A lane before its first step."""
    zero = jnp.zeros((), jnp.int32)
    state = jax.tree.map(as_array, program.init(purpose_key(key, "init"), h))
    return Lane(
        unwrap_keys(state),
        {name: jnp.zeros((), float_type()) for name in shapes.train},
        zero,
        zero,
        jnp.full_like(zero, HEALTHY),
    )


def advance(
    program: Program, shapes: ProgramShapes, key: jax.Array, t: jax.Array, lane: Lane, train: Arrays, h: Hparams
) -> Lane:
    """A lane after optimizer step ``t``, counted from 0."""
    batch = program.batch(purpose_key(key, "batch"), t, train, h)
    state, metrics = lowered(program.step)(
        step_key(purpose_key(key, "step"), t), wrap_keys(lane.state, shapes), batch, h
    )
    values = {name: jnp.asarray(metrics[name]).astype(float_type()) for name in shapes.train}
    return Lane(
        unwrap_keys(jax.tree.map(as_array, state)),
        {name: lane.totals[name] + value for name, value in values.items()},
        lane.counted + 1,
        t + 1,
        _first_bad(lane.diverged, values.values(), t + 1),
    )


def evaluate(
    program: Program, shapes: ProgramShapes, key: jax.Array, lane: Lane, budget: jax.Array, valid: Arrays, h: Hparams
) -> tuple[Lane, Evaluation]:
    """What an evaluation finds; and the lane after the program's reaction, its averages begun anew.

    The program finishes one that is done, or at ``budget``, the step at which it ends, int32 ().
    """
    state = wrap_keys(lane.state, shapes)
    metrics = lowered(program.evaluate)(step_key(purpose_key(key, "evaluate"), lane.step), state, valid, h)
    values = {name: jnp.asarray(metrics[name]).astype(float_type()) for name in shapes.valid}
    means = {name: total / jnp.maximum(lane.counted, 1) for name, total in lane.totals.items()}
    reported = _reported(means, values)
    looked_at = [*values.values(), *(_inexact(program.parameters(state)) if program.names_parameters else ())]
    state, done = program.react(state, reported, h)
    after, done = unwrap_keys(jax.tree.map(as_array, state)), jnp.asarray(done)
    if program.finishes:
        finished = unwrap_keys(jax.tree.map(as_array, program.finish(state, h)))
        after = jax.tree.map(lambda new, old: lax.select(done | (lane.step >= budget), new, old), finished, after)
        looked_at += _inexact(program.parameters(wrap_keys(after, shapes))) if program.names_parameters else []
    fresh = Lane(
        after,
        jax.tree.map(jnp.zeros_like, lane.totals),
        jnp.zeros_like(lane.counted),
        lane.step,
        _first_bad(lane.diverged, looked_at, lane.step),
    )
    return fresh, Evaluation(reported, done)


def _reported(train: Metrics, valid: Metrics) -> dict[str, jax.Array]:
    return {**{f"train/{name}": v for name, v in train.items()}, **{f"valid/{name}": v for name, v in valid.items()}}


def _inexact(tree: Any) -> list[jax.Array]:
    """The leaves that can hold NaN."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _first_bad(diverged: jax.Array, values: Iterable[jax.Array], step: jax.Array) -> jax.Array:
    finite = jnp.array(True)
    for value in values:
        finite &= jnp.isfinite(value).all()
    return lax.select(finite | (diverged != HEALTHY), diverged, step)
