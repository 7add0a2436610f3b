"""hpjax: hyperparameters as array axes. One compiled program trains hundreds of Flax models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpjax import cluster as cluster
    from hpjax import data as data
    from hpjax import distributed as distributed
    from hpjax import keys as keys
    from hpjax import losses as losses
    from hpjax import metrics as metrics
    from hpjax import nn as nn
    from hpjax import optim as optim
    from hpjax import plot as plot
    from hpjax import samplers as samplers
    from hpjax import schedulers as schedulers
    from hpjax import sklearn as sklearn
    from hpjax import studies as studies
    from hpjax import testing as testing
    from hpjax.adapters import as_objective as as_objective
    from hpjax.analysis import winners_curse as winners_curse
    from hpjax.diagnosis import diagnose as diagnose
    from hpjax.domains import Choice as Choice
    from hpjax.domains import Int as Int
    from hpjax.domains import LogInt as LogInt
    from hpjax.domains import LogUniform as LogUniform
    from hpjax.domains import ReverseLogUniform as ReverseLogUniform
    from hpjax.domains import Uniform as Uniform
    from hpjax.errors import InputError as InputError
    from hpjax.errors import ProgramError as ProgramError
    from hpjax.errors import RunError as RunError
    from hpjax.errors import UnknownHyperparameterError as UnknownHyperparameterError
    from hpjax.event import Event as Event
    from hpjax.hparams import Hparams as Hparams
    from hpjax.machine import setup as setup
    from hpjax.merging import merge as merge
    from hpjax.objective import maximize as maximize
    from hpjax.objective import minimize as minimize
    from hpjax.preemption import Preempted as Preempted
    from hpjax.program import Data as Data
    from hpjax.program import Program as Program
    from hpjax.result import Result as Result
    from hpjax.result import load as load
    from hpjax.samplers import Bayes as Bayes
    from hpjax.samplers import Grid as Grid
    from hpjax.samplers import Manual as Manual
    from hpjax.samplers import Observation as Observation
    from hpjax.samplers import Optuna as Optuna
    from hpjax.samplers import Random as Random
    from hpjax.samplers import Refine as Refine
    from hpjax.samplers import Sampler as Sampler
    from hpjax.samplers import Sobol as Sobol
    from hpjax.schedulers import PBT as PBT
    from hpjax.schedulers import Clone as Clone
    from hpjax.schedulers import EarlyStop as EarlyStop
    from hpjax.schedulers import Halving as Halving
    from hpjax.schedulers import Hyperband as Hyperband
    from hpjax.schedulers import MedianStop as MedianStop
    from hpjax.schedulers import Race as Race
    from hpjax.schedulers import Scheduler as Scheduler
    from hpjax.space import Space as Space
    from hpjax.stopping import EarlyStopping as EarlyStopping
    from hpjax.supervise import supervised as supervised
    from hpjax.sweep import Sweep as Sweep
    from hpjax.trial import Trial as Trial

__version__ = "0.1.0"

# All is imported when first used, so that `hpjax --help` does not wait for JAX. These tables say the same as the
# imports above, which are for type checkers and editors: a test compares them.
_MODULES = {
    "cluster": "hpjax.cluster",
    "data": "hpjax.data",
    "distributed": "hpjax.distributed",
    "keys": "hpjax.keys",
    "losses": "hpjax.losses",
    "metrics": "hpjax.metrics",
    "nn": "hpjax.nn",
    "optim": "hpjax.optim",
    "plot": "hpjax.plot",
    "samplers": "hpjax.samplers",
    "schedulers": "hpjax.schedulers",
    "sklearn": "hpjax.sklearn",
    "studies": "hpjax.studies",
    "testing": "hpjax.testing",
}
_HOME = {
    "hpjax.adapters": ["as_objective"],
    "hpjax.analysis": ["winners_curse"],
    "hpjax.diagnosis": ["diagnose"],
    "hpjax.errors": ["InputError", "ProgramError", "RunError", "UnknownHyperparameterError"],
    "hpjax.event": ["Event"],
    "hpjax.hparams": ["Hparams"],
    "hpjax.machine": ["setup"],
    "hpjax.merging": ["merge"],
    "hpjax.objective": ["maximize", "minimize"],
    "hpjax.preemption": ["Preempted"],
    "hpjax.program": ["Data", "Program"],
    "hpjax.result": ["Result", "load"],
    "hpjax.samplers": ["Bayes", "Grid", "Manual", "Observation", "Optuna", "Random", "Refine", "Sampler", "Sobol"],
    "hpjax.schedulers": ["PBT", "Clone", "EarlyStop", "Halving", "Hyperband", "MedianStop", "Race", "Scheduler"],
    "hpjax.domains": ["Choice", "Int", "LogInt", "LogUniform", "ReverseLogUniform", "Uniform"],
    "hpjax.space": ["Space"],
    "hpjax.stopping": ["EarlyStopping"],
    "hpjax.supervise": ["supervised"],
    "hpjax.sweep": ["Sweep"],
    "hpjax.trial": ["Trial"],
}
_HOME_OF = {name: module for module, names in _HOME.items() for name in names}

# Without the modules that import what only extras install: `from hpjax import *` works without these.
__all__ = sorted({*_HOME_OF, *_MODULES} - {"cluster", "sklearn"})  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    from hpjax.errors import did_you_mean

    raise AttributeError(f"module 'hpjax' has no attribute {name!r}. {did_you_mean(name, __dir__())}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
