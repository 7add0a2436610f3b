"""What decides whether segments may run ahead: signals by which to leave, checkpoints, and measurements of widths."""

from collections.abc import Callable

from hpjax.engine.distributed import several
from hpjax.sweep.running.recorder import Record
from hpjax.sweep.running.tuner import Tuner


class Notices:
    """The signals by which to leave, and whether segments may run ahead of them.

    It is apart from the run since waves refer to it: a reference to the run would be a cycle, and an abandoned run
    would keep its directory locked until garbage is collected.
    """

    def __init__(self, record: Record, tuner: Tuner) -> None:
        self._record, self._tuner = record, tuner
        self.leaving: Callable[[], int] = lambda: 0

    def may_run_ahead(self) -> bool:
        """Returns whether a wave may dispatch a segment before the one before it is read.

        It may not if a checkpoint is about to be written or a width to be measured, nor with several hosts, which could
        not agree on it.
        """
        return not (several() or self.leaving() or self._record.due(False) or self._tuner.due())
