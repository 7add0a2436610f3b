"""SweepCV: scikit-learn's own checks of estimators, and GridSearchCV on the same folds."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import hpjax as hpx
from hpjax.data.loaders import Examples
from tests.support.counting import compilations


def labels(data):
    return 1 + int(hpx.data.pool(data).y.max())


def squared_error(outputs, y):
    return (outputs - y.reshape(outputs.shape)) ** 2


@dataclasses.dataclass(frozen=True)  # prints alike in every process, as names of tests must
class Linear:
    """The program of a linear model."""

    task: str

    def __call__(self, data):
        classes = self.task == "classification"
        return hpx.supervised(
            model=nn.Dense(
                labels(data) if classes else np.size(data.train.y[0]),
                kernel_init=nn.initializers.zeros,
                param_dtype=float,
            ),
            optimizer=lambda h: optax.adam(h.rate),
            loss=optax.softmax_cross_entropy_with_integer_labels if classes else squared_error,
            data=data,
            batch_size=len(data.train.x),
            steps=150,
        )


SPACE = hpx.Space(rate=hpx.LogUniform(0.1, 0.3))


def search(task, **changes):
    settings = {"program": Linear(task), "space": SPACE, "cv": 2, "trials": 2, "task": task}
    return hpx.sklearn.SweepCV(**(settings | changes))


@pytest.mark.slow
@parametrize_with_checks([search("classification")])
def test_scikit_learn_s_own_checks(estimator, check):
    check(estimator)


REGRESSION = [
    (estimator, check)
    for estimator, check in estimator_checks_generator(search("regression"))
    if any(word in check.func.__name__ for word in ("regressor", "y_2d", "fit2d"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), REGRESSION, ids=[str(check.func.__name__) for _, check in REGRESSION])
def test_scikit_learn_s_checks_of_regressors(estimator, check):
    """What does not depend on the task is checked above."""
    check(estimator)


class Alone(ClassifierMixin, BaseEstimator):
    """The same linear model in a plain Optax loop."""

    def __init__(self, rate=0.1):
        self.rate = rate

    def fit(self, X, y):
        self.classes_, y = np.unique(y, return_inverse=True)
        optimizer = optax.adam(self.rate)
        self.params_ = {"bias": jnp.zeros(3), "kernel": jnp.zeros((X.shape[1], 3))}

        @jax.jit
        def step(params, state):
            updates, state = optimizer.update(jax.grad(lambda p: loss_of(p, X, y))(params), state)
            return optax.apply_updates(params, updates), state

        state = optimizer.init(self.params_)
        for _ in range(150):
            self.params_, state = step(self.params_, state)
        return self

    def predict_proba(self, X):
        return np.asarray(jax.nn.softmax(logits_of(self.params_, X)))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def score(self, X, y):
        return -float(loss_of(self.params_, X, np.searchsorted(self.classes_, y)))


def logits_of(params, X):
    return X @ params["kernel"] + params["bias"][None]


def loss_of(params, X, y):
    logits = logits_of(params, X)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def test_it_finds_what_grid_search_finds():
    X, y = load_iris(return_X_y=True)
    X, y = X[::4][:36], np.array(["a", "b", "c"])[y[::4]][:36]
    rates = (0.001, 0.01, 0.3)
    space = hpx.Space(rate=hpx.Choice(*rates))
    ours = search("classification", cv=4, trials=None, sampler=hpx.Grid(), space=space)
    order = np.random.default_rng(0).permutation(36)  # as hpx.data.pool says
    folds = [(order[inside], order[outside]) for inside, outside in KFold(4).split(X)]
    with jax.enable_x64(True):
        ours.fit(X, y)
        theirs = GridSearchCV(Alone(), {"rate": list(rates)}, cv=folds, error_score="raise").fit(X, y)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
        again = pickle.loads(pickle.dumps(ours))
        np.testing.assert_array_equal(again.predict(X), theirs.predict(X))
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_index_ == theirs.best_index_
    assert ours.best_score_ == pytest.approx(theirs.best_score_, rel=1e-9)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    assert set(ours.cv_results_) == {name for name in theirs.cv_results_ if not name.endswith("_time")}
    for name in set(ours.cv_results_) - {"params"}:
        mine, other = (each.cv_results_[name].astype(float) for each in (ours, theirs))
        np.testing.assert_allclose(mine, other, rtol=1e-9, err_msg=name)


@pytest.mark.slow
def test_the_default_is_tried_and_the_best_is_kept():
    X, y = load_iris(return_X_y=True)
    space = hpx.Space(rate=hpx.LogUniform(1e-6, 1.0, default=1e-6))
    found = search("classification", space=space, trials=4).fit(X, y)
    assert found.cv_results_["params"][0] == {"rate": 1e-6}
    assert found.best_index_ != 0
    assert found.score(X, y) > 0.9
    with pytest.raises(hpx.InputError, match=r"SweepCV.cv = 1"):
        found.set_params(cv=1).fit(X, y)
    with pytest.raises(NotFittedError):
        found.predict(X)


def test_errors_come_before_anything_trains():
    X, y = np.zeros((6, 2)), np.array([0, 1] * 3)
    with pytest.raises(hpx.InputError, match=r"SweepCV.task = 'ranking': must be one of"):
        search("classification").set_params(task="ranking").fit(X, y)
    with pytest.raises(hpx.InputError, match=r"SweepCV.cv = 7: must be a whole number, 2 or more, 6 at most"):
        search("classification", cv=7).fit(X, y)
    with pytest.raises(hpx.InputError, match=r"SweepCV.program = .*: must give an hpx.Program with predict"):
        search("classification", program=lambda data: nn.Dense(2)).fit(X, y)
    with pytest.raises(hpx.InputError, match=r"SweepCV.program = 3: must give an hpx.Program with predict"):
        search("classification", program=3).fit(X, y)
    unable = dataclasses.replace(Linear("classification")(hpx.Data(Examples(X, y), Examples(X, y))), predict=None)
    with compilations() as names, pytest.raises(hpx.InputError, match=r"must give an hpx\.Program with predict"):
        search("classification", program=lambda data: unable).fit(X, y)
    assert not any("segment" in name for name in names)
