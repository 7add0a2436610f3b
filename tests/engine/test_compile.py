"""Compiled programs: the memory that XLA says they need."""

from concurrent.futures import Future
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from hpjax.core.fallback import warn_once
from hpjax.engine.compile import Executable
from tests.support.lanes import lanes_of
from tests.support.programs import quadratic


def compiled(function):
    done = Future()
    done.set_result(function)
    return Executable(done, [])


def test_the_bytes_of_a_program():
    wide = jax.ShapeDtypeStruct((100, 100), jnp.float32)
    double = jax.jit(lambda x: x * 2).lower(wide).compile()
    assert compiled(double).bytes == 2 * 4 * 100**2
    donated = jax.jit(lambda x: x * 2, donate_argnums=0).lower(wide).compile()
    assert compiled(donated).bytes == 4 * 100**2


@pytest.mark.parametrize("analysis", [None, SimpleNamespace(arguments=8)])
def test_memory_that_is_not_known_is_told_once(analysis, monkeypatch):
    warn_once.cache_clear()
    _, found = lanes_of(quadratic(), count=2, width=2)
    monkeypatch.setattr(Executable, "compiled", SimpleNamespace(memory_analysis=lambda: analysis))
    with pytest.warns(RuntimeWarning, match="^memory_analysis: .* does not say how much memory") as caught:
        assert [found.bytes for _ in range(2)] == [None, None]
    assert len(caught) == 1
