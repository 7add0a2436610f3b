"""Sharpness and trace, against NumPy's eigenvalues of the whole Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

import hpjax as hpx
from hpjax.data.batches import pool
from tests.support.compare import same_bits
from tests.support.programs import SPACE, classifier

RNG = np.random.default_rng(0)
# Orthogonal columns, so that the Hessian of a linear model is diagonal.
SIGNS = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1]] * 2, np.float32)
SIGNS[:, 1:] *= [0.5, 2.0]
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = RNG.normal(size=40).astype(np.float32)
RATES = hpx.Space(rate=hpx.LogUniform(1e-3, 0.1))


def trained(x, y, model, loss, space=None, folds=None, **changes):
    """The result of a sweep of two trials, by default with the rate 0, whose weights stay what they were."""
    program = hpx.supervised(
        model=model,
        optimizer=lambda h: optax.sgd(h.rate),
        loss=loss,
        data=hpx.data.from_arrays(x, y, valid=(x[:8], y[:8]), test=None),
        **{"batch_size": 8, "steps": 2, "monitor": ["sharpness", "trace"]} | changes,
    )
    space = hpx.Space(rate=0.0) if space is None else space
    return program, hpx.Sweep(program, space, trials=1 if "rate" not in space.names else 2, folds=folds).run(
        progress=False
    )


def squared(outputs, y):
    return (outputs[:, 0] - y) ** 2


def eigenvalues(loss, params):
    """All eigenvalues of the Hessian of a function of parameters."""
    flat, unflatten = ravel_pytree(params)
    return np.linalg.eigvalsh(np.asarray(jax.hessian(lambda v: loss(unflatten(v)))(flat), np.float64))


def test_a_diagonal_quadratic_has_its_closed_form():
    """The Hessian of a mean of (x·w - y)² is 2 XᵀX / n = 2 diag(1, 1/4, 4), and a penalty of 0.1 |w|² adds 0.2."""
    _, found = trained(
        SIGNS, SIGNS[:, 0], nn.Dense(1, use_bias=False), squared, penalty=lambda p, h: 0.1 * hpx.losses.l2(p)
    )
    assert found[0].metrics["train/sharpness"] == pytest.approx(8.2, rel=1e-5)
    # Of a diagonal matrix each estimate by signs is exact.
    assert found[0].metrics["train/trace"] == pytest.approx(2 + 0.5 + 8 + 3 * 0.2, rel=1e-5)


def test_the_largest_eigenvalue_is_not_the_largest_in_magnitude():
    """Outputs of which one lies in a valley and one, steeper, on a ridge; and on ridges alone."""
    eigs = np.linalg.eigvalsh(X.T.astype(float) @ X / len(X))
    _, saddle = trained(
        X, Y, nn.Dense(2, use_bias=False), lambda outputs, y: outputs[:, 0] ** 2 - 3 * outputs[:, 1] ** 2
    )
    assert saddle[0].metrics["train/sharpness"] == pytest.approx(2 * eigs[-1], rel=1e-5)
    _, ridge = trained(X, Y, nn.Dense(1, use_bias=False), lambda outputs, y: -(outputs[:, 0] ** 2))
    assert ridge[0].metrics["train/sharpness"] == pytest.approx(-2 * eigs[0], rel=1e-4)


def test_an_mlp_has_the_eigenvalues_of_its_whole_hessian():
    """After training, with weights, a penalty, and a split that its parts do not divide."""
    model, weight = nn.Sequential([nn.Dense(10), nn.tanh, nn.Dense(1)]), np.where(Y > 0, 2.0, 0.5)
    _, found = trained(
        X,
        Y,
        model,
        squared,
        space=RATES,
        weights=lambda y: jnp.where(y > 0, 2.0, 0.5),
        penalty=lambda params, h: h.rate * hpx.losses.l2(params),
        steps=200,
        eval_every=100,
        eval_batch_size=7,
    )
    assert found.curves("train/sharpness").shape == (2, 1, 2)
    for trial in found:
        params = trial.restore()["params"]

        def loss(params, rate=trial.hparams["rate"]):
            mean = (weight * squared(model.apply({"params": params}, X), Y)).sum() / weight.sum()
            return mean + rate * sum((leaf**2).sum() for leaf in jax.tree.leaves(params))

        whole = eigenvalues(loss, params)
        assert len(whole) == 61
        assert trial.metrics["train/sharpness"] == pytest.approx(whole[-1], rel=1e-3)
        # Four standard deviations of 16 draws; the norm with the diagonal is an upper bound of that without.
        assert trial.metrics["train/trace"] == pytest.approx(whole.sum(), abs=4 * np.sqrt(2 / 16 * (whole**2).sum()))


@pytest.mark.parametrize(("param_dtype", "wide"), [("bfloat16", False), ("float32", True), ("float64", True)])
def test_parameters_may_be_narrower_or_wider_than_numbers(param_dtype, wide):
    with jax.enable_x64(wide):
        _, found = trained(X, Y, nn.Dense(1, use_bias=False, param_dtype=jnp.dtype(param_dtype)), squared)
    largest = 2 * np.linalg.eigvalsh(X.T.astype(float) @ X / len(X))[-1]
    assert found[0].metrics["train/sharpness"] == pytest.approx(largest, rel=1e-5)


class Complex(nn.Module):
    @nn.compact
    def __call__(self, x):
        z = x @ self.param("w", nn.initializers.normal(), (4,), jnp.complex64)
        return (2 * z.real + z.imag)[:, None]


def test_a_complex_parameter_counts_as_two():
    """The output is 2 x·a + x·b, whose Hessian in (a, b) is 2 [[4, 2], [2, 1]] ⊗ XᵀX / n, of largest eigenvalue 5."""
    _, found = trained(X, Y, Complex(), squared)
    covariance = X.T.astype(float) @ X / len(X)
    assert found[0].metrics["train/sharpness"] == pytest.approx(10 * np.linalg.eigvalsh(covariance)[-1], rel=1e-4)


def test_large_splits_are_sampled_and_folds_left_out():
    """Of 3,000 examples 2,048; with folds those of the pool that are not in the lane's own."""
    x = RNG.normal(size=(3000, 4)).astype(np.float32)
    model = nn.Dense(1, use_bias=False)
    _, found = trained(x, x[:, 0], model, squared)
    own = x[np.sort(np.random.default_rng(0).choice(3000, 2048, replace=False))].astype(float)
    assert found[0].metrics["train/sharpness"] == pytest.approx(
        2 * np.linalg.eigvalsh(own.T @ own / 2048)[-1], rel=1e-4
    )
    program, found = trained(X[:39], Y[:39], model, squared, folds=3)  # 47 examples in the pool: folds of 16, 16 and 15
    pooled = pool(program.data).x.astype(float)
    for fold, (begin, end) in enumerate(((0, 16), (16, 32), (32, 47))):
        own = np.concatenate([pooled[:begin], pooled[end:]])
        largest = 2 * np.linalg.eigvalsh(own.T @ own / len(own))[-1]
        assert found.curves("train/sharpness")[0, fold, -1] == pytest.approx(largest, rel=1e-4), fold


def test_packing_changes_no_bit_of_it():
    program = classifier(monitor=["sharpness", "trace"])
    points = [{"learning_rate": 10.0**-i, "momentum": 0.9} for i in range(4)]

    def run(points):
        return hpx.Sweep(program, SPACE, sampler=hpx.Manual(points), seed=3, width=4, devices=1).run(progress=False)

    together, alone, turned = run(points), run(points[2:3]), run(points[::-1])
    for name in ("train/sharpness", "train/trace"):
        assert np.isfinite(together.curves(name)).all()
        assert same_bits(together.curves(name)[2:3], alone.curves(name)), name
        assert same_bits(together.curves(name)[::-1], turned.curves(name)), name


def test_what_has_no_split_is_refused():
    batches = lambda: ((X[:8], Y[:8]) for _ in range(4))
    data = hpx.data.stream(batches, valid=(X, Y))
    common = {"model": nn.Dense(1), "optimizer": optax.sgd(0.1), "loss": squared, "steps": 2}
    with pytest.raises(hpx.InputError, match=r"supervised.monitor = 'sharpness': needs a training split, and a stream"):
        hpx.supervised(data=data, monitor=["sharpness"], **common)
    with pytest.raises(hpx.InputError, match=r"supervised.monitor = \['sharp'\]: .* Did you mean 'sharpness'"):
        hpx.supervised(data=data, monitor=["sharp"], **common)


def test_windows_of_tokens_have_the_curvature_of_copied_ones():
    """Of 3,000 windows, more than are taken."""
    data = hpx.data.tokens(np.arange(3100) % 7, length=3, stride=1, valid=0.02)
    copied = hpx.data.from_arrays(data.train.x, data.train.y, valid=(data.valid.x, data.valid.y), test=None)

    def measured(data):
        program = hpx.supervised(
            model=nn.Sequential([nn.Embed(7, 2), nn.Dense(7)]),
            optimizer=lambda h: optax.sgd(h.rate),
            loss=optax.softmax_cross_entropy_with_integer_labels,
            data=data,
            monitor=["sharpness", "trace"],
            batch_size=8,
            steps=1,
        )
        found = hpx.Sweep(program, RATES, trials=1).run(progress=False)
        return [found.last(f"train/{name}")[0, 0] for name in ("sharpness", "trace")]

    assert measured(data) == pytest.approx(measured(copied), rel=1e-6)


def test_curvature_changes_no_bit_and_ends_no_trial():
    """A penalty of |w|^1.5 has a gradient at 0, where biases begin, and no second derivative."""
    rough = lambda params, h: 1e-6 * sum(jnp.sum(jnp.abs(a) ** 1.5) for a in jax.tree.leaves(params))
    found = []
    for monitor in ([], ["sharpness", "trace"]):
        _, result = trained(X, Y, nn.Dense(1), squared, penalty=rough, monitor=monitor, eval_every=1)
        assert list(result.statuses) == ["complete"]
        found.append(result)
    np.testing.assert_array_equal(*(each.curves("valid/loss") for each in found))
    assert np.isnan(found[1].curves("train/sharpness")[:, 0, 0]).all()
