"""Digests of code: what changes what a function computes changes its digest, and nothing else does."""

import functools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from hpjax.core.code_digest import code_digest
from tests.support.programs import ROOT

FACTOR = 2.0


def helper(x):
    return x * FACTOR


class Scaled:
    """A callable with settings, a method, a constant of its class, and a lock, whose repr changes as it is held."""

    offset = 1.0

    def __init__(self, factor):
        self.factor, self.lock = factor, threading.Lock()

    def __call__(self, x):
        return self.scaled(x) + self.offset

    def scaled(self, x):
        return x * self.factor if str(x) not in {"a", "b", "c"} else x


class Other(Scaled):
    def scaled(self, x):
        return x / self.factor


def closed(value):
    return lambda x: x * value


def defaults(x, value=3):
    return x * value


def reads_global(x):
    return helper(x)


DIFFERENT = {
    "operation": (lambda x: x + 1, lambda x: x - 1),
    "constant": (lambda x: x + 1, lambda x: x + 2),
    "function of a module": (lambda x: np.mean(x), lambda x: np.median(x)),
    "nested function": (lambda x: [y + 1 for y in x], lambda x: [y + 2 for y in x]),
    "closure": (closed(1.0), closed(1.5)),
    "array in a closure": (closed(np.arange(9000)), closed(np.arange(9000)[::-1])),
    "dict in a closure": (closed({"a": 1}), closed({"a": 2})),
    "function in a closure": (closed(lambda x: x), closed(lambda x: -x)),
    "array of objects": (closed(np.array([1, "a"], object)), closed(np.array([1, "b"], object))),
    "function of partial": (functools.partial(max, 1), functools.partial(min, 1)),
    "argument of partial": (functools.partial(defaults, value=1), functools.partial(defaults, value=2)),
    "attribute": (Scaled(2.0), Scaled(3.0)),
    "method": (Scaled(2.0), Other(2.0)),
    "bound method": (Scaled(2.0).scaled, Scaled(3.0).scaled),
    "vectorized": (np.vectorize(lambda x: x + 1), np.vectorize(lambda x: x + 2)),
    "cached": (functools.cache(lambda x: x + 1), functools.cache(lambda x: x + 2)),
    "builtin": (len, sum),
    "ufunc": (np.exp, np.log),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_computes_something_else_has_another_digest(name):
    one, other = DIFFERENT[name]
    assert code_digest(one) == code_digest(one)
    assert code_digest(one) != code_digest(other)


def test_defaults_and_globals_and_class_constants_count(monkeypatch):
    before = code_digest(reads_global), code_digest(defaults), code_digest(Scaled(2.0))
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    monkeypatch.setattr(defaults, "__defaults__", (4,))
    monkeypatch.setattr(Scaled, "offset", 5.0)
    assert all(a != b for a, b in zip(before, map(code_digest, (reads_global, defaults, Scaled(2.0))), strict=True))


def test_where_and_how_it_is_written_does_not_count():
    scopes = [{}, {}]
    exec(compile("def f(x):\n  'Adds.'\n  return x + 1", "one.py", "exec"), scopes[0])
    exec(compile("# moved\n\n\ndef f(x):\n  '''Adds one.'''\n  return x + 1  # more", "two.py", "exec"), scopes[1])
    assert code_digest(scopes[0]["f"]) == code_digest(scopes[1]["f"])
    held = Scaled(2.0)
    with held.lock:
        assert code_digest(held) == code_digest(Scaled(2.0))


def test_what_holds_itself_ends():
    cycle = [1]
    cycle.append(cycle)
    longer = [2]
    longer.append(longer)
    assert code_digest(cycle) != code_digest(longer)


def test_every_process_finds_the_same():
    """With other hash seeds: sets of strings then iterate in another order, and addresses differ in any case."""
    code = (
        "from tests.core.test_code_digest import *;"
        "print(code_digest(DIFFERENT['array of objects'], reads_global, Scaled(2.0), Other(1), np.vectorize(helper)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().strip()) == 16
