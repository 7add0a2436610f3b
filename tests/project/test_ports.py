"""The ports of public code stay short, and their problems are those of the literature."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "ports"
PORTS = ("mnist", "vae", "nanodo", "gan", "ppo", "pinn", "equinox_rnn", "grokking")


def module(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    found = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    return found


@pytest.mark.parametrize("name", PORTS)
def test_a_port_has_at_most_40_lines_and_is_run_by_make_smoke(name):
    text = (FOLDER / f"{name}.py").read_text("utf-8")
    assert len(text.splitlines()) <= 40
    assert "--smoke" in text


def test_burgers_steepest_slope(monkeypatch):
    """C. Basdevant et al., "Spectral and finite difference solutions of the Burgers equation", 1986: 152.00516."""
    burgers = module("burgers", monkeypatch)
    t, x = np.full(2, 1.6037 / np.pi), np.array([-1e-6, 1e-6])
    assert np.diff(burgers.solution(t, x))[0] / 2e-6 == pytest.approx(-152.00516, rel=1e-7)


def test_cartpole_from_rest(monkeypatch):
    """One push of the resting pole, by the equations of Barto, Sutton and Anderson, "Neuronlike adaptive elements…"."""
    cartpole = module("cartpole", monkeypatch)
    rest = jax.eval_shape(cartpole.reset, jax.random.key(0))
    rest = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), rest)
    state, reward, over = jax.jit(cartpole.step)(jax.random.key(0), rest, 1)
    spin = -10 / 1.1 / (0.5 * (4 / 3 - 0.1 / 1.1))
    np.testing.assert_allclose(state.obs, [0, 0.02 * (10 / 1.1 - 0.05 * spin / 1.1), 0, 0.02 * spin], rtol=1e-6)
    assert (float(reward), bool(over), int(state.time)) == (1, False, 1)
