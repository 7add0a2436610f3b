"""The examples in docstrings run, and print what they say."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from tests.support.marks import slow
from tests.support.programs import quadratic

MODULES = [m.name for m in pkgutil.walk_packages(hpx.__path__, "hpjax.")]


# Their examples train longest.
LONG = ("studies.batch_scaling", "studies.gradient_noise", "frontends.sklearn", "samplers.bayes")


@pytest.mark.parametrize("name", [slow(name) if name.endswith(LONG) else name for name in MODULES])
def test_examples_run(name):
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 0.4))
    known = {"hpx": hpx, "jax": jax, "jnp": jnp, "np": np, "optax": optax, "nn": nn}
    toy = {"program": quadratic(10, 5), "space": space}
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs=known | toy, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


def test_those_that_train_longest_are_there():
    assert {f"hpjax.{name}" for name in LONG} <= set(MODULES)


def test_what_users_call_has_an_example():
    without = [
        name for name in hpx.__all__ if not name.startswith("_") and ">>>" not in (getattr(hpx, name).__doc__ or "")
    ]
    # Nouns that others hand out, functions of one line, and errors, whose class says when they are raised.
    assert set(without) <= {
        *("Clone", "Data", "Observation", "Plan", "Race", "Replay", "TrainedModels", "Trial", "Verdict"),
        *("CompileFinished", "CompileStarted", "Decision", "Event", "GroupFailed", "Resumed"),
        *("WidthHalved", "WidthMeasured"),
        *("load", "maximize", "minimize"),
        *("data", "distributed", "losses", "metrics", "nn", "studies", "testing"),
        *("Preempted", "ProgramError", "RunError", "UnknownHyperparameterError"),
    }
