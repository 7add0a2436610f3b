"""Schedulers decide how long each trial may run. One algorithm a file; none knows of the engine.

Example:
  >>> race = hpx.schedulers.Race(step=10, budget=90, live=(0, 1, 2), curves={0: (0.3,), 1: (0.1,), 2: (0.2,)})
  >>> list(hpx.schedulers.Halving(factor=3, min_steps=10).decide(race))
  [2, 0]
"""

from hpjax.schedulers.base import Clone, Race, Scheduler
from hpjax.schedulers.halving import Halving
from hpjax.schedulers.hyperband import Hyperband
from hpjax.schedulers.median import MedianStop
from hpjax.schedulers.patience import EarlyStop
from hpjax.schedulers.pbt import PBT

__all__ = ["PBT", "Clone", "EarlyStop", "Halving", "Hyperband", "MedianStop", "Race", "Scheduler"]
