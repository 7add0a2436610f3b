"""Samplers propose the points to try next. One algorithm a file; none knows of the engine.

Example:
  >>> space = hpx.Space(rate=hpx.LogUniform(1e-4, 1.0))
  >>> len(hpx.samplers.Sobol().ask(space, [], 4, seed=0))
  4
"""

from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.bayes import Bayes
from hpjax.samplers.coordinate_descent import CoordinateDescent
from hpjax.samplers.grid import Grid
from hpjax.samplers.manual import Manual
from hpjax.samplers.optuna import Optuna
from hpjax.samplers.random import Random
from hpjax.samplers.refine import Refine
from hpjax.samplers.sobol import Sobol

__all__ = [
    "Bayes",
    "CoordinateDescent",
    "Grid",
    "Manual",
    "Observation",
    "Optuna",
    "Random",
    "Refine",
    "Sampler",
    "Sobol",
]
