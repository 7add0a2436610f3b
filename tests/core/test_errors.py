"""Errors cross the borders of processes: every exception of the package pickles, with its message and attributes."""

import copy
import importlib
import multiprocessing
import pickle
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import pytest

import hpjax as hpx
from hpjax.engine.device_errors import GroupFailedError, OutOfMemoryError

# The arguments of the exceptions that take other ones than a message.
ARGUMENTS = {
    hpx.InputError: ("Space.rate", (1, "a"), "must be a number", "Write rate=0.1."),
    OutOfMemoryError: (3,),
    GroupFailedError: (3, "its program fails"),
    hpx.Preempted: (Path("runs/a"),),
}


def exceptions():
    """Every exception that a module of the package defines."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(hpx.__path__, "hpjax.")
        if not found.name.endswith("__main__")
    ]
    found = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, BaseException) and each.__module__ == module.__name__
    }
    assert {hpx.InputError, hpx.RunError, hpx.ProgramError, hpx.Preempted, OutOfMemoryError} <= found
    return sorted(found, key=lambda kind: kind.__name__)


def the_same(error, other):
    return (type(error), str(error), vars(error), getattr(error, "code", None)) == (
        type(other),
        str(other),
        vars(other),
        getattr(other, "code", None),
    )


@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: kind.__name__)
def test_every_exception_pickles(kind):
    error = kind(*ARGUMENTS.get(kind, ("a message",)))
    error.add_note("a note")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert the_same(again, error)
        assert the_same(pickle.loads(pickle.dumps(again, protocol)), error)
    assert the_same(copy.copy(error), error)


class Odd:
    """Pickles, and cannot be read back."""

    def __reduce__(self):
        return Odd, (1, 2)


@pytest.mark.parametrize(
    "value",
    [lambda h: h.rate, Odd(), (x for x in ()), jax.numpy.zeros(2)],
    ids=("function", "unreadable", "generator", "array"),
)
def test_an_input_error_pickles_whatever_its_value_is(value):
    error = hpx.InputError("Program.init", value, "must be something else", "Write another one.")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), repr(again.value)) == (
        str(error),
        repr(value) if isinstance(value, jax.Array) else repr(repr(value)),
    )
    assert (again.field, again.allowed, again.remedy) == (error.field, error.allowed, error.remedy)


def test_an_input_error_with_a_tracer_pickles():
    caught = []

    def traced(x):
        caught.append(hpx.InputError("Dropout.rate", x, "must be a number", "Write rate=0.1."))
        return x

    jax.eval_shape(traced, 1.0)
    assert str(pickle.loads(pickle.dumps(caught[0]))) == str(caught[0])


def _mistake(_):
    return hpx.Uniform(1, 0)


def _wrong_name(_):
    return hpx.Hparams({"rate": 0.1}).learning_rate


@pytest.mark.parametrize(("work", "kind"), [(_mistake, hpx.InputError), (_wrong_name, hpx.UnknownHyperparameterError)])
def test_through_a_process_pool(work, kind):
    with pytest.raises(kind) as here:
        work(0)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(work, 0).exception(timeout=120)
    assert type(there) is kind
    assert str(there) == str(here.value)
