"""Value checks: validates the numbers that a program computes from hyperparameters, for every trial."""

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
    tracer: Tracer, group: Group, points: Sequence[Point], lengths: Sequence[TrialLength], splits: tuple[Any, Any]
) -> set[str]:
    """Validates the numbers that the program of a group computes from the hyperparameters of its trials.

    Only these numbers are computed: of a learning rate that is ``jnp.exp(h.x)`` the one exponential, since XLA drops
    what its result does not need.

    Args:
      tracer: traces the program abstractly.
      group: the group whose trials are checked.
      points: per trial of the sweep, its hyperparameters.
      lengths: per trial of the sweep, how long it takes.
      splits: the train and valid splits; the numbers do not depend on them.

    Returns:
      The fields of which no number could be computed, since they are inside a loop or a jitted function.

    Raises:
      InputError: a number is not what the field that uses it allows.
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
        # A value of an inner loop or jit cannot leave it; one that follows from the hyperparameters alone can.
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
            # The number that prints as the float32 does: 1.1, not 1.10000002384.
            number = column[row].item() if column.dtype.kind in "biu" else float(str(column[row]))
            each.of(number, lengths[trial].steps, f"what it is computed from, in trial {trial}: {point}")
    return fields - {each.field for each in asked}


def _level(tracer: Any) -> Any:
    """Returns what identifies the transformation that a tracer belongs to.

    JAX does not publish it. A version without this attribute gives each tracer a level of its own, so that nothing is
    checked here, and its fields are reported as unseen.
    """
    return id(getattr(tracer, "_trace", tracer))
