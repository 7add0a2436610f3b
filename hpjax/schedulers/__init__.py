"""Schedulers decide how long each trial may run. One algorithm a file; none knows of the engine."""

from hpjax.schedulers.base import Clone, Race, Scheduler
from hpjax.schedulers.halving import Halving
from hpjax.schedulers.hyperband import Hyperband
from hpjax.schedulers.median import MedianStop
from hpjax.schedulers.patience import EarlyStop
from hpjax.schedulers.pbt import PBT

__all__ = ["PBT", "Clone", "EarlyStop", "Halving", "Hyperband", "MedianStop", "Race", "Scheduler"]
