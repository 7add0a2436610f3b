"""The optimizers of experiments/optimizers/tasks.py: weights decay alike, and Muon reads kernels as matrices."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hpjax as hpx

FOLDER = Path(__file__).parents[2] / "experiments" / "optimizers"
STEPS = 20


@pytest.fixture
def tasks(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield importlib.import_module("tasks")
    for name in ("tasks", "text", "model"):
        sys.modules.pop(name, None)


def final(optimizer, params, gradients):
    """The parameters after all steps with the same gradients."""
    state = optimizer.init(params)
    for _ in range(STEPS):
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "muon", "adafactor"])
def test_without_gradients_weights_shrink_by_rate_times_decay(tasks, name):
    h = hpx.Hparams({"rate": 0.1, "momentum": 0.9, "decay": 0.5})
    params = {"layer": {"kernel": jnp.ones((16, 16)), "bias": jnp.ones(16)}}
    optimizer = tasks.optimizers_of(STEPS)[name][0](h)
    found = final(optimizer, params, jax.tree.map(jnp.zeros_like, params))
    rates = optax.warmup_cosine_decay_schedule(0.0, 0.1, STEPS // 10, STEPS)
    wanted = np.prod([1 - 0.5 * float(rates(step)) for step in range(STEPS)])
    for leaf in jax.tree.leaves(found):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5)


def test_the_product_of_rate_and_decay_has_one_range(tasks):
    for _, space in tasks.optimizers_of(STEPS).values():
        rate, decay = space.branches[0]["rate"], space.branches[0]["decay"]
        assert rate.high / rate.low == pytest.approx(1e4)
        assert (rate.low * decay.low, rate.high * decay.high) == pytest.approx((1e-8, 1.0))


def test_muon_reads_kernels_as_matrices_from_inputs_to_outputs(tasks):
    model, data = tasks.characters()
    params = jax.eval_shape(model.init, jax.random.key(0), data.train.tokens[:16][None])["params"]
    found = tasks.matrices(params)
    assert found["head"]["kernel"] is found["embed"]["embedding"] is found["place"]["embedding"] is None
    block = found["block_0"]
    assert block["LayerNorm_0"]["scale"] is None
    for name, kernel in (("query", (32, 4, 8)), ("out", (4, 8, 32))):
        axes = block["attention"][name]["kernel"]
        assert params["block_0"]["attention"][name]["kernel"].shape == kernel
        sizes = [np.prod([kernel[axis] for axis in part]) for part in axes]
        assert sizes == [32, 32], "from all inputs to all outputs of all heads"
    assert block["up"]["kernel"] == optax.contrib.MuonDimensionNumbers((0,), (1,))
    cnn = tasks.matrices(jax.eval_shape(tasks.CNN().init, jax.random.key(0), jnp.zeros((2, 40)))["params"])
    assert cnn["Conv_1"]["kernel"] == optax.contrib.MuonDimensionNumbers((0, 1), (2,))


def test_a_program_serves_all_values_of_an_optimizer(tasks):
    task = tasks.tasks_of(None)["digits"]
    assert len(tasks.study_of(task, trials=3).plan().groups) == len(tasks.SIX) == 6
