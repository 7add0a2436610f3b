"""Hyperparameters as array axes: one compiled program trains hundreds of Flax models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpjax import data as data
    from hpjax import nn as nn
    from hpjax import optim as optim
    from hpjax import samplers as samplers
    from hpjax import schedulers as schedulers
    from hpjax import studies as studies
    from hpjax.core import keys as keys
    from hpjax.core.choice import Choice as Choice
    from hpjax.core.errors import InputError as InputError
    from hpjax.core.errors import ProgramError as ProgramError
    from hpjax.core.errors import RunError as RunError
    from hpjax.core.errors import UnknownHyperparameterError as UnknownHyperparameterError
    from hpjax.core.hparams import Hparams as Hparams
    from hpjax.core.intervals import Int as Int
    from hpjax.core.intervals import LogInt as LogInt
    from hpjax.core.intervals import LogUniform as LogUniform
    from hpjax.core.intervals import ReverseLogUniform as ReverseLogUniform
    from hpjax.core.intervals import Uniform as Uniform
    from hpjax.core.objective import maximize as maximize
    from hpjax.core.objective import minimize as minimize
    from hpjax.core.program import Data as Data
    from hpjax.core.program import Program as Program
    from hpjax.core.space import Space as Space
    from hpjax.engine import distributed as distributed
    from hpjax.engine.machine import setup as setup
    from hpjax.engine.tracing import Verdict as Verdict
    from hpjax.frontends import sklearn as sklearn
    from hpjax.frontends import submitit as _submitit
    from hpjax.frontends import testing as testing
    from hpjax.frontends.optuna import as_objective as as_objective
    from hpjax.results import analysis as analysis
    from hpjax.results import plot as plot
    from hpjax.results import trackers as trackers
    from hpjax.results.analysis import winners_curse as winners_curse
    from hpjax.results.diagnosis import diagnose as diagnose
    from hpjax.results.merge import merge as merge
    from hpjax.results.result import Result as Result
    from hpjax.results.result import load as load
    from hpjax.results.trial import Trial as Trial
    from hpjax.samplers import Bayes as Bayes
    from hpjax.samplers import CoordinateDescent as CoordinateDescent
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
    from hpjax.studies import mup as mup
    from hpjax.sweep.models import TrainedModels as TrainedModels
    from hpjax.sweep.planning.plan import Plan as Plan
    from hpjax.sweep.replay import Replay as Replay
    from hpjax.sweep.running.events import CompileFinished as CompileFinished
    from hpjax.sweep.running.events import CompileStarted as CompileStarted
    from hpjax.sweep.running.events import Decision as Decision
    from hpjax.sweep.running.events import Event as Event
    from hpjax.sweep.running.events import GroupFailed as GroupFailed
    from hpjax.sweep.running.events import Resumed as Resumed
    from hpjax.sweep.running.events import SegmentFinished as SegmentFinished
    from hpjax.sweep.running.events import WidthHalved as WidthHalved
    from hpjax.sweep.running.events import WidthMeasured as WidthMeasured
    from hpjax.sweep.running.preemption import Preempted as Preempted
    from hpjax.sweep.sweep import Sweep as Sweep
    from hpjax.training import losses as losses
    from hpjax.training import metrics as metrics
    from hpjax.training.builder import supervised as supervised
    from hpjax.training.early_stopping import EarlyStopping as EarlyStopping
    from hpjax.training.function import function as function

    cluster = _submitit

__version__ = "0.1.0"

# All is imported when first used, so that `hpjax --help` does not wait for JAX. These tables say the same as the
# imports above, which are for type checkers and editors: a test compares them.
_MODULES = {
    "analysis": "hpjax.results.analysis",
    "cluster": "hpjax.frontends.submitit",
    "data": "hpjax.data",
    "distributed": "hpjax.engine.distributed",
    "keys": "hpjax.core.keys",
    "losses": "hpjax.training.losses",
    "metrics": "hpjax.training.metrics",
    "mup": "hpjax.studies.mup",
    "nn": "hpjax.nn",
    "optim": "hpjax.optim",
    "plot": "hpjax.results.plot",
    "samplers": "hpjax.samplers",
    "schedulers": "hpjax.schedulers",
    "sklearn": "hpjax.frontends.sklearn",
    "studies": "hpjax.studies",
    "testing": "hpjax.frontends.testing",
    "trackers": "hpjax.results.trackers",
}
_HOME = {
    "hpjax.frontends.optuna": ["as_objective"],
    "hpjax.results.analysis": ["winners_curse"],
    "hpjax.results.diagnosis": ["diagnose"],
    "hpjax.core.errors": ["InputError", "ProgramError", "RunError", "UnknownHyperparameterError"],
    "hpjax.sweep.models": ["TrainedModels"],
    "hpjax.sweep.planning.plan": ["Plan"],
    "hpjax.sweep.replay": ["Replay"],
    "hpjax.sweep.running.events": [
        *("CompileFinished", "CompileStarted", "Decision", "Event", "GroupFailed"),
        *("Resumed", "SegmentFinished", "WidthHalved", "WidthMeasured"),
    ],
    "hpjax.core.hparams": ["Hparams"],
    "hpjax.engine.machine": ["setup"],
    "hpjax.engine.tracing": ["Verdict"],
    "hpjax.results.merge": ["merge"],
    "hpjax.core.objective": ["maximize", "minimize"],
    "hpjax.sweep.running.preemption": ["Preempted"],
    "hpjax.core.program": ["Data", "Program"],
    "hpjax.results.result": ["Result", "load"],
    "hpjax.samplers": [
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
    ],
    "hpjax.schedulers": ["PBT", "Clone", "EarlyStop", "Halving", "Hyperband", "MedianStop", "Race", "Scheduler"],
    "hpjax.core.choice": ["Choice"],
    "hpjax.core.intervals": ["Int", "LogInt", "LogUniform", "ReverseLogUniform", "Uniform"],
    "hpjax.core.space": ["Space"],
    "hpjax.training.early_stopping": ["EarlyStopping"],
    "hpjax.training.builder": ["supervised"],
    "hpjax.training.function": ["function"],
    "hpjax.sweep.sweep": ["Sweep"],
    "hpjax.results.trial": ["Trial"],
}
_HOME_OF = {name: module for module, names in _HOME.items() for name in names}

# Without the modules that import what only extras install: `from hpjax import *` works without these.
__all__ = sorted({*_HOME_OF, *_MODULES} - {"cluster", "sklearn"})  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # or a name that is misspelled would be right for type checkers

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(_MODULES[name])
        if name in _HOME_OF:
            return getattr(import_module(_HOME_OF[name]), name)
        from hpjax.core.errors import nearest

        near = nearest(name, __dir__())
        known = "Type dir(hpjax) to see all names." if near is None else f"Did you mean {near!r}?"
        # Python adds a suggestion of its own, which may be another one, unless name and obj are given as None.
        raise AttributeError(f"module 'hpjax' has no attribute {name!r}. {known}", name=None, obj=None)


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
