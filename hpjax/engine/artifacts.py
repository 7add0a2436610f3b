"""Artifacts: arrays that a program makes of one lane at an evaluation, computed apart from the program that trains."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from hpjax.core.errors import InputError, RunError
from hpjax.core.format import show
from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.core.program import Arrays, Program
from hpjax.core.recordable import is_name
from hpjax.core.user_code import first_line, user_lines
from hpjax.engine.lane import rebuilt_state
from hpjax.engine.lowering import lowering
from hpjax.engine.one_lane import of_one_lane
from hpjax.engine.segment import SegmentConfig
from hpjax.engine.shapes import ProgramShapes, unwrap_keys
from hpjax.engine.state_tree import is_array, names_of, split_state

FIELD = "Program.artifacts"
REMEDY = 'Write artifacts=lambda key, state, split, h: {"samples": array}.'


def artifact_function(config: SegmentConfig, seed: int) -> Callable[..., dict[str, jax.Array]]:
    """Returns what computes the artifacts of one lane, and compiles once.

    Its arguments are the arrays of the lane's state, as ``of_one_lane`` takes them; the trial id and the calls of
    ``step`` that the lane took, each int32 (); the validation split; and the hyperparameters of the lane, leaves of
    shape (). The lane is that of replicate 0, with its fold 0.

    Args:
      config: what the program of the lane's group was compiled for.
      seed: the sweep's seed.
    """
    program, shapes = config.program, config.shapes

    def artifacts(arrays: Sequence[Any], trial: Any, calls: Any, valid: Arrays, h: Hparams) -> dict[str, Any]:
        lane = lane_key(seed, 0, trial if config.independent else None)
        return _computed(program, shapes, lane, calls)(arrays, valid, _of_first_fold(h, config.folds))

    compiled = of_one_lane(artifacts, config.span)

    def call(arrays: Sequence[Any], trial: Any, calls: Any, valid: Arrays, h: Hparams) -> dict[str, jax.Array]:
        with lowering(config.lowered, config.drawn):
            found: dict[str, jax.Array] = compiled(arrays, trial, calls, valid, h)
        return found

    return call


def trace_artifacts(program: Program, shapes: ProgramShapes, valid: Arrays, h: Hparams, folds: int) -> None:
    """Traces the artifacts of a program abstractly.

    Args:
      program: a program that has artifacts.
      shapes: what tracing found out about it.
      valid: ``ShapeDtypeStruct``s of the validation split.
      h: the hyperparameters, with ``ShapeDtypeStruct``s of shape () in place of traced values, without a fold.
      folds: how many folds there are, 1 for none.

    Raises:
      InputError: the function returns something else than arrays by name.
      Exception: whatever the function raises.
    """

    def compute(arrays: Sequence[Any], valid: Arrays, h: Hparams) -> dict[str, Any]:
        return _computed(program, shapes, lane_key(0, 0), 0)(arrays, valid, _of_first_fold(h, folds))

    jax.eval_shape(compute, unwrap_keys(shapes.state), valid, h)


def _of_first_fold(h: Hparams, folds: int) -> Hparams:
    """Returns the hyperparameters of replicate 0, whose fold is known, so that shapes may follow from it."""
    return with_fold(h, 0, folds) if folds > 1 else h


def _computed(program: Program, shapes: ProgramShapes, lane: jax.Array, calls: Any) -> Callable[..., dict[str, Any]]:
    """Returns a function of the arrays of a state, the validation split and ``h`` that gives arrays by name."""
    assert program.artifacts is not None
    artifacts = program.artifacts

    def computed(arrays: Sequence[Any], valid: Arrays, h: Hparams) -> dict[str, Any]:
        state = rebuilt_state(program, shapes, lane, h, arrays)
        return named_arrays(artifacts(step_key(purpose_key(lane, "artifacts"), calls), state, valid, h))

    return computed


def named_arrays(found: Any) -> dict[str, Any]:
    """Returns the arrays that a program gave as its artifacts, by name; typed PRNG keys as their raw data.

    Arrays within a pytree have the name of the artifact and their names in it, ``samples/mean``.

    Raises:
      InputError: it gave something else, or names that no record can hold.
    """
    if not isinstance(found, Mapping):
        raise InputError(FIELD, type(found).__name__, "must return a dict of name to array", REMEDY)
    leaves = jax.tree_util.tree_leaves_with_path(dict(found))
    for path, leaf in leaves:
        if not is_array(leaf):
            where = f"{FIELD}{jax.tree_util.keystr(path)}"
            raise InputError(where, show(leaf), "must be an array", "Return arrays of numbers alone.")
    names = ["/".join(map(str, names_of(path))) for path, _ in leaves]
    for name in names:
        if not is_name(name) or names.count(name) > 1:
            raise InputError(FIELD, name, "must have printable names, each once", 'Write {"samples": array}.')
    arrays, tree = split_state({name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)})
    return {str(name): array for (name,), array in zip(tree.names(), unwrap_keys(arrays), strict=True)}


def failure_of(function: Any, error: Exception) -> str:
    """Returns why a function of artifacts failed, on one line without a stop, with the user's line of code."""
    where = f" ({lines[-1]})" if (lines := user_lines(error)) else ""
    what = " ".join(str(error).split()) if isinstance(error, RunError) else first_line(error)
    return f"artifacts={show(function)} failed: {what.rstrip('.')}{where}"
