"""Checks of the numbers that a program computes from hyperparameters, for every trial."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.bounds import Check, collecting
from hpjax.core.format import show
from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.program import TrialLength
from hpjax.core.space import Point
from hpjax.engine.probe import trace_lifecycle
from hpjax.engine.tracing import Tracer, stack_hparams
from hpjax.sweep.planning.plan import Group


def check(
    tracer: Tracer, group: Group, points: Sequence[Point], schedules: Sequence[TrialLength], splits: tuple[Any, Any]
) -> set[str]:
    """Computes what checks ask for, and nothing else: of a rate of ``jnp.exp(h.x)`` the one exponential.

    Args:
      tracer: what abstract tracing needs to know.
      group: whose trials are checked.
      points, schedules: of every trial.
      splits: the data; what is checked does not depend on it.

    Returns:
      The fields of which no number could be computed, since they stand in a loop or in a jitted function.

    Raises:
      InputError: a number is not what the code that uses it allows.
    """
    own = [points[trial] for trial in group.trials]
    h = stack_hparams(tracer.kinds, own, own[0].keys() - group.static.keys())
    asked: list[Check] = []
    fields: set[str] = set()

    def values(h: Hparams, train: Any, valid: Any) -> list[Any]:
        ours = {_level(leaf) for leaf in jax.tree.leaves(h)}
        h = h if tracer.folds is None else with_fold(h, jnp.int32(0), tracer.folds)
        with collecting() as found:
            trace_lifecycle(tracer.program, h, train, valid)
        found = [each for each in found if isinstance(each.value, jax.core.Tracer)]
        fields.update(each.field for each in found)
        asked[:] = [each for each in found if _level(each.value) in ours]
        return [each.value for each in asked]

    try:
        numbers = jax.jit(jax.vmap(values, in_axes=(0, None, None)))(h, *splits) if jax.tree.leaves(h) else []
    except jax.errors.UnexpectedTracerError:
        return fields
    columns = [np.asarray(found) for found in numbers]
    for row, trial in enumerate(group.trials):
        point = ", ".join(f"{name}={show(value)}" for name, value in points[trial].items())
        for each, column in zip(asked, columns, strict=True):
            # As it prints: 1.1, not its nearest float32.
            number = column[row].item() if column.dtype.kind in "biu" else float(str(column[row]))
            each.of(number, schedules[trial].steps, f"what it is computed from, in trial {trial}: {point}")
    return fields - {each.field for each in asked}


def _level(tracer: Any) -> Any:
    """Which transformation a tracer belongs to; JAX keeps it to itself, and without it nothing is checked here."""
    return id(getattr(tracer, "_trace", tracer))
