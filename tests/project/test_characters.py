"""The text and the model of experiments/characters."""

import importlib
import sys
from pathlib import Path
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx

FOLDER = Path(__file__).parents[2] / "experiments" / "characters"


@pytest.fixture
def module(monkeypatch):
    """A function of a name to a file of the folder, as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in ("text", "model", "sweep"):
        sys.modules.pop(name, None)


def test_the_text_is_the_manual_of_python(module):
    text, known = module("text").tokens()
    manual = bytes(known[text]).decode()
    assert set(" ".join(topics.values()).split()) == set(manual.split()), "every word of it"
    data = hpx.data.tokens(text, 64)
    training = bytes(data.train.tokens)
    both = [bytes(known[window]) for window in data.valid.x if bytes(window) in training]
    assert set(b"".join(both)) <= set(b"-+="), "only lines of tables are in both splits"


def test_logits_depend_on_what_came_before_alone(module):
    model = module("model").Transformer(vocabulary=11, width=32, depth=2, heads=2)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 11, (1, 12)))
    params = model.init(jax.random.key(0), tokens)
    logits = jax.jit(model.apply)
    changed = np.abs(logits(params, tokens) - logits(params, tokens.at[0, 7].add(1) % 11)).max((0, 2))
    assert changed.shape == (12,)
    assert (changed[:7] == 0).all()
    assert (changed[7:] > 1e-4).all()
