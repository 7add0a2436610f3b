"""Monitors, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype(np.float32)
Y = RNG.normal(size=(8, 2)).astype(np.float32)


class Complex(nn.Module):
    """A linear map by complex weights, of which the real and the imaginary part of the result are outputs."""

    @nn.compact
    def __call__(self, x):
        z = x @ self.param("w", nn.initializers.normal(), (3,), jnp.complex64)
        return jnp.stack([z.real, z.imag], -1)


def test_norms_of_complex_parameters_are_those_of_their_parts():
    program = hpx.supervised(
        model=Complex(),
        optimizer=lambda h: optax.sgd(h.rate),
        loss=hpx.metrics.squared_error,
        data=hpx.data.from_arrays(X, Y, valid=(X, Y), test=None),
        penalty=lambda params, h: 0.1 * hpx.losses.l2(params),
        monitor=["gradient_norm", "update_ratio"],
        batch_size=8,
        steps=1,
    )
    found = hpx.Sweep(program, hpx.Space(rate=0.1), trials=1).run(progress=False)[0]
    # As two real matrices, whose gradients are those of the parts.
    w = np.asarray(Complex().init(hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "init"), X[:1])["params"]["w"])
    parts = np.stack([w.real, w.imag], -1)
    of_parts = lambda p: ((X @ p - Y) ** 2).mean() + 0.1 * (p**2).sum()
    norm = float(jnp.linalg.norm(jax.grad(of_parts)(jnp.asarray(parts))))
    assert found.metrics["train/gradient_norm/w"] == pytest.approx(norm, rel=1e-5)
    assert found.metrics["train/update_ratio/w"] == pytest.approx(0.1 * norm / np.linalg.norm(parts), rel=1e-5)
    assert found.metrics["train/penalty"] == pytest.approx(0.1 * (parts**2).sum(), rel=1e-5)
    assert found.metrics["train/loss"] == pytest.approx(((X @ parts - Y) ** 2).mean(), rel=1e-5)
