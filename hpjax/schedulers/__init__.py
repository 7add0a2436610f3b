"""Schedulers: how long each trial may run. One algorithm a file; none knows of the engine."""

from hpjax.schedulers.base import Scheduler

__all__ = ["Scheduler"]
