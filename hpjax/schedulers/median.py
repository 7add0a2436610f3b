"""MedianStop: stops a trial that was never as good as the others on average."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median

from hpjax.core.errors import check_int
from hpjax.schedulers.base import Race, Scheduler


@dataclass(frozen=True)
class MedianStop(Scheduler):
    """Stops a trial whose best score so far is worse than the median of all trials' averages so far.

    Trials that were stopped count with the average that they had, so that the median does not improve as bad trials
    end.

    D. Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017, section 3.2.1.

    Args:
      min_steps: calls of ``step`` before which no trial is stopped, 1 or more.

    Raises:
      InputError: ``min_steps`` is no whole number, 1 or more.

    Example:
      >>> MedianStop().decide(Race(1, 9, (0, 1, 2), {0: (0.1,), 1: (0.2,), 2: (0.3,)}))
      [2]
    """

    min_steps: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "min_steps", check_int("MedianStop.min_steps", self.min_steps))

    def next(self, step: int) -> int:
        return max(step + 1, self.min_steps)

    def decide(self, race: Race) -> Iterable[int]:
        middle = median(fmean(curve) for curve in race.curves.values() if curve)
        return [trial for trial in race.live if min(race.curves[trial]) > middle]
