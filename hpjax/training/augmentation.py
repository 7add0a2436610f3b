"""Augmentation of training batches by the user's function."""

from collections.abc import Callable

import jax

from hpjax.core.errors import ProgramError, annotate_errors
from hpjax.core.hparams import Hparams
from hpjax.data.examples import Examples


def augmented(
    augment: Callable[[jax.Array, Examples, Hparams], Examples], key: jax.Array, batch: Examples, h: Hparams
) -> Examples:
    """Returns ``augment(key, batch, h)``.

    Raises:
      ProgramError: the result is not ``Examples``.
    """
    found = annotate_errors("supervised.augment", augment)(key, batch, h)
    if not isinstance(found, Examples):
        raise ProgramError(
            f"supervised.augment must return Examples(x, y), got {type(found).__name__}. Write batch._replace(x=...)."
        )
    return found
