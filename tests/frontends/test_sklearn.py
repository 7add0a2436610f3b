"""SweepCV: scikit-learn's own checks of estimators, and GridSearchCV on the same folds."""

import dataclasses
import pickle
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
    check_cv,
)
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import hpjax as hpx
from hpjax.data import Examples
from hpjax.frontends.cross_validation import splits_of
from tests.support.counting import compilations
from tests.support.marks import few_of


def labels(data):
    return 1 + int(max(split.y.max() for split in (data.train, data.valid)))


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
@pytest.mark.filterwarnings("ignore:.*is compiled and trained apart")
@parametrize_with_checks([search("classification")])
def test_scikit_learn_s_own_checks(estimator, check):
    # The tolerance of these is that of float64: XLA sums a few examples in another order than many.
    with jax.enable_x64(any(word in check.func.__name__ for word in ("equivalence", "invariance"))):
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

    def fit(self, X, y, sample_weight=None):
        self.classes_, y = np.unique(y, return_inverse=True)
        weights = np.ones(len(y)) if sample_weight is None else sample_weight
        optimizer = optax.adam(self.rate)
        self.params_ = {"bias": jnp.zeros(3), "kernel": jnp.zeros((X.shape[1], 3))}

        @jax.jit
        def step(params, state):
            updates, state = optimizer.update(jax.grad(lambda p: loss_of(p, X, y, weights))(params), state)
            return optax.apply_updates(params, updates), state

        state = optimizer.init(self.params_)
        for _ in range(150):
            self.params_, state = step(self.params_, state)
        return self

    def predict_proba(self, X):
        return np.asarray(jax.nn.softmax(logits_of(self.params_, X)))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def score(self, X, y, sample_weight=None):
        weights = np.ones(len(y)) if sample_weight is None else sample_weight
        return -float(loss_of(self.params_, X, np.searchsorted(self.classes_, y), weights))


def logits_of(params, X):
    return X @ params["kernel"] + params["bias"][None]


def loss_of(params, X, y, weights):
    logits = logits_of(params, X)
    return (weights * optax.softmax_cross_entropy_with_integer_labels(logits, y)).sum() / weights.sum()


IRIS, NAMES = load_iris(return_X_y=True)
IRIS, NAMES = IRIS[::4][:36], np.array(["a", "b", "c"])[NAMES[::4]][:36]
GROUPS = np.repeat(np.arange(4), [16, 9, 8, 3])
MASKS = [(np.arange(36) % 3 != fold, np.arange(36) % 3 == fold) for fold in range(3)]

# What ``cv`` may be, and whether one program can serve all folds.
SPLITTERS = {
    "a number": (4, True),
    "a shuffled splitter": (KFold(6, shuffle=True, random_state=3), True),
    "masks": (MASKS, True),
    "groups": (GroupKFold(3), False),
    "overlapping folds": (ShuffleSplit(2, test_size=0.3, random_state=1), False),
    "training on the past": (TimeSeriesSplit(3), False),
}


@pytest.mark.parametrize("name", few_of(SPLITTERS, {"a number"}))
def test_it_finds_what_grid_search_finds(name):
    cv, together = SPLITTERS[name]
    order = np.random.default_rng(0).permutation(36)  # so that every training part has all classes
    X, y, rates = IRIS[order], NAMES[order], (0.001, 0.01, 0.3)
    space = hpx.Space(rate=hpx.Choice(*rates))
    ours = search("classification", cv=cv, trials=None, sampler=hpx.Grid(), space=space)
    with jax.enable_x64(True):
        groups = GROUPS if name == "groups" else None
        with nullcontext() if together else pytest.warns(UserWarning, match="is compiled and trained apart"):
            ours.fit(X, y, groups=groups)
        theirs = GridSearchCV(Alone(), {"rate": list(rates)}, cv=cv, error_score="raise").fit(X, y, groups=groups)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
        again = pickle.loads(pickle.dumps(ours))
        np.testing.assert_array_equal(again.predict(X), theirs.predict(X))
    assert isinstance(ours.result_, hpx.Result) is together
    assert ours.n_splits_ == theirs.n_splits_
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_index_ == theirs.best_index_
    assert ours.best_score_ == pytest.approx(theirs.best_score_, rel=1e-9)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    assert set(ours.cv_results_) == {name for name in theirs.cv_results_ if not name.endswith("_time")}
    for name in set(ours.cv_results_) - {"params"}:
        mine, other = (each.cv_results_[name].astype(float) for each in (ours, theirs))
        np.testing.assert_allclose(mine, other, rtol=1e-9, err_msg=name)


def test_weights_of_examples_reach_a_program_that_knows_nothing_of_them():
    weights = np.random.default_rng(1).integers(0, 4, 36).astype(float)
    ours = search("classification", cv=3, space=hpx.Space(rate=0.1), trials=1)
    with jax.enable_x64(True):
        ours.fit(IRIS, NAMES, sample_weight=weights)
        alone = Alone(0.1).fit(IRIS, NAMES, weights)
        np.testing.assert_allclose(ours.predict_proba(IRIS), alone.predict_proba(IRIS), rtol=1e-9)
        for fold, (train, test) in enumerate(StratifiedKFold(3).split(IRIS, NAMES)):
            alone = Alone(0.1).fit(IRIS[train], NAMES[train], weights[train])
            score = alone.score(IRIS[test], NAMES[test], weights[test])
            assert ours.cv_results_[f"split{fold}_test_score"][0] == pytest.approx(score, rel=1e-9)


def test_a_program_that_loses_the_weights_is_refused():
    weights, linear = np.arange(36.0), Linear("classification")
    without = lambda split: Examples(split.x, split.y)
    for lose in (
        lambda data: hpx.Data(without(data.train), without(data.valid)),
        lambda data: hpx.Data(data.train, without(data.valid)),
    ):
        found = search("classification", program=lambda data, lose=lose: linear(lose(data)))
        with pytest.raises(hpx.InputError, match=r"SweepCV.program = .*must keep the weights of fit\(sample_weight"):
            found.fit(IRIS, NAMES, sample_weight=weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"= '\[3\]': must be a weight for each of the 6 examples, finite and 0 or more"),
        (np.ones((6, 1)), r"= '\[6, 1\]': must be a weight for each of the 6"),
        ([1, 1, 1, 1, 1, -1], "must be a weight for each of the 6 examples, finite and 0 or more"),
        ([1, 1, 1, 1, 1, np.nan], "must be a weight for each of the 6 examples, finite and 0 or more"),
        (["heavy"] * 6, "must be a weight for each of the 6 examples"),
        ([0, 0, 0, 0, 1, 1], "= 0: must not be zero for all training or all test examples of a fold, as in fold 0"),
    ],
)
def test_bad_weights_of_examples_are_refused(weights, message):
    with pytest.raises(hpx.InputError, match=f"fit.sample_weight .*{message}"):
        search("classification").fit(np.zeros((6, 2)), np.array([0, 1] * 3), sample_weight=weights)


class OneLogit(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x)[:, 0]


def test_one_logit_of_two_classes(monkeypatch):
    X, y = IRIS[13:], NAMES[13:]  # b and c

    def program(data):
        return hpx.supervised(
            model=OneLogit(), optimizer=lambda h: optax.adam(h.rate), data=data, batch_size=8, steps=60,
            loss=lambda outputs, y: optax.sigmoid_binary_cross_entropy(outputs, y.astype(float)),
        )  # fmt: skip

    found = search("classification", program=program).fit(X, y)
    shares, chosen = found.predict_proba(X), found.predict(X)
    logits = found._outputs(X)
    assert logits.shape == (len(X),)
    np.testing.assert_allclose(shares[:, 1], 1 / (1 + np.exp(-logits.astype(float))), rtol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(chosen, np.where(logits > 0, "c", "b"))
    assert found.score(X, y) == np.mean(chosen == y) > 0.8
    monkeypatch.setattr(found, "_outputs", lambda X: logits[:, None])
    np.testing.assert_array_equal(found.predict(X), chosen)
    monkeypatch.setattr(found, "classes_", np.array(["a", "b", "c"]))
    with pytest.raises(hpx.InputError, match="must give a logit for each of the 3 classes"):
        found.predict(X)


def test_folds_hold_the_examples_of_the_splitter():
    """36 examples in 5 folds, of which the last is the longest: the mean over a fold tells which examples it has."""
    target = np.arange(36.0) ** 2
    splits = list(KFold(5, shuffle=True, random_state=3).split(target))[::-1]
    objective = hpx.maximize("valid/target")

    def program(data):
        return hpx.supervised(
            model=nn.Dense(1), optimizer=lambda h: optax.sgd(0.0 * h.rate), loss=squared_error, data=data, steps=1,
            metrics={"target": lambda outputs, y: y}, batch_size=28,
        )  # fmt: skip

    found = search("regression", program=program, cv=splits, trials=1, objective=objective).fit(IRIS, target)
    scores = [found.cv_results_[f"split{fold}_test_score"][0] for fold in range(5)]
    np.testing.assert_allclose(scores, [target[test].mean() for _, test in splits], rtol=1e-6)
    assert isinstance(found.result_, hpx.Result)


def test_folds_of_classifiers_are_stratified():
    rare = (np.arange(90) < 6).astype(int)
    for cv in (3, None, StratifiedKFold(4, shuffle=True, random_state=0)):
        ours, theirs = splits_of(cv, rare, None, True), check_cv(cv, rare, classifier=True).split(rare, rare)
        for (train, test), (other_train, other_test) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(train, other_train)
            np.testing.assert_array_equal(test, other_test)


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
    with pytest.raises(hpx.InputError, match=r"SweepCV.cv = GroupKFold.*: cannot split these examples: The 'groups'"):
        search("classification", cv=GroupKFold(2)).fit(X, y)
    with pytest.raises(hpx.InputError, match=r"SweepCV.cv = 'many': cannot split"):
        search("classification", cv="many").fit(X, y)
    with pytest.raises(hpx.InputError, match=r"SweepCV.cv = .*: cannot split .* out of bounds"):
        search("classification", cv=[([0, 1], [9])]).fit(X, y)
    with pytest.raises(hpx.InputError, match=r"must give folds with training and test examples"):
        search("classification", cv=[(range(6), np.zeros(0, int))]).fit(X, y)
    with pytest.raises(hpx.InputError, match=r"cv = ShuffleSplit.* which train apart, .* Leave rounds"):
        search("classification", cv=ShuffleSplit(2, test_size=2), scheduler=hpx.Halving(min_steps=10)).fit(X, y)
    with pytest.raises(hpx.InputError, match=r"SweepCV.program = .*: must give an hpx.Program with predict"):
        search("classification", program=lambda data: nn.Dense(2)).fit(X, y)
    with pytest.raises(hpx.InputError, match=r"SweepCV.program = 3: must give an hpx.Program with predict"):
        search("classification", program=3).fit(X, y)
    unable = dataclasses.replace(Linear("classification")(hpx.Data(Examples(X, y), Examples(X, y))), predict=None)
    with compilations() as names, pytest.raises(hpx.InputError, match=r"must give an hpx\.Program with predict"):
        search("classification", program=lambda data: unable).fit(X, y)
    assert not any("_lanes" in name for name in names)
