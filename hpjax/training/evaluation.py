"""Evaluation: loss and metrics over a whole split, or over the fold of it that is a lane's own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.core.arrays import ceil_div
from hpjax.core.hparams import Hparams
from hpjax.data.batches import Fold
from hpjax.data.examples import Examples, examples_in
from hpjax.training.measures import Measures, Values


def measure_split(
    forward: Callable[[Any], Any], measures: Measures, split: Examples, h: Hparams, batch_size: int
) -> Values:
    """Returns loss and metrics over a split, float (), exact for any ``batch_size``.

    Args:
      forward: maps inputs, (examples, ...), to the outputs of the model.
      measures: the loss and the metrics.
      split: the examples; with folds the whole pool, of which the lane's fold is measured.
      h: the hyperparameters.
      batch_size: the most examples that are computed at once.
    """
    everything = examples_in(split)
    fold = Fold.of(h.fold, h.folds, everything) if "fold" in h else Fold(0, everything)
    most = ceil_div(everything, h.folds) if "fold" in h else everything
    parts = ceil_div(most, batch_size)
    size = ceil_div(most, parts)

    def part(i: jax.Array) -> Values:
        index = i * size + jnp.arange(size)
        inside = fold.start + jnp.minimum(index, fold.size - 1)
        x, y = jax.tree.map(lambda a: jnp.asarray(a)[inside], split)
        values = measures(forward(x), y, h)
        # The last part may reach beyond the split; those values are left out of the sum.
        return {name: jnp.where(index < fold.size, v, 0).sum() for name, v in values.items()}

    sums = lax.map(part, jnp.arange(parts)) if parts > 1 else part(jnp.int32(0))
    return {name: value.sum() / fold.size for name, value in sums.items()}
