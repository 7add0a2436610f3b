"""The names of primitives in a program: those of every public decomposition of a matrix are known."""

import jax
import jax.numpy as jnp
import jax.scipy.linalg as scipy_linalg
import pytest

from hpjax.engine.primitives import primitive_names, zeros
from hpjax.engine.probe import DECOMPOSITIONS

linalg = jnp.linalg
DECOMPOSED = {
    "qr": linalg.qr,
    "eigh": linalg.eigh,
    "eig": linalg.eig,
    "svd": linalg.svd,
    "schur": scipy_linalg.schur,
    "lu": scipy_linalg.lu,
    "cholesky": linalg.cholesky,
    "inverse": linalg.inv,
    "solve": lambda x: linalg.solve(x, x),
    "least squares": lambda x: linalg.lstsq(x, x)[0],
    "pseudo-inverse": linalg.pinv,
    "spectral norm": lambda x: linalg.norm(x, 2),
    "orthogonal": lambda x: jax.nn.initializers.orthogonal()(jax.random.key(0), x.shape),
    "normal": lambda x: jax.random.multivariate_normal(jax.random.key(0), x[0], x),
}


def names(function, *args):
    return primitive_names(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.mark.parametrize("name", DECOMPOSED)
def test_decompositions_are_known(name):
    assert names(DECOMPOSED[name], jnp.eye(4)) & DECOMPOSITIONS
    assert names(jax.jit(jax.vmap(DECOMPOSED[name])), jnp.eye(4)[None]) & DECOMPOSITIONS


def test_other_programs_have_none():
    assert not names(lambda x: linalg.norm(x @ x), jnp.eye(4)) & DECOMPOSITIONS


def test_functions_within_functions_are_looked_into():
    def nested(x):
        return jax.lax.scan(lambda x, _: (jax.lax.cond(x > 0, jnp.sin, jax.checkpoint(jnp.cos), x), None), x, None, 2)[
            0
        ]

    found = names(jax.jit(nested), 1.0)
    assert {"scan", "cond", "sin", "cos"} <= found
    assert "tan" not in found


@pytest.mark.parametrize(
    ("made", "zero"),
    [
        (lambda x: jnp.zeros((2, 3)), True),
        (lambda x: jnp.zeros_like(x), True),
        (lambda x: jnp.zeros((), jnp.int32), True),
        (lambda x: jnp.full(3, -0.0), False),
        (lambda x: jnp.ones(3), False),
        (lambda x: x, False),
        (lambda x: x * 0, False),
    ],
)
def test_zeros_are_seen(made, zero):
    """Of what is multiplied by 0 it cannot be: infinity times 0 is none."""
    assert zeros(jax.make_jaxpr(made)(jnp.ones(3)).jaxpr) == (zero,)
