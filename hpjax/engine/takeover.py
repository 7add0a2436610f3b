"""Takeovers: what a trial that goes on from the state of another does with the hyperparameters that are in the state.

``init`` may put hyperparameters into the state, as ``optax.inject_hyperparams`` does. When a scheduler changes them in
a running trial, an array that training leaves as it is gets the value that ``init`` gives it for the new ones. An array
that training changes, such as weights that began at a scale, is kept, and with it the hyperparameters it began with.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.hparams import Hparams
from hpjax.core.keys import lane_key
from hpjax.core.program import Arrays, Program
from hpjax.engine.dataflow import Flow, flows
from hpjax.engine.lane import HEALTHY, StepKeys, advance_lane, evaluate_lane, start_lane
from hpjax.engine.shapes import Lane, ProgramShapes, float_type, unwrap_keys


class Takeover(NamedTuple):
    """What a takeover does with the arrays of a state that ``init`` makes of hyperparameters.

    Attributes:
      renewed: the numbers of the arrays that get the values which ``init`` gives them for the new hyperparameters.
      kept: hyperparameter to the name of an array that keeps what training made of it; it cannot change.
    """

    renewed: tuple[int, ...] = ()
    kept: Mapping[str, str] = {}


def trace_takeover(program: Program, shapes: ProgramShapes, h: Hparams, train: Arrays, valid: Arrays) -> Takeover:
    """Finds out by abstract tracing what a takeover does with the state of a program.

    Args:
      program: the program.
      shapes: what tracing found out about it.
      h: its hyperparameters; traced ones are ``ShapeDtypeStruct``s, ().
      train, valid: the splits, as ``ShapeDtypeStruct``s.
    """
    key = lane_key(0, 0)
    # The key is input 0, and the hyperparameters are the others.
    names = [path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(h)]
    begun = flows(lambda key, h: start_lane(program, shapes, key, h).state, key, h)
    of = {i: {names[n - 1] for n in flow.inputs - {0}} - {"fold"} for i, flow in enumerate(begun)}
    if not any(of.values()):
        return Takeover()
    after = _after(program, shapes, key, h, train, valid)
    renewed: list[int] = []
    kept: dict[str, str] = {}
    for i in (i for i, own in of.items() if own):
        unchanged = after[i].same == i
        if unchanged and 0 not in begun[i].inputs:
            renewed.append(i)
        # What nothing else depends on is computed anew before it is used, as the value of a schedule.
        elif unchanged or any(i in flow.inputs for j, flow in enumerate(after) if j != i):
            kept |= dict.fromkeys(sorted(of[i]), "/".join(map(str, shapes.names[i])) or "the state")
    return Takeover(tuple(renewed), kept)


def _after(
    program: Program, shapes: ProgramShapes, key: jax.Array, h: Hparams, train: Arrays, valid: Arrays
) -> list[Flow]:
    """Returns how a step and an evaluation make the arrays of a state, and their metrics, of the arrays before."""

    # What ``finish`` does ends a trial, which none takes over any more.
    program = replace(program, finish=lambda state, h: state)

    def step(arrays: Any, key: jax.Array, h: Hparams, train: Arrays, valid: Arrays) -> Any:
        zero = jnp.zeros((), jnp.int32)
        totals = {name: jnp.zeros((), float_type()) for name in shapes.train}
        lane = Lane(arrays, totals, zero, zero, jnp.full_like(zero, HEALTHY))
        lane = advance_lane(program, shapes, StepKeys.of(key), zero, lane, train, h)
        lane, evaluation = evaluate_lane(program, shapes, key, lane, zero, (train, valid), h)
        return lane.state, lane.diverged, evaluation

    return flows(step, unwrap_keys(shapes.state), key, h, train, valid)


def renewal(program: Program, shapes: ProgramShapes, takeover: Takeover) -> Callable[[Hparams], Any]:
    """Returns a function of hyperparameters, whose leaves are (), to the arrays of a state that they renew."""

    @jax.jit
    def renewed(h: Hparams) -> list[jax.Array]:
        # These arrays do not depend on the key.
        arrays = start_lane(program, shapes, lane_key(0, 0), h).state
        return [arrays[i] for i in takeover.renewed]

    return renewed
