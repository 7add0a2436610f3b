"""The state of one lane, read and exported: nothing else is loaded, and other tools get what evaluation uses."""

import sys
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from flax.serialization import msgpack_restore
from safetensors import safe_open
from safetensors.flax import load_file as load_jax
from safetensors.numpy import load_file

import hpjax as hpx
from tests.support.compare import same_bits
from tests.support.programs import RATES, Net, blobs, classifier, quadratic, rates

SPACE = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-1), momentum=hpx.Uniform(0, 0.9))
X = blobs().valid.x


def nested(arrays):
    """Nested dicts of arrays whose names have dots."""
    tree = {}
    for name, array in arrays.items():
        node = tree
        *path, last = name.split(".")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = array
    return tree


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("linen") / "run"
    sweep = hpx.Sweep(classifier(steps=6, eval_every=6), SPACE, trials=3, replicates=2, seed=1)
    return sweep.run(directory, progress=False), directory


def test_a_lane_is_read_without_the_rest(tmp_path):
    """64 states of 256 KiB: what one of them takes to read is far from the 16 MiB of all."""
    sweep = hpx.Sweep(quadratic(1, 1, size=1 << 16), RATES, sampler=rates(*np.linspace(0.01, 0.4, 64).round(4)))
    sweep.run(tmp_path / "run", progress=False)
    result = hpx.load(tmp_path / "run")
    tracemalloc.start()
    state = result[17].restore()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert state["w"].nbytes == 1 << 18
    np.testing.assert_array_equal(state["w"], np.float32(2 * np.float32(result[17].hparams["rate"])))
    assert 1 << 18 <= peak < 1 << 20
    whole = np.load(tmp_path / "run" / "states" / "wave-0" / "0.npy")
    assert whole.nbytes == 1 << 24, "all of them are there"


@pytest.mark.parametrize("suffix", ["safetensors", "msgpack"])
def test_a_linen_model_applies_what_was_exported(trained, suffix, tmp_path):
    result, directory = trained
    path = tmp_path / f"best.{suffix}"
    hpx.load(directory)[2].export(path, replicate=1)
    variables = nested(load_file(path)) if suffix == "safetensors" else msgpack_restore(path.read_bytes())
    assert set(variables) == {"params", "batch_stats"}
    outputs = jax.jit(lambda variables: Net().apply(variables, X, False))(variables)
    np.testing.assert_allclose(outputs, result[2].predict(X)[1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(outputs, result[2].predict(X)[0], rtol=1e-3), "of the other replicate"
    assert list(tmp_path.iterdir()) == [path], "nothing half written stays"


def test_names_and_the_header(trained, tmp_path):
    result, _ = trained
    result[1].export(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        assert set(file.keys()) == {
            *(f"params.{layer}.{name}" for layer in ("Dense_0", "Dense_1") for name in ("kernel", "bias")),
            *(f"params.BatchNorm_0.{name}" for name in ("scale", "bias")),
            *(f"batch_stats.BatchNorm_0.{name}" for name in ("mean", "var")),
        }
        assert same_bits(file.get_tensor("params.Dense_1.kernel"), result[1].restore()["params"]["Dense_1"]["kernel"])
        about = file.metadata()
    assert about == {
        "hpjax": hpx.__version__,
        "trial": "1",
        "replicate": "0",
        "hparams.learning_rate": str(result[1].hparams["learning_rate"]),
        "hparams.momentum": str(result[1].hparams["momentum"]),
    }


class Stack(nnx.Module):
    """Layers in a list, with batch statistics."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(5, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](nnx.relu(self.norm(self.layers[0](x))))


@pytest.fixture(scope="module")
def stacks():
    program = classifier(model=lambda h, rngs: Stack(rngs), steps=6, eval_every=6, average=0.5)
    return hpx.Sweep(program, SPACE, trials=2).run(progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["safetensors", "msgpack"])
def test_an_nnx_model_takes_what_was_exported(suffix, stacks, tmp_path):
    result = stacks
    path = tmp_path / f"best.{suffix}"
    result[1].export(path)
    found = nested(load_file(path)) if suffix == "safetensors" else msgpack_restore(path.read_bytes())
    params, stats = found.pop("params"), found
    assert set(stats) == {"norm"}
    model = Stack(nnx.Rngs(5))
    model.eval()
    nnx.update(model, nnx.restore_int_paths(params))
    nnx.update(model, stats)
    np.testing.assert_allclose(model(X), result[1].predict(X)[0], rtol=1e-5, atol=1e-6)
    state = result[1].restore()
    assert same_bits(params["layers"]["0"]["kernel"], state["average"]["layers"][0]["kernel"])
    assert not same_bits(params["layers"]["0"]["kernel"], state["params"]["layers"][0]["kernel"])


def test_the_whole_state_of_other_programs_bfloat16_too(tmp_path):
    def init(key, h):
        return {"w": jnp.full((2, 3), h.rate, jnp.bfloat16), "inner": {"key": jax.random.key(3)}, "steps": jnp.int32(0)}

    def step(key, state, batch, h):
        return state | {"steps": state["steps"] + 1}, {}

    program = hpx.Program(init, step, lambda key, state, split, h: {"loss": h.rate}, steps=4)
    sweep = hpx.Sweep(program, RATES, sampler=rates(0.3, 0.1))
    sweep.run(tmp_path / "run", progress=False)
    trial = hpx.load(tmp_path / "run")[0]
    trial.export(tmp_path / "a.safetensors")
    trial.export(tmp_path / "a.msgpack")
    expected = np.full((2, 3), 0.3, ml_dtypes.bfloat16)
    a, b = load_jax(tmp_path / "a.safetensors"), msgpack_restore((tmp_path / "a.msgpack").read_bytes())
    assert set(a) == {"w", "inner.key", "steps"}
    assert same_bits(a["w"].view(jnp.uint16), expected.view(np.uint16))
    assert a["w"].dtype == b["w"].dtype == jnp.bfloat16
    assert same_bits(np.asarray(b["w"]).view(np.uint16), expected.view(np.uint16))
    assert a["steps"] == b["steps"] == 4
    assert same_bits(b["inner"]["key"], np.array([0, 3], np.uint32))


def test_a_state_that_is_an_array(tmp_path):
    program = hpx.Program(
        lambda key, h: jnp.zeros(2), lambda key, w, b, h: (w + h.rate, {}), lambda key, w, s, h: {"loss": w[0]}, steps=2
    )
    hpx.Sweep(program, RATES, sampler=rates(0.5)).run(progress=False)[0].export(tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["state"].tolist() == [1, 1]


def test_what_cannot_be_exported(trained, tmp_path, monkeypatch):
    result, _ = trained
    with pytest.raises(hpx.InputError, match=r"a.npz': must end in .safetensors or .msgpack"):
        result[0].export(tmp_path / "a.npz")
    with pytest.raises(hpx.InputError, match="replicate = 2: must lie in 0 … 1"):
        result[0].export(tmp_path / "a.msgpack", replicate=2)
    with pytest.raises(hpx.RunError, match=r"a\.msgpack' cannot be written: No such file .* trial\.export\(FILE\)"):
        result[0].export(tmp_path / "nowhere" / "a.msgpack")
    lost = hpx.Sweep(quadratic(60, 20), RATES, sampler=rates(1e6)).run(progress=False)
    with pytest.raises(hpx.RunError, match="trial 0 diverged at step 5: it has no final state"):
        lost[0].export(tmp_path / "a.msgpack")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match="pip install 'safetensors>="):
        result[0].export(tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_names_that_would_collide(tmp_path):
    def init(key, h):
        return {"a.b": jnp.zeros(2), "a": {"b": jnp.ones(2)}}

    program = hpx.Program(init, lambda key, s, b, h: (s, {}), lambda key, s, split, h: {"loss": h.rate}, steps=1)
    trial = hpx.Sweep(program, RATES, sampler=rates(0.5)).run(progress=False)[0]
    with pytest.raises(hpx.RunError, match="two arrays would have one name"):
        trial.export(tmp_path / "a.safetensors")
    trial.export(tmp_path / "a.msgpack")
    assert set(msgpack_restore((tmp_path / "a.msgpack").read_bytes())) == {"a", "a.b"}
