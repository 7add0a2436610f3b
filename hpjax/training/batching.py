"""Batching: how many examples and microbatches the batches of a lane have."""

from collections.abc import Callable
from typing import Any, NamedTuple

from hpjax.core.arrays import ceil_div
from hpjax.core.hparams import Hparams
from hpjax.training.ramp import Filled, parts_of


class Batching(NamedTuple):
    """How a lane takes its batches.

    Attributes:
      batch_size: examples of a batch, a function of ``h``, or a ramp of them; None with a stream.
      microbatch: examples of a call, where several calls make a batch; else None.
    """

    batch_size: Callable[[Hparams], Any] | None
    microbatch: int | None

    def changes(self, h: Hparams) -> bool:
        """Returns whether the batch size changes while a lane trains."""
        return self.batch_size is not None and callable(self.batch_size(h))

    def size(self, h: Hparams) -> Any:
        """Returns the examples that are drawn as one batch, a number or int32 (); of a ramp those of a call."""
        assert self.batch_size is not None
        return self.microbatch if self.changes(h) else self.batch_size(h)

    def microsteps(self, h: Hparams) -> Any:
        """Returns the number of calls that are drawn as one batch, a number or int32 ()."""
        return 1 if self.microbatch is None or self.batch_size is None else ceil_div(self.size(h), self.microbatch)

    def present(self, filled: Filled | None, h: Hparams) -> tuple[Any, Any]:
        """Returns the examples, None with a stream, and the calls of the present batch, numbers or int32 ().

        Args:
          filled: the batches before it, where their size changes.
          h: the hyperparameters.
        """
        if filled is None or self.batch_size is None or self.microbatch is None:
            return None if self.batch_size is None else self.size(h), self.microsteps(h)
        parts = parts_of(self.batch_size(h), filled, self.microbatch)
        return parts * self.microbatch, parts
