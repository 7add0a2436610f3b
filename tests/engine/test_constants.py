"""Arrays that a program closes over are held once for all lanes, as arguments of the compiled program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.engine.compile import Compiled

SIZE = 256
TABLE = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32) / SIZE


def program(table):
    """The table is closed over in the step, and in the initial state."""

    def step(key, w, batch, h):
        return w - h.rate * (table @ w), {"loss": jnp.square(w).mean()}

    return hpx.Program(
        lambda key, h: table[0] + 1.0,
        step,
        lambda key, w, split, h: {"loss": jnp.square(table @ w).mean()},
        steps=3,
        predict=lambda w, x, h: x @ table @ w,
    )


def sweep(table, **settings):
    return hpx.Sweep(program(table), hpx.Space(rate=hpx.LogUniform(0.01, 1.0)), trials=8, width=4, **settings)


@pytest.mark.parametrize(
    ("kind", "spread"), [(np.asarray, "shard_map"), (jnp.asarray, "shard_map"), (jnp.asarray, "pmap")]
)
def test_a_large_constant_is_an_argument_once_and_changes_no_value(kind, spread, monkeypatch):
    seen = []
    make = Compiled.__init__
    monkeypatch.setattr(Compiled, "__init__", lambda self, *args: (make(self, *args), seen.append(self))[0])
    found = sweep(kind(TABLE), spread=spread)
    result = found.run(progress=False)
    (compiled,) = {id(each): each for each in seen}.values()
    analysis = compiled.advance.compiled.memory_analysis()
    lanes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(compiled.lanes)) / compiled.mesh.devices.size
    assert TABLE.nbytes <= analysis.argument_size_in_bytes - lanes < 1.1 * TABLE.nbytes
    text = compiled.advance.compiled.as_text()
    assert not [line for line in text.split("\n") if f"f32[{SIZE},{SIZE}]" in line and "constant(" in line]
    assert found.plan().data_bytes == TABLE.nbytes
    for trial in result:
        w = TABLE[0] + 1.0
        for _ in range(3):
            w = w - np.float32(trial.hparams["rate"]) * (TABLE @ w)
        np.testing.assert_allclose(trial.restore(), w, rtol=1e-4)
        np.testing.assert_allclose(trial.metrics["valid/loss"], np.square(TABLE @ w).mean(), rtol=1e-4)
    x = np.ones((2, SIZE), np.float32)
    np.testing.assert_allclose(result[7].predict(x)[0], x @ TABLE @ w, rtol=1e-4)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_groups_hold_one_copy_of_a_constant_on_the_devices(kind, monkeypatch):
    seen = []
    make = Compiled.__init__
    monkeypatch.setattr(Compiled, "__init__", lambda self, *args: (make(self, *args), seen.append(self))[0])
    table = kind(TABLE)
    made = dataclasses.replace(program(table), init=lambda key, h: table[0] * h.scale)
    space = hpx.Space(rate=0.1, scale=hpx.Choice(1.0, 2.0, static=True))
    hpx.Sweep(made, space, sampler=hpx.Grid()).run(progress=False)
    first, second = seen
    assert first.advance.constants[0] is second.advance.constants[0]
