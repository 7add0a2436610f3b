"""Orthogonal matrices without LAPACK, of which several at once can wait for each other forever on a CPU."""

import jax
import numpy as np
import pytest
from flax import linen as nn

import hpjax as hpx
from tests.support.programs import example


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (2, 3, 4)])
def test_the_orthogonal_initializer_is_flax_s(shape):
    for seed in range(3):
        ours, flax = (init(jax.random.key(seed), shape) for init in (hpx.nn.orthogonal, nn.initializers.orthogonal()))
        np.testing.assert_allclose(ours, flax, atol=1e-5)


def test_programs_that_need_lapack_are_told_of():
    program = hpx.Program(
        lambda key, h: jax.numpy.linalg.qr(jax.random.normal(key, (3, 3)))[0],
        lambda key, state, batch, h: (state, {}),
        lambda key, state, split, h: {"loss": h.x * state.sum()},
        steps=1,
    )
    plan = hpx.Sweep(program, hpx.Space(x=1.0), sampler=hpx.Grid()).plan()
    assert any("decomposes matrices" in hint for hint in plan.hints)
    assert not any("decomposes" in hint for hint in example("axes/q_learning").sweep.plan().hints)
