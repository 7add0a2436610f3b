"""Maximal update parametrization (μP): what is tuned at one width holds at others.

``MuP`` is the argument ``mup`` of ``hpx.supervised``; ``multipliers`` has its numbers. ``attention`` and ``residual``
are for models whose heads get wider, or which get deeper. ``coordinate_check`` shows whether it works, and
``hpx.studies.Transfer`` whether the best learning rate stays.

G. Yang et al., "Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer", 2022,
arXiv 2203.03466.
"""

from hpjax.studies.coordinate_check import CoordinateCheck, coordinate_check
from hpjax.training.mup import MuP, attention, residual
from hpjax.training.mup_adam import adamw
from hpjax.training.mup_table import Multiplier, multipliers

__all__ = ["CoordinateCheck", "MuP", "Multiplier", "adamw", "attention", "coordinate_check", "multipliers", "residual"]
