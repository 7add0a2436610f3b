"""Penalties, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

import hpjax as hpx

PARAMS = {"complex": jnp.array([3 + 4j, 0]), "float": jnp.array([-2.0, 0.0])}


def test_penalties_of_complex_numbers_take_their_absolute_values():
    assert float(hpx.losses.l1(PARAMS)) == 5 + 2
    assert float(hpx.losses.l2(PARAMS)) == 25 + 4


def test_their_gradients_are_those_of_jax_and_0_at_0():
    """JAX gives ∂/∂real − i ∂/∂imaginary: of |z| that is z*/|z|, of |z|² 2 z*."""
    found = jax.grad(hpx.losses.l1)(PARAMS), jax.grad(hpx.losses.l2)(PARAMS)
    np.testing.assert_allclose(found[0]["complex"], [0.6 - 0.8j, 0], rtol=1e-6)
    np.testing.assert_allclose(found[1]["complex"], [6 - 8j, 0], rtol=1e-6)
    np.testing.assert_allclose(found[1]["float"], [-4, 0], rtol=1e-6)
