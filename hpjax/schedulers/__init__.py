"""Schedulers: how long each trial may run. One algorithm a file; none knows of the engine."""

from hpjax.schedulers.base import Race, Scheduler
from hpjax.schedulers.halving import Halving
from hpjax.schedulers.hyperband import Hyperband
from hpjax.schedulers.median import MedianStop
from hpjax.schedulers.patience import EarlyStop

__all__ = ["EarlyStop", "Halving", "Hyperband", "MedianStop", "Race", "Scheduler"]
