"""The language model of experiments/language_model, small and on real text: lanes of two devices, and a plain loop."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from tests.support.plain import SEED, train_alone

FOLDER = Path(__file__).parents[2] / "experiments" / "language_model"
SETTINGS = {"steps": 30, "batch_size": 4, "eval_every": 10}
POINTS = [
    {"learning_rate": 1e-2, "warmup": 3.0, "weight_decay": 1e-2},
    {"learning_rate": 3e-3, "warmup": 6.0, "weight_decay": 1e-1},
]


@pytest.fixture
def module(monkeypatch):
    """A function of a name to a file of the folder, as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in ("lm", "sweep"):
        sys.modules.pop(name, None)


class InFloat64(nn.Module):
    """A model whose parameters are made float64, and with them all that it computes."""

    make: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, tokens, train=False):
        model = self.make()
        first = lambda key: jax.tree.map(lambda x: x.astype(float), model.init(key, tokens)["params"])
        return model.apply({"params": self.param("model", first)}, tokens)


def test_it_trains_on_text_as_a_plain_loop_does(module):
    """Two lanes side by side, each with its own rate, warmup and decay, over two devices that split its state."""
    sweep, lm = module("sweep"), module("lm")
    text, vocabulary = sweep.characters()
    data = hpx.data.tokens(text[: 2_000 * 64 + 1], 64, valid=text[-16 * 64 - 1 :])
    assert (sweep.model.layers, sweep.model.width, sweep.model.vocabulary) == (4, 64, vocabulary)
    with jax.enable_x64(True):
        model = InFloat64(sweep.model.clone)
        # Given to both: numbers that are drawn in float32 depend in their last bit on how that is compiled.
        params = model.init(jax.random.key(0), np.zeros((1, 64), int))["params"]
        several = hpx.Sweep(
            lm.program(model, data, **SETTINGS, init_from=params),
            lm.space(SETTINGS["steps"]),
            sampler=hpx.Manual(POINTS),
            seed=SEED,
            width=1,
            devices=4,
            devices_per_lane=2,
            partition="fsdp",
        )
        result = several.run(progress=False)
        assert sum(map(bool, several.plan().partitions[0])) == 3 * 8, "8 of 11 weights, and both moments of each"
        for trial, h in zip(result, POINTS, strict=True):
            rate = optax.warmup_cosine_decay_schedule(0.0, h["learning_rate"], int(h["warmup"]), SETTINGS["steps"])
            # Optax counts in int32, which a division turns into float32.
            exact = lambda count, rate=rate: rate(count.astype(float))
            optimizer = optax.adamw(exact, weight_decay=h["weight_decay"])
            _, losses = train_alone(data, model=model, optimizer=optimizer, params=params, **SETTINGS)
            found = result.curves("valid/loss")[trial.id, 0]
            np.testing.assert_allclose(found, losses, rtol=1e-9)
            assert (np.diff([np.log(vocabulary), *losses]) < 0).all(), "below chance, and falling"
