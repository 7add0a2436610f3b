"""The length of trials: optimizer steps, or epochs in their place."""

import math
from typing import Any

from hpjax.core.errors import InputError
from hpjax.core.format import show
from hpjax.core.hparams import Hparams
from hpjax.core.program import Data
from hpjax.data.examples import examples_in
from hpjax.data.stream import Stream
from hpjax.training.settings import number


def steps_of(steps: Any, epochs: Any, batch_size: Any, microbatch: int | None, data: Data) -> Any:
    """Returns ``steps``, a constant or a function of ``h``; of epochs as a function of ``h``.

    So many epochs are ⌈epochs × training examples / batch size⌉ steps; where the batch size changes while a lane
    trains, steps are microbatches. With folds the training examples are those outside of the smallest fold.

    Args:
      steps, epochs, batch_size, microbatch: as given to ``supervised``.
      data: the checked splits.

    Raises:
      InputError: not exactly one of ``steps`` and ``epochs`` is given, or epochs are no number above 0 or of a stream.
    """
    if (steps is None) == (epochs is None):
        found = None if steps is None else (steps, epochs)
        raise InputError("supervised.steps", found, "must be given, or epochs in its place", "Write steps=1_000.")
    if epochs is None:
        return steps
    if isinstance(data.train, Stream):
        allowed = "cannot be counted in a stream, whose end nobody knows"
        raise InputError("supervised.epochs", show(epochs), allowed, "Write steps=1_000.")
    if not callable(epochs):
        _check(epochs)
    train, epochs_of, size_of = examples_in(data.train), number("epochs", epochs), number("batch_size", batch_size)

    def steps_of_h(h: Hparams) -> int:
        examples = train
        if "folds" in h:
            pooled = train + examples_in(data.valid)
            examples = pooled - pooled // h.folds
        # Rounded, so that 0.3 epochs of 100 examples in batches of 10 are 3 steps and not 4.
        size = size_of(h)
        exact = _check(epochs_of(h)) * examples / int((microbatch or 1) if callable(size) else size)
        return math.ceil(round(exact, 6))

    return steps_of_h


def _check(epochs: Any) -> float:
    """Returns epochs as a float; raises ``InputError`` unless they are a number above 0."""
    try:
        given = 0.0 if isinstance(epochs, bool | str | bytes) else float(epochs)
    except (TypeError, ValueError):
        given = 0.0
    if not 0 < given < math.inf:
        raise InputError("supervised.epochs", epochs, "must be a number above 0", "Write epochs=10.")
    return given
