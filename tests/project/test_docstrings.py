"""The examples in docstrings run, and print what they say; docstrings say what a function does, verb first."""

import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from tests.support.marks import slow
from tests.support.programs import quadratic

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "hpjax").rglob("*.py"), *(ROOT / "experiments" / "benchmarks").glob("*.py")])
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
        *("analysis", "data", "distributed", "losses", "metrics", "mup", "nn", "studies", "testing", "trackers"),
        *("Preempted", "ProgramError", "RunError", "UnknownHyperparameterError"),
    }


# Words that end in "s" and are no verbs in the third person.
NO_VERBS = {"Always", "As", "Bytes", "Its", "Seconds", "Steps", "This", "Unless"}
# Properties are nouns; click prints the docstrings of commands as help, which speaks to the user.
NO_FUNCTIONS = {"property", "cached_property", "command", "group"}


def riddles(tree):
    """The lines of docstrings that begin in lower case or, if a function has them, with something else than a verb."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        words = (ast.get_docstring(node) or "").split()
        if not words:
            continue
        decorators = [ast.unparse(each).partition("(")[0] for each in getattr(node, "decorator_list", [])]
        verb = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        verb = verb and NO_FUNCTIONS.isdisjoint(each.rpartition(".")[2] for each in decorators)
        known = re.fullmatch("[A-Z][a-z]*s,?", words[0]) and words[0] not in NO_VERBS
        if not (known if verb else words[0][0].isupper()):
            yield node.body[0].lineno, " ".join(words[:6])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_function_does_is_said_verb_first(path):
    assert list(riddles(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('"""a module."""', [(1, "a module.")]),
        ('def f():\n    """Of its file."""', [(2, "Of its file.")]),
        ('def f():\n    """As JSON has it."""', [(2, "As JSON has it.")]),
        ('class A:\n    def f(self):\n        """`x` doubled."""', [(3, "`x` doubled.")]),
        ('class A:\n    """A noun."""\n    @property\n    def f(self):\n        """The name."""', []),
        ('class A:\n    @functools.cached_property\n    def f(self):\n        """the name."""', [(4, "the name.")]),
        ('@main.command()\ndef f():\n    """Print it."""', []),
        ('@cache\ndef f():\n    """Print it."""', [(3, "Print it.")]),
        ('def f():\n    """Returns, or raises."""', []),
        ("def f(): ...", []),
    ],
)
def test_riddles_are_seen(code, found):
    assert list(riddles(ast.parse(code))) == found
