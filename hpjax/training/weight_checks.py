"""Checks of the weights of the data's examples, before anything trains."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from hpjax.core.errors import InputError
from hpjax.core.hparams import Hparams
from hpjax.core.program import Data
from hpjax.data.examples import AnyExamples, examples_in, named_sets, take
from hpjax.data.stream import Stream, first_batch_of
from hpjax.training.weighting import Weighting


def check_weighting(weighting: Weighting, data: Data, augmented: bool, at_once: int) -> None:
    """Raises unless the user's function gives the examples of each split weights that a mean can be taken with.

    It is called with the data itself, and so cannot be where it takes ``h``. What it gives for training batches that
    are augmented or streamed is seen in training alone, of a stream all but the first batch.

    Args:
      weighting: what examples count.
      data: the checked splits.
      augmented: whether training batches are augmented.
      at_once: for how many examples the function is called.

    Raises:
      InputError: a weight is below 0 or not finite, or all weights of a set are 0.
    """
    if weighting.function is None or weighting.takes_h:
        return
    for field, examples, whole in _sets(data, augmented):
        some = False
        count = examples_in(examples)
        for begin in range(0, count, at_once):
            part = take(examples, jnp.arange(begin, min(begin + at_once, count)))
            try:
                own = np.asarray(weighting.own(part, Hparams({})))
                weights = weighting.weights(part, Hparams({})).together(examples_in(part))
            except Exception:  # the trace of the program names it, with the shapes of its batches
                return
            bad = own[~(np.isfinite(own) & (own >= 0))]
            if bad.size:
                remedy = "Write weights=lambda y: jnp.maximum(..., 0)."
                raise InputError(
                    f"supervised.weights of {field}", bad[0].item(), "must be finite and 0 or more", remedy
                )
            some = some or bool(weights.any())
        if whole and not some:
            remedy = f"Give at least one example of {field} a weight above 0."
            raise InputError(f"supervised.weights of {field}", 0, "must not all be 0", remedy)


def _sets(data: Data, augmented: bool) -> Iterator[tuple[str, AnyExamples, bool]]:
    """Yields each set of each split: its name, its examples, and whether these are all of it."""
    splits: dict[str, Any] = {"data.valid": data.valid, "data.test": data.test}
    if not augmented:
        splits["data.train"] = first_batch_of(data.train)
    for field, split in splits.items():
        if split is not None:
            for name, examples in named_sets(split).items():
                whole = field != "data.train" or not isinstance(data.train, Stream)
                yield f"{field}[{name!r}]" if name else field, examples, whole
