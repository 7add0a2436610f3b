"""Small networks in float64, what they learn, and how far two of them are apart."""

import functools
from typing import Any

import jax
import numpy as np
from flax import linen as nn

import hpjax as hpx

REAL = float  # float64 where it is enabled
BATCH = 16
Dense = functools.partial(nn.Dense, param_dtype=REAL)


class MLP(nn.Module):
    units: int = 6
    act: Any = nn.tanh
    depth: int = 1
    classes: int = 3
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x, train=False):
        for _ in range(self.depth):
            x = self.act(Dense(self.units, kernel_init=self.kernel_init)(x))
        return Dense(self.classes)(x)


class Masked(nn.Module):
    units: Any
    depth: Any = 2

    @nn.compact
    def __call__(self, x, train=False):
        dense = functools.partial(hpx.nn.Dense, param_dtype=REAL)
        x = nn.sigmoid(dense(8, self.units)(x))
        block = [nn.sigmoid, lambda x: dense(8, self.units, inputs=self.units)(x)]
        x = hpx.nn.layers(lambda i, x: block[0](block[1](x)), x, self.depth, most=3)
        return dense(3, inputs=self.units)(x)


class Small(nn.Module):
    """What a masked lane must equal."""

    units: int
    depth: int = 2

    @nn.compact
    def __call__(self, x, train=False):
        for _ in range(1 + self.depth):
            x = nn.sigmoid(Dense(self.units)(x))
        return Dense(3)(x)


def points(**values):
    """One point for each position of the lists; a single value stands for all."""
    count = max(len(v) for v in values.values() if isinstance(v, list))
    return [{n: v[i] if isinstance(v, list) else v for n, v in values.items()} for i in range(count)]


def make_data(kind):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    shape = {"images": (6, 6, 1), "sequences": (20, 4)}.get(kind, (5,))
    x = rng.normal(size=(90, *shape)) + y.reshape(-1, *[1] * len(shape)) * 0.5
    return hpx.data.from_arrays(x, x if kind == "reconstruction" else y)


def difference(a, b):
    """The largest difference of two trees, relative to the largest value of the leaf, or to 1 where that is tiny."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x) - y)) / max(np.max(np.abs(y)), 1e-3)) for x, y in pairs)
