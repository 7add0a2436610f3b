"""Augmentation of training batches by the user's function."""

from collections.abc import Callable

import jax

from hpjax.core.errors import ProgramError, annotate_errors
from hpjax.core.hparams import Hparams
from hpjax.data.examples import AnyExamples, Examples, WeightedExamples, examples_in


def augmented(
    augment: Callable[[jax.Array, AnyExamples, Hparams], AnyExamples], key: jax.Array, batch: AnyExamples, h: Hparams
) -> AnyExamples:
    """Returns ``augment(key, batch, h)``, with the weights of ``batch`` where that gives none.

    Raises:
      ProgramError: the result is not examples, or has weights that the data has not.
    """
    found = annotate_errors("supervised.augment", augment)(key, batch, h)
    if not isinstance(found, AnyExamples):
        raise ProgramError(
            f"supervised.augment must return Examples(x, y), got {type(found).__name__}. Write batch._replace(x=...)."
        )
    if isinstance(found, WeightedExamples) and batch.weights is None:
        raise ProgramError(
            "supervised.augment gives weights, and the data has none. Write weights=numpy.ones(len(x)) in from_arrays."
        )
    if isinstance(found, Examples) and batch.weights is not None:
        now, before = examples_in(found.y), examples_in(batch.y)
        if now != before:
            raise ProgramError(
                f"supervised.augment gives {now} examples of {before}, and no weights. Write "
                "hpx.data.WeightedExamples(x, y, weights)."
            )
        return WeightedExamples(found.x, found.y, batch.weights)
    return found
