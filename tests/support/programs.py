"""Small programs that many tests train, and the sweeps of experiments/."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx

ROOT = Path(__file__).parents[2]


def example(name):
    """A file of experiments/, as a module."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Net(nn.Module):
    """An MLP with batch statistics and dropout."""

    hidden: int = 8
    classes: int = 3

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(self.hidden)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.classes)(x)


def blobs(examples=90, features=5, classes=3):
    rng = np.random.default_rng(1)
    y = rng.integers(0, classes, examples)
    x = rng.normal(size=(examples, features)) + 2 * np.eye(classes, features)[y]
    return hpx.data.from_arrays(x.astype(np.float32), y, name="blobs")


def classifier(**changes):
    """A small supervised program."""
    arguments = {
        "model": Net(),
        "optimizer": lambda h: optax.sgd(h.learning_rate, h.momentum),
        "loss": optax.softmax_cross_entropy_with_integer_labels,
        "metrics": {"accuracy": hpx.metrics.accuracy},
        "data": blobs(),
        "batch_size": 16,
        "steps": 21,
        "eval_every": 7,
    }
    return hpx.supervised(**(arguments | changes))


SPACE = hpx.Space(learning_rate=hpx.LogUniform(1e-4, 1e9), momentum=hpx.Uniform(0, 1))


def quadratic(steps=10, eval_every=5, size=3, data=None):
    """Gradient descent on (w − 1)²: w after t steps is 1 − (1 − 2·rate)ᵗ exactly; diverges above rate 1.

    ``size`` may be a function of ``h``, and is static then.
    """

    def init(key, h):
        return {"w": jnp.zeros(size(h) if callable(size) else size)}

    def step(key, state, batch, h):
        w = state["w"] - h.rate * 2 * (state["w"] - 1)
        return {"w": w}, {"loss": jnp.mean((state["w"] - 1) ** 2)}

    def evaluate(key, state, split, h):
        return {"loss": jnp.mean((state["w"] - 1) ** 2)}

    return hpx.Program(init, step, evaluate, data, steps=steps, eval_every=eval_every)


RATES = hpx.Space(rate=hpx.LogUniform(1e-3, 1e6))


def rates(*values):
    """A sampler of these very rates."""
    return hpx.Manual([{"rate": value} for value in values])
