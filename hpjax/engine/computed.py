"""Checks of the numbers that a program computes from hyperparameters, for every trial."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.checks import Check, collecting
from hpjax.engine.lane import life
from hpjax.engine.trace import Tracer
from hpjax.hparams import Hparams, with_fold


def check(tracer: Tracer, h: Hparams, splits: tuple[Any, Any]) -> None:
    """Computes what checks ask for, and nothing else: of a rate of ``jnp.exp(h.x)`` the one exponential.

    Args:
      tracer: what abstract tracing needs to know.
      h: of all trials of one group, with leaves of shape (trials,).
      splits: the data; what is checked does not depend on it.

    Raises:
      InputError: a number is not what the code that uses it allows.
    """
    if not jax.tree.leaves(h):
        return
    asked: list[Check] = []

    def values(h: Hparams, train: Any, valid: Any) -> list[Any]:
        h = h if tracer.folds is None else with_fold(h, jnp.int32(0), tracer.folds)
        with collecting() as found:
            life(tracer.program, h, train, valid)
        # Those of loops and jitted functions inside cannot leave them.
        ours = {_level(leaf) for leaf in jax.tree.leaves(h)}
        asked[:] = [each for each in found if isinstance(each.value, jax.core.Tracer) and _level(each.value) in ours]
        return [each.value for each in asked]

    try:
        numbers = jax.jit(jax.vmap(values, in_axes=(0, None, None)))(h, *splits)
    except jax.errors.UnexpectedTracerError:
        return
    for each, found in zip(asked, numbers, strict=True):
        for number in np.unique(np.asarray(found)):
            # As it prints: 1.1, not its nearest float32.
            each.of(number.item() if number.dtype.kind in "biu" else float(str(number)))


def _level(tracer: Any) -> Any:
    """Which transformation a tracer belongs to; JAX keeps it to itself, and without it nothing is checked here."""
    return id(getattr(tracer, "_trace", tracer))
