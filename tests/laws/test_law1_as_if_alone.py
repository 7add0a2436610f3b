"""Law 1. A lane gives what a plain Flax + Optax loop gives that trains the same trial alone.

The loops below use nothing of hpjax but its keys and its batch indices.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.data.batches import batch_indices
from tests.support.marks import slow

STEPS, BATCH, SEED, FEATURES, CLASSES = 100, 16, 7, 12, 4
RATES = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
STABLE = 0.1  # above this rate training is chaotic and amplifies float32 rounding


class LinenNet(nn.Module):
    dtype: type

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(16, param_dtype=self.dtype, use_bias=False)(x)  # a bias before the norm would be rounding noise
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, param_dtype=self.dtype)(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.tanh(x))
        return nn.Dense(CLASSES, param_dtype=self.dtype)(x)


class NnxNet(nnx.Module):
    def __init__(self, dtype, rngs):
        self.first = nnx.Linear(FEATURES, 16, param_dtype=dtype, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, param_dtype=dtype, rngs=rngs)
        self.norm.mean, self.norm.var = (nnx.BatchStat(f(16, dtype)) for f in (jnp.zeros, jnp.ones))
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(16, CLASSES, param_dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.tanh(self.norm(self.first(x)))))


def make_data(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, FEATURES))
    y = np.argmax(x[:, :CLASSES] + 0.5 * rng.normal(size=(120, CLASSES)), axis=1)
    return hpx.data.from_arrays(x.astype(dtype), y)


def make_optimizer(name, rate, decay):
    if name == "sgd":
        return optax.sgd(rate, momentum=decay)
    return optax.adamw(rate, b2=decay, weight_decay=1e-2)


def loss_of(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def linen_loop(data, dtype, name):
    """A function that trains one trial, as one would write it by hand with Linen."""
    model = LinenNet(dtype)
    key = lane_key(SEED, 0)
    x, y = jnp.asarray(data.train.x), jnp.asarray(data.train.y)
    variables = jax.tree.map(lambda a: a.astype(dtype), model.init(purpose_key(key, "init"), x[:1], train=False))

    @jax.jit
    def step(params, stats, opt_state, t, rate, decay):
        index = batch_indices(purpose_key(key, "batch"), t, len(y), BATCH)
        dropout = step_key(purpose_key(key, "step"), t)

        def objective(params):
            logits, updated = model.apply(
                {"params": params, "batch_stats": stats},
                x[index],
                train=True,
                rngs={"dropout": dropout},
                mutable=["batch_stats"],
            )
            return loss_of(logits, y[index]), updated["batch_stats"]

        (loss, new_stats), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, new_opt = make_optimizer(name, rate, decay).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new_stats, new_opt, loss

    def train(rate, decay):
        params, stats = variables["params"], variables["batch_stats"]
        opt_state = make_optimizer(name, rate, decay).init(params)
        for t in range(STEPS):
            params, stats, opt_state, _ = step(params, stats, opt_state, t, rate, decay)
        logits = model.apply({"params": params, "batch_stats": stats}, data.valid.x, train=False)
        return params, stats, float(loss_of(logits, data.valid.y))

    return train


def nnx_loop(data, dtype, name):
    """A function that trains one trial, as one would write it by hand with NNX."""
    key = lane_key(SEED, 0)
    x, y = jnp.asarray(data.train.x), jnp.asarray(data.train.y)
    graph, first, others = nnx.split(NnxNet(dtype, nnx.Rngs(purpose_key(key, "init"))), nnx.Param, ...)

    @jax.jit
    def step(params, rest, opt_state, t, rate, decay):
        index = batch_indices(purpose_key(key, "batch"), t, len(y), BATCH)

        def objective(params):
            model = nnx.merge(graph, params, rest, copy=True)
            model.train()
            nnx.reseed(model, default=step_key(purpose_key(key, "step"), t))
            return loss_of(model(x[index]), y[index]), nnx.state(model, nnx.Not(nnx.Param))

        (loss, new_rest), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, new_opt = make_optimizer(name, rate, decay).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new_rest, new_opt, loss

    def train(rate, decay):
        params, rest = first, others
        opt_state = make_optimizer(name, rate, decay).init(params)
        for t in range(STEPS):
            params, rest, opt_state, _ = step(params, rest, opt_state, t, rate, decay)
        model = nnx.merge(graph, params, rest)
        model.eval()
        stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return nnx.to_pure_dict(params), stats, float(loss_of(model(data.valid.x), data.valid.y))

    return train


MODELS = {
    "linen": (lambda dtype: lambda h: LinenNet(dtype), linen_loop),
    "nnx": (lambda dtype: lambda h, rngs: NnxNet(dtype, rngs), nnx_loop),
}

# Six rates for each optimizer, named twelve times over in one sweep of conditional hyperparameters.
SPACE = hpx.Space(learning_rate=hpx.LogUniform(1e-4, 10)) & (
    hpx.Space(optimizer="sgd", momentum=hpx.Uniform(0, 1)) | hpx.Space(optimizer="adamw", b2=hpx.Uniform(0, 1))
)
POINTS = [{"learning_rate": r, "optimizer": "sgd", "momentum": 0.5 + 0.05 * i} for i, r in enumerate(RATES)] + [
    {"learning_rate": r, "optimizer": "adamw", "b2": 0.99 + 0.001 * i} for i, r in enumerate(RATES)
]


def relative(a, b):
    """The largest difference of two trees, leaf by leaf, relative to the leaf's largest value."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x) - y)) / np.max(np.abs(y))) for x, y in pairs)


# tests/training/test_axes.py compares many more models, all in float64.
@pytest.mark.parametrize(("kind", "precision"), [("linen", "float32"), slow("nnx", "float64")])
def test_twelve_trials_equal_twelve_loops(kind, precision):
    make_model, loop = MODELS[kind]
    dtype = np.dtype(precision).type
    with jax.enable_x64(precision == "float64"):
        data = make_data(dtype)
        program = hpx.supervised(
            model=make_model(dtype),
            optimizer=lambda h: make_optimizer(
                h.optimizer, h.learning_rate, h.momentum if h.optimizer == "sgd" else h.b2
            ),
            loss=optax.softmax_cross_entropy_with_integer_labels,
            data=data,
            batch_size=BATCH,
            steps=STEPS,
            eval_every=50,
        )
        sweep = hpx.Sweep(program, SPACE, sampler=hpx.Manual(POINTS), seed=SEED, width=4)
        result = sweep.run(progress=False)
        assert {name: v.traced for name, v in zip(SPACE.names, sweep.plan().verdicts, strict=True)} == {
            "learning_rate": True,
            "optimizer": False,
            "momentum": True,
            "b2": True,
        }
        loops = {name: loop(data, dtype, name) for name in ("sgd", "adamw")}
        compared = 0
        for trial, point in enumerate(POINTS):
            numbers = point["learning_rate"], point.get("momentum", point.get("b2"))
            params, stats, valid = loops[point["optimizer"]](*(dtype(n) for n in numbers))
            if precision == "float32" and point["learning_rate"] > STABLE:
                continue
            assert result[trial].status == "complete"
            state = result[trial].restore()
            there = list(state["stats"].values()) if kind == "linen" else [state["stats"]]
            error = max(relative(state["params"], params), relative(there[0], stats))
            assert error <= (1e-9 if precision == "float64" else 1e-4), (point, error)
            assert result[trial].metrics["valid/loss"] == pytest.approx(valid, rel=1e-4)
            compared += 1
        assert compared == (12 if precision == "float64" else 8)
