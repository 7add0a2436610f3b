"""What ``plan`` accepts ``run`` completes, of models: put together from the parts that public Flax code has."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import hpjax as hpx
from tests.support.completes import completes

X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
Y = X[:, :3].argmax(1)
PIXELS = (100 * np.abs(X)).astype(np.uint8)
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
KERNEL = nn.initializers.lecun_normal()


class Block(nn.Module):
    """A layer to scan over."""

    @nn.compact
    def __call__(self, x, _=None):
        self.sow("intermediates", "mean", x.mean())
        return nn.tanh(nn.Dense(4)(x)), None


def scanned(module, x, train):
    axes = {"params": 0, "intermediates": 0}
    x = x.astype("float32")  # as the weights: Flax demands a carry that keeps its dtype
    return nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=2)()(x, None)[0]


def ensemble(module, x, train):
    mapped = nn.vmap(
        nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, out_axes=0, axis_size=2
    )
    return mapped(4)(x).mean(0)


def logical(module, x, train):
    dense = nn.Dense(4, kernel_init=nn.with_logical_partitioning(KERNEL, ("embed", "mlp")))
    with nn.logical_axis_rules((("batch", "data"), ("mlp", "model"))):
        return nn.with_logical_constraint(dense(x), ("batch", "mlp"))


def sown(module, x, train):
    module.sow("losses", "aux", x.mean(), reduce_fn=jnp.add, init_fn=lambda: 0.0)
    return x


def counted(module, x, train):
    calls = module.variable("counts", "calls", lambda: 0)
    if train:
        calls.value = calls.value + 1
    return x


def noisy(module, x, train):
    return x + 0.01 * jax.random.normal(module.make_rng("noise"), x.shape) if train else x


# Layers of four units: functions of (module, x, train).
LAYERS = {
    "remat": lambda module, x, train: nn.remat(nn.Dense)(4)(x),
    "jit": lambda module, x, train: nn.jit(nn.Dense)(4)(x),
    "scan": scanned,
    "vmap": ensemble,
    "BatchNorm": lambda module, x, train: nn.BatchNorm(not train)(x),
    "SpectralNorm": lambda module, x, train: nn.SpectralNorm(nn.Dense(4))(x, update_stats=train),
    "WeightNorm": lambda module, x, train: nn.WeightNorm(nn.Dense(4))(x),
    "Dropout": lambda module, x, train: nn.Dropout(0.1, deterministic=not train)(x),
    "boxed": lambda module, x, train: nn.Dense(4, kernel_init=nn.with_partitioning(KERNEL, (None, "data")))(x),
    "logical": logical,
    "sow": sown,
    "counter": counted,
    "stream": noisy,
    "bfloat16": lambda module, x, train: nn.Dense(4, dtype=jnp.bfloat16)(x),
    "lanes": lambda module, x, train: nn.Dense(4, kernel_init=nn.with_partitioning(KERNEL, ("lanes", None)))(x),
}


# In place of the layer in bfloat16, with the same parameters.
EXACT = {"float32": lambda module, x, train: nn.Dense(4)(x)}


class Linen(nn.Module):
    layers: tuple

    @nn.compact
    def __call__(self, x, train=False):
        x = x.astype("float32")
        for name in self.layers:
            x = (LAYERS | EXACT)[name](self, x, train)
        return nn.Dense(3)(x.astype("float32"))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        kernel = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "data"))
        self.layers = nnx.List([nnx.Linear(4, 4, kernel_init=kernel, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)])
        self.drop, self.out = nnx.Dropout(0.1, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        self.shared, self.calls, self.act, self.name = self.layers[0], nnx.Variable(jnp.array(0)), jnp.tanh, "net"

    def __call__(self, x, *, rngs=None):
        self.calls[...] += 1
        self.sow(nnx.Intermediate, "mean", x.mean())
        x = self.layers[1](self.act(self.layers[0](x.astype("float32"))))
        return self.out(self.drop(self.shared(x)))


OPTIONS = {
    "microbatch": {"microbatch": 4},
    "stopping": {"early_stopping": hpx.EarlyStopping(patience=1)},
    "average": {"average": 0.9},
    "monitor": {"monitor": ["gradient_norm", "update_ratio", "dead_units", "sparsity"]},
    "penalty": {"penalty": lambda params, h: 1e-3 * hpx.losses.l2(params)},
    "augment": {"augment": lambda key, batch, h: batch._replace(x=batch.x + jnp.ones((), batch.x.dtype))},
    "metrics": {
        "metrics": {
            "hit": lambda o, y: o.argmax(-1) == y,
            "int8": lambda o, y: (o.argmax(-1) == y).astype(jnp.int8),
            "NumPy": lambda o, y: np.ones(len(y)),
            "host": hpx.metrics.on_host(lambda o, y: np.ones(len(y), np.float32)),
        }
    },
    "parts": {"eval_batch_size": 5},
    "MultiSteps": {"optimizer": lambda h: optax.MultiSteps(optax.adam(h.rate), 2)},
    "inject": {"optimizer": lambda h: optax.inject_hyperparams(optax.adamw)(h.rate)},
    "plateau": {"optimizer": lambda h: optax.chain(optax.adam(h.rate), optax.contrib.reduce_on_plateau())},
    "bytes": {"data": hpx.data.from_arrays(PIXELS, Y, valid=(PIXELS, Y), test=(PIXELS, Y))},
}
SWEEPS = {
    "grid": {"sampler": hpx.Grid()},
    "folds": {"sampler": hpx.Grid(), "folds": 2},
    "independent": {"sampler": hpx.Grid(), "replicates": 2, "randomness": "independent"},
    "pmap": {"sampler": hpx.Grid(), "spread": "pmap", "segment": 1},
    "halving": {"trials": 4, "scheduler": hpx.Halving(2, 2)},
    "population": {"trials": 4, "scheduler": hpx.PBT(2)},
}


def trained(model, options=(), how="grid"):
    """The result of a sweep over rates, which ``plan`` accepted, read from its directory too."""
    arguments = {
        "optimizer": lambda h: optax.adam(h.rate),
        "data": hpx.data.from_arrays(X, Y, valid=(X, Y), test=(X, Y)),
    }
    for name in options:
        arguments |= OPTIONS[name]
    program = hpx.supervised(model=model, loss=CROSS_ENTROPY, batch_size=8, steps=4, eval_every=2, **arguments)
    space = hpx.Space(rate=hpx.Uniform(0.01, 0.1) if "trials" in SWEEPS[how] else hpx.Choice(0.01, 0.1))
    return completes(hpx.Sweep(program, space, **SWEEPS[how]))


def check_linen(layers, options=(), how="grid"):
    """Whether what a trained Linen model predicts is what Flax gives for the restored variables."""
    result, refusal = trained(Linen(tuple(layers)), options, how)
    assert result is not None, refusal
    x = PIXELS if "bytes" in options else X
    s = result.best.restore()
    variables = {"params": s.get("average", s["params"]), **s.get("stats", {})}
    expected = Linen(tuple(layers)).apply(variables, x)
    # XLA keeps more digits of bfloat16 within a fused operation than between operations. So both are off, by about as
    # much as Flax in bfloat16 is from Flax in float32.
    exact = Linen(tuple("float32" if name == "bfloat16" else name for name in layers)).apply(variables, x)
    atol = 2 * np.abs(expected - exact).max() + 1e-5
    np.testing.assert_allclose(result.best.predict(x)[0], expected, rtol=1e-4, atol=atol)


def test_a_linen_model_with_every_part_at_once_trains():
    check_linen(
        [name for name in LAYERS if name != "bfloat16"],
        ["microbatch", "average", "parts"],
    )


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda h, rngs: Nnx(rngs), id="NNX"),
        pytest.param(lambda h, key: eqx.nn.MLP(4, 3, 4, 1, key=key), id="Equinox", marks=pytest.mark.slow),
    ],
)
def test_models_of_other_libraries_train_with_the_options_together(model):
    result, refusal = trained(model, ["stopping", "metrics"], "independent")
    assert result is not None, refusal
    assert result.best.predict(X).shape == (2, 24, 3)


def composed():
    """Arguments of ``check_linen``."""
    exclusive = {"MultiSteps", "inject", "plateau"}
    options = st.lists(st.sampled_from(list(OPTIONS)), unique=True, max_size=4)
    return st.fixed_dictionaries(
        {
            "layers": st.lists(st.sampled_from(list(LAYERS)), max_size=4),
            "options": options.filter(lambda names: len(exclusive & set(names)) < 2),
            "how": st.sampled_from(list(SWEEPS)),
        }
    )


@pytest.mark.slow
@settings(max_examples=40)
@given(composed())
def test_models_that_plan_accepts_complete(arguments):
    check_linen(**arguments)
