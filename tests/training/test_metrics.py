"""Metrics of whole splits, against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

import hpjax as hpx

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 50, 5000])
@pytest.mark.parametrize("ties", [None, 1, 0])
@pytest.mark.parametrize("weighted", [False, True])
def test_auc_is_that_of_scikit_learn(n, ties, weighted):
    y = np.r_[0, 1, RNG.integers(0, 2, n - 2)]
    scores = RNG.normal(size=n) + 0.5 * y
    scores = (scores if ties is None else scores.round(ties)).astype(np.float32)
    weights = RNG.integers(0, 3, n) + (np.arange(n) < 2) if weighted else None
    expected = roc_auc_score(y, scores, sample_weight=weights)
    given = None if weights is None else jnp.asarray(weights, jnp.float32)
    for labels in (y, y.astype(bool), y.astype(np.float32)):
        found = hpx.metrics.auc(jnp.asarray(scores), jnp.asarray(labels), given)
        assert float(found) == pytest.approx(expected, rel=2e-6)


def test_auc_takes_logits_of_both_classes_halves_and_lanes():
    y, logits = RNG.integers(0, 2, 40), RNG.normal(size=(3, 40, 2)).astype(np.float16)
    scores = logits[..., 1].astype(np.float32) - logits[..., 0]
    found = jax.vmap(lambda o: hpx.metrics.auc(o, jnp.asarray(y)))(jnp.asarray(logits))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [roc_auc_score(y, s) for s in scores], rtol=1e-6)
    column = hpx.metrics.auc(jnp.asarray(scores[0])[:, None], jnp.asarray(y))
    assert float(column) == pytest.approx(float(found[0]))


def test_auc_of_separated_classes_is_1_and_no_more():
    """The sums of weights are rounded, in one order and in another."""
    y, weights = np.arange(200) % 2, RNG.uniform(0.1, 3, (50, 200)).astype(np.float32)
    found = jax.vmap(lambda w: hpx.metrics.auc(jnp.asarray(y, jnp.float32), jnp.asarray(y), w))(jnp.asarray(weights))
    assert found.max() <= 1
    np.testing.assert_allclose(found, 1, rtol=1e-6)


def test_errors_of_complex_outputs_are_distances():
    outputs, y = jnp.array([3 + 4j, 1j]), jnp.zeros(2)
    np.testing.assert_allclose(hpx.metrics.squared_error(outputs, y), [25, 1])
    np.testing.assert_allclose(hpx.metrics.absolute_error(outputs, y), [5, 1])


def test_auc_of_one_class_is_nan_and_of_three_is_refused():
    assert np.isnan(hpx.metrics.auc(jnp.ones(4), jnp.ones(4, int)))
    with pytest.raises(hpx.InputError, match="must have the shape of y"):
        hpx.metrics.auc(jnp.ones((4, 3)), jnp.ones(4, int))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_f1_is_that_of_scikit_learn(classes, weighted):
    n = 60
    y, logits = RNG.integers(0, min(classes, 5), n), RNG.normal(size=(n, classes)).astype(np.float32)
    weights = RNG.uniform(0.1, 2, n).astype(np.float32) if weighted else None
    given = None if weights is None else jnp.asarray(weights)
    found = hpx.metrics.f1(jnp.asarray(logits), jnp.asarray(y), given)
    average = "binary" if classes == 2 else "macro"
    assert float(found) == pytest.approx(
        f1_score(y, logits.argmax(-1), average=average, sample_weight=weights), rel=1e-5
    )
    if classes == 2:
        score = logits[:, 1] - logits[:, 0]
        assert float(hpx.metrics.f1(jnp.asarray(score), jnp.asarray(y), given)) == pytest.approx(float(found))


def test_f1_of_tokens_counts_those_with_weight():
    y, logits = RNG.integers(0, 3, (8, 5)), RNG.normal(size=(8, 5, 3)).astype(np.float32)
    counted = RNG.integers(0, 2, (8, 5)).astype(bool)
    found = hpx.metrics.f1(jnp.asarray(logits), jnp.asarray(np.where(counted, y, -100)), jnp.asarray(counted))
    expected = f1_score(y[counted], logits.argmax(-1)[counted], average="macro")
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_f1_without_the_class_is_0():
    assert float(hpx.metrics.f1(-jnp.ones(4), jnp.zeros(4, int))) == 0
