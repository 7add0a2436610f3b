"""Scalars of NumPy and JAX as settings: a sweep with them is the sweep with Python's numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx

PROGRAM = hpx.Program(
    lambda key, h: jnp.zeros(()), lambda key, s, b, h: (s, {}), lambda key, s, d, h: {"loss": h.k * 1.0}, steps=4
)
PLAIN = {"trials": 4, "rounds": (2, 2), "replicates": 2, "seed": 3, "segment": 2, "width": 2}
SAME = {
    "trials": np.int64(4),
    "rounds": np.array([2, 2]),
    "replicates": np.uint8(2),
    "seed": jnp.int32(3),
    "segment": np.array(2),
    "width": np.int16(2),
}


def test_a_run_with_numpy_s_numbers_goes_on_with_python_s(tmp_path):
    """F08: it is written, read, and the same sweep to its directory, which reads the result and trains nothing."""
    program = hpx.Program(PROGRAM.init, PROGRAM.step, PROGRAM.evaluate, steps=np.int64(4), eval_every=jnp.int32(2))
    space = hpx.Space(k=hpx.Uniform(np.float64(0.25), np.float32(0.75)), c=np.int64(3))
    objective = hpx.minimize("valid/loss", quantile=np.float64(0.5))
    sampler = hpx.Bayes(initial=np.int64(2))
    done = hpx.Sweep(program, space, objective=objective, sampler=sampler, **SAME).run(tmp_path / "run", progress=False)
    assert len(done) == 4
    program = hpx.Program(PROGRAM.init, PROGRAM.step, PROGRAM.evaluate, steps=4, eval_every=2)
    space, objective = hpx.Space(k=hpx.Uniform(0.25, 0.75), c=3), hpx.minimize("valid/loss", quantile=0.5)
    plain = hpx.Sweep(program, space, objective=objective, sampler=hpx.Bayes(initial=2), **PLAIN)
    assert list(plain.events(tmp_path / "run")) == []
    assert hpx.load(tmp_path / "run").best.hparams == done.best.hparams


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (hpx.Manual([{"k": np.float64(0.5)}, {"k": jnp.float32(0.25)}]), hpx.Manual([{"k": 0.5}, {"k": 0.25}])),
        (hpx.Refine(shrink=np.float32(0.5)), hpx.Refine(shrink=0.5)),
    ],
    ids=["points", "shrink"],
)
def test_a_sampler_with_numpy_s_numbers_is_the_one_with_python_s(first, second, tmp_path):
    space = hpx.Space(k=hpx.Uniform(0, 1))
    hpx.Sweep(PROGRAM, space, trials=2, sampler=first).run(tmp_path / "run", progress=False)
    assert list(hpx.Sweep(PROGRAM, space, trials=2, sampler=second).events(tmp_path / "run")) == []


@pytest.mark.parametrize("name", ["trials", "seed", "replicates", "width"])
def test_numpy_s_booleans_are_no_numbers(name):
    with pytest.raises(hpx.InputError, match=f"Sweep.{name}"):
        hpx.Sweep(PROGRAM, hpx.Space(k=hpx.Uniform(0, 1)), **({"trials": 4} | {name: np.True_}))
