"""EarlyStop: stops a trial that no longer improves."""

from collections.abc import Iterable
from dataclasses import dataclass

from hpjax.core.errors import check_float, check_int
from hpjax.schedulers.base import Race, Scheduler


@dataclass(frozen=True)
class EarlyStop(Scheduler):
    """Stops a trial whose score did not improve in ``patience`` evaluations.

    It judges a trial by all its replicates together. ``hpx.EarlyStopping``, an argument of ``hpx.supervised``, ends
    each lane by itself, with a patience that may be a hyperparameter, and keeps its best parameters.

    L. Prechelt, "Early Stopping — But When?", 1998.

    Args:
      patience: evaluations without an improvement after which a trial stops, 1 or more.
      min_delta: an improvement is a score that is better than the best by more than this, 0 or more.

    Raises:
      InputError: a number lies outside its range.

    Example:
      >>> EarlyStop(patience=2).decide(Race(3, 9, (0, 1), {0: (0.3, 0.4, 0.5), 1: (0.3, 0.2, 0.3)}))
      [0]
    """

    patience: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", check_int("EarlyStop.patience", self.patience))
        object.__setattr__(self, "min_delta", check_float("EarlyStop.min_delta", self.min_delta, 0))

    def decide(self, race: Race) -> Iterable[int]:
        return [trial for trial in race.live if self._stalled(race.curves[trial])]

    def _stalled(self, curve: tuple[float, ...]) -> bool:
        best, since = float("inf"), 0
        for score in curve:
            best, since = (score, 0) if score < best - self.min_delta else (best, since + 1)
        return since >= self.patience
