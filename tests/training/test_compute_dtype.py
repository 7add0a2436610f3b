"""Models that compute in bfloat16, against Flax's own ``dtype=`` of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from scipy import stats

import hpjax as hpx
from hpjax.training.compute_dtype import _product_dtypes
from tests.support.compare import same_bits

SPACE = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 2e-2))
LOSS = optax.softmax_cross_entropy_with_integer_labels


class Linen(nn.Module):
    dtype: str | None = None

    @nn.compact
    def __call__(self, x, train):
        x = x.reshape(-1, 6, 2)
        x = nn.relu(nn.Conv(4, (3,), dtype=self.dtype)(x)).reshape(len(x), -1)
        x = nn.Dropout(0.2, deterministic=not train)(nn.tanh(nn.Dense(8, dtype=self.dtype)(x)))
        x = nn.Dense(4, dtype=self.dtype)(x)
        return x if self.dtype is None else x.astype(jnp.float32)


class Nnx(nnx.Module):
    def __init__(self, dtype=None, *, rngs):
        self.layers = nnx.List([nnx.Linear(n, m, dtype=dtype, rngs=rngs) for n, m in ((12, 8), (8, 4))])
        self.cast = dtype is not None

    def __call__(self, x):
        first, last = self.layers
        x = last(nnx.tanh(first(x)))
        return x.astype(jnp.float32) if self.cast else x


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        return nn.Dense(4)(nn.LayerNorm()(nn.relu(x)))


MODELS = {
    "linen": lambda dtype: lambda h: Linen(dtype),
    "nnx": lambda dtype: lambda h, rngs: Nnx(dtype, rngs=rngs),
}


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 12)).astype(np.float32)
    return hpx.data.from_arrays(x, np.argmax(x[:, :4], axis=1))


def program(model, **arguments):
    return hpx.supervised(
        model=model,
        optimizer=lambda h: optax.adam(h.learning_rate),
        loss=LOSS,
        metrics={"accuracy": hpx.metrics.accuracy},
        data=data(),
        batch_size=16,
        steps=12,
        **arguments,
    )


def run(own, space=SPACE, **changes):
    return hpx.Sweep(own, space, **({"trials": 4, "seed": 1, "width": 2} | changes)).run(progress=False)


@pytest.mark.parametrize("library", MODELS)
def test_it_is_what_flax_computes_with_the_dtype_of_its_layers(library):
    ours = run(program(MODELS[library](None), compute_dtype=jnp.bfloat16))
    flax = run(program(MODELS[library]("bfloat16")))
    wide = run(program(MODELS[library](None)))
    assert ours.metrics == flax.metrics
    for metric in ours.metrics:
        assert same_bits(ours.curves(metric), flax.curves(metric)), metric
    for (path, a), (_, b) in zip(ours.leaves(0, 0), flax.leaves(0, 0), strict=True):
        assert a.dtype == b.dtype
        assert same_bits(a, b), path
    assert not same_bits(ours.curves("valid/loss"), wide.curves("valid/loss"))
    np.testing.assert_allclose(ours.curves("valid/loss"), wide.curves("valid/loss"), rtol=0.02)


def test_state_and_statistics_stay_in_float32():
    found = run(program(lambda h: Normed(), compute_dtype="bfloat16"), trials=2)
    wide = run(program(lambda h: Normed()), trials=2)
    for (path, a), (_, b) in zip(found.leaves(0, 0), wide.leaves(0, 0), strict=True):
        assert a.dtype == b.dtype, path
        assert a.dtype != jnp.bfloat16, path
    assert not same_bits(found.curves("valid/loss"), wide.curves("valid/loss"))
    np.testing.assert_allclose(found.curves("valid/loss"), wide.curves("valid/loss"), rtol=0.03)


def test_all_products_forward_and_backward_are_in_bfloat16():
    own = program(MODELS["linen"](None), compute_dtype="bfloat16")
    h = hpx.Hparams({"learning_rate": 0.1}, [])

    key = jax.random.key(0)
    state = jax.eval_shape(lambda: own.init(key, h))
    batch = jax.eval_shape(lambda: own.batch(key, jnp.int32(0), own.data.train, h))
    traced = jax.make_jaxpr(lambda state, batch: own.step(key, state, batch, h))(state, batch)
    dtypes = [str(dtype) for dtype in _product_dtypes(traced.jaxpr)]
    assert set(dtypes) == {"bfloat16"}
    assert len(dtypes) >= 8, "three layers forward, three of their weights and two of their inputs backward"


def test_a_function_of_h_makes_a_group_of_each():
    space = SPACE & hpx.Space(dtype=hpx.Choice("float32", "bfloat16"))
    grid = hpx.Manual([{"learning_rate": r, "dtype": d} for d in ("float32", "bfloat16") for r in (0.01, 0.02)])
    both = run(program(MODELS["linen"](None), compute_dtype=lambda h: h.dtype), space, trials=None, sampler=grid)
    alone = hpx.Manual([{"learning_rate": r} for r in (0.01, 0.02)])
    for trials, dtype in (([0, 1], "float32"), ([2, 3], "bfloat16")):
        own = run(program(MODELS["linen"](None), compute_dtype=dtype), trials=None, sampler=alone)
        assert same_bits(both.curves("valid/loss")[trials], own.curves("valid/loss")), dtype


def test_a_model_that_computes_in_another_dtype_is_told():
    contradicted = hpx.Sweep(program(MODELS["linen"]("float32"), compute_dtype="bfloat16"), SPACE, trials=2)
    with pytest.raises(
        hpx.InputError, match=r"compute_dtype = 'bfloat16': is not what.*all of its products in float32"
    ):
        contradicted.plan()


@pytest.mark.parametrize("value", ["float16", "bf16", "float64", 16])
def test_other_dtypes_are_refused(value):
    with pytest.raises(hpx.InputError, match=r'supervised.compute_dtype.*must be "float32" or "bfloat16"'):
        program(MODELS["linen"](None), compute_dtype=value)


def test_a_function_of_h_that_gives_another_dtype():
    wrong = hpx.Sweep(program(MODELS["linen"](None), compute_dtype=lambda h: "half"), SPACE, trials=2)
    with pytest.raises(hpx.ProgramError, match=r"supervised.compute_dtype, a function of h, gave 'half'"):
        wrong.plan()


@pytest.mark.slow
def test_accuracy_is_that_of_float32_within_noise():
    """64 trials in pairs, which differ in the dtype alone: the mean difference is no more than chance makes it."""

    def accuracies(dtype):
        own = hpx.supervised(
            model=nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)]),
            optimizer=lambda h: optax.sgd(h.learning_rate, momentum=0.9),
            loss=LOSS,
            metrics={"accuracy": hpx.metrics.accuracy},
            data=hpx.data.digits(),
            batch_size=64,
            steps=300,
            compute_dtype=dtype,
        )
        space = hpx.Space(learning_rate=hpx.LogUniform(1e-2, 0.3))
        return hpx.Sweep(own, space, trials=64).run(progress=False).last("valid/accuracy")[:, 0]

    wide, narrow = accuracies("float32"), accuracies("bfloat16")
    assert np.median(wide) > 0.95
    assert stats.ttest_rel(narrow, wide).pvalue > 1e-3
    assert abs(np.mean(narrow - wide)) < 2e-3
