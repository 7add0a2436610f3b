"""Prediction: trained states as a function of inputs."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hpjax.core.errors import InputError, RunError
from hpjax.core.hparams import Hparams
from hpjax.core.program import Program, State
from hpjax.data.examples import Examples
from hpjax.data.stream import first_batch_of

BLOCK = 512  # examples at once


class Predictor:
    """What a trial's trained states make of inputs; compiles once for each power of two of examples.

    Args:
      program: with ``predict``.
      h: the trial's hyperparameters as its lanes had them: arrays where they are traced.
      states: the final state of each replicate.

    Raises:
      RunError: the program does not say how to predict.
    """

    def __init__(self, program: Program, h: Hparams, states: Sequence[State]) -> None:
        if program.predict is None:
            raise RunError("the program does not say how to predict. Give Program(predict=...): see its help.")
        self._states, self._h = states, h
        train = first_batch_of(program.splits[0])
        self._example = train.x if isinstance(train, Examples) else None
        self._predict = jax.jit(program.predict)

    def __call__(self, x: Any) -> Any:
        """The outputs of every replicate for inputs (examples, ...): arrays (replicates, examples, ...).

        Raises:
          InputError: there are no inputs, or arrays of different lengths.
        """
        x = jax.tree.map(np.asarray, x)
        counts = {leaf.shape[:1] for leaf in jax.tree.leaves(x)}
        if len(counts) != 1 or counts <= {(), (0,)}:
            shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
            raise InputError("predict.x", shapes, "must have one row an example, and at least one", "Give x[None].")
        ((count,),) = counts
        self._check(x)
        blocks = [self._block(x, range(start, min(start + BLOCK, count))) for start in range(0, count, BLOCK)]
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *blocks)

    def _check(self, x: Any) -> None:
        """Raises ``InputError`` where an example has another shape than those of the training split."""
        if self._example is not None:
            found, wanted = (jax.tree.map(lambda leaf: leaf.shape[1:], tree) for tree in (x, self._example))
            if found != wanted:
                raise InputError("predict.x", found, f"must have examples of shape {wanted}", "Reshape it.")

    def _block(self, x: Any, rows: range) -> Any:
        # The first row fills up to a power of two, so that few sizes compile.
        padded = [*rows, *[rows[0]] * ((1 << (len(rows) - 1).bit_length()) - len(rows))]
        some = jax.tree.map(lambda leaf: leaf[padded], x)
        outputs = [self._predict(state, some, self._h) for state in self._states]
        if any(leaf.shape[:1] != (len(padded),) for leaf in jax.tree.leaves(outputs)):
            shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(x)]
            raise InputError("predict.x", shapes, "gives outputs that have no row an example", "Give x[None].")
        return jax.tree.map(lambda *each: np.stack([np.asarray(a)[: len(rows)] for a in each]), *outputs)


__all__ = ["Predictor"]
