"""A sweep as an estimator of scikit-learn: ``SweepCV``."""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np

from hpjax.core.arrays import Array, Floats
from hpjax.core.errors import InputError, RunError, missing
from hpjax.core.objective import Objective, minimize
from hpjax.core.program import Data, Program
from hpjax.core.space import Space
from hpjax.data.examples import Examples, WeightedExamples, tidy_examples
from hpjax.engine.probe import trace_program
from hpjax.engine.tracing import lane_hparams
from hpjax.frontends.cross_validation import CrossValidation, Splits, cross_validated, splits_of
from hpjax.results.store.rows import Status
from hpjax.samplers import Manual, Sampler, Sobol
from hpjax.schedulers import Scheduler
from hpjax.sweep.models import Predictor
from hpjax.sweep.sweep import Sweep

try:
    from sklearn.base import BaseEstimator
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.utils import ClassifierTags, RegressorTags
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise missing("hpx.sklearn", "scikit-learn") from None

TASKS = ("classification", "regression")


def _checked_weights(sample_weight: Any, splits: Splits, count: int) -> Array:
    """Returns a float for each of ``count`` examples. Raises ``InputError`` unless each part of a fold has a weight."""
    try:
        weights = np.asarray(sample_weight, float)
    except (ValueError, TypeError):
        weights = np.array(np.nan)
    remedy = "Write sample_weight=np.ones(len(X))."
    if weights.shape != (count,) or not (np.isfinite(weights) & (weights >= 0)).all():
        allowed = f"must be a weight for each of the {count} examples, finite and 0 or more"
        raise InputError("fit.sample_weight", f"{list(weights.shape)}", allowed, remedy)
    for fold, parts in enumerate(splits):
        if not all(weights[part].any() for part in parts):
            allowed = f"must not be zero for all training or all test examples of a fold, as in fold {fold}"
            raise InputError("fit.sample_weight", 0, allowed, "Write fewer folds, cv=2, or give other weights.")
    return weights


def _classifies(estimator: Any) -> bool:
    return bool(estimator.task == "classification")


class SweepCV(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator that cross-validates all trials of a sweep in one program, and trains the best on all data.

    It is used like ``GridSearchCV``, and trains no trial alone.

    Args:
      program: a function ``program(data) -> hpx.Program``, whose result has ``predict``, as that of ``hpx.supervised``
        has. ``data.train`` and ``data.valid`` are ``Examples(x, y)``, or where ``fit`` gets ``sample_weight``
        ``WeightedExamples(x, y, weights)``, which ``hpx.supervised`` takes as they are; labels are numbered from 0 in
        their order. The function is called twice: for the cross-validation, and for the last training, where both
        splits are all data. Early stopping, and whatever else reads validation metrics, reads training examples there.
      space: the space of the hyperparameters.
      cv: a number of folds, 2 or more, stratified for classification; a splitter of scikit-learn, ``KFold(5)``; or an
        iterable of (train, test) indices. Folds that overlap or differ by more than one example are compiled and
        trained apart, each in a sweep of its own, and allow neither rounds nor a scheduler.
      trials, rounds, replicates, sampler, scheduler, objective, seed: as for ``hpx.Sweep``; by default Sobol points,
        and the lowest validation loss.
      task: ``"classification"``, where the model's outputs are logits, (examples, classes), or for two classes that of
        the second, (examples,) or (examples, 1); or ``"regression"``, where they are the predictions, (examples,) or
        (examples, targets).

    Attributes:
      best_params_: dict, the hyperparameters of the best trial.
      best_score_: float, its cross-validated objective; a loss is negated, so that greater is better.
      best_index_: int, its trial id.
      cv_results_: dict of columns, each (trials,), named as those of ``GridSearchCV``: ``params``, ``param_<name>``,
        ``split<fold>_test_score``, ``mean_test_score``, ``std_test_score`` and ``rank_test_score``. Trials that
        diverged have NaN and the last rank. There are no times, because all trials train together.
      n_splits_: int, the number of folds.
      result_: the ``hpx.Result`` of the cross-validation, or a tuple of one for each fold where they train apart; it is
        not pickled.
      classes_: (classes,), the labels, for classification.
      n_features_in_: int, the size of the second axis of the inputs.

    A fitted estimator is pickled with its training data, from which ``program`` rebuilds the model.

    Example:
      >>> from sklearn.datasets import load_iris
      >>> def program(data):
      ...     return hpx.supervised(
      ...         model=nn.Dense(3), optimizer=lambda h: optax.adam(h.rate),
      ...         loss=optax.softmax_cross_entropy_with_integer_labels, data=data, batch_size=32, steps=200)
      >>> space = hpx.Space(rate=hpx.LogUniform(1e-3, 1.0))
      >>> search = hpx.sklearn.SweepCV(program, space, cv=5, trials=8).fit(*load_iris(return_X_y=True))
      >>> bool(search.score(*load_iris(return_X_y=True)) > 0.9)
      True
    """

    def __init__(
        self,
        program: Callable[[Data], Program],
        space: Space,
        *,
        cv: Any = 5,
        trials: int | None = 32,
        rounds: int = 1,
        replicates: int = 1,
        sampler: Sampler | None = None,
        scheduler: Scheduler | None = None,
        objective: Objective | None = None,
        seed: int = 0,
        task: Literal["classification", "regression"] = "classification",
    ) -> None:
        self.program = program
        self.space = space
        self.cv = cv
        self.trials = trials
        self.rounds = rounds
        self.replicates = replicates
        self.sampler = sampler
        self.scheduler = scheduler
        self.objective = objective
        self.seed = seed
        self.task = task

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Searches by cross-validation, trains the best trial on all examples, and returns this estimator.

        Args:
          X: inputs, numbers, (examples, ...).
          y: labels, (examples,), or targets, floats, (examples,) or (examples, targets).
          sample_weight: a weight for each example, finite and 0 or more, (examples,). The data of ``program`` has
            them: with ``hpx.supervised`` they weight the loss in training, and the loss and the metrics of each fold.
            A program of its own reads ``weights`` of its batches and splits.
          groups: the group of each example, (examples,), for splitters such as ``GroupKFold``.

        Raises:
          InputError, ProgramError: the sweep cannot run.
          RunError: every trial diverged, or the best one did on all data.
        """
        self.__dict__.pop("_predictor", None)  # a fit that fails leaves an estimator that is not fitted
        if self.task not in TASKS:
            raise InputError("SweepCV.task", self.task, f"must be one of {TASKS}", 'Write task="classification".')
        several = not _classifies(self)  # whether an example may have several targets
        X, y = validate_data(
            self, X, y, allow_nd=True, multi_output=several, y_numeric=several, ensure_min_samples=2, dtype="numeric"
        )
        if _classifies(self):
            check_classification_targets(y)
            self.classes_, y = np.unique(y, return_inverse=True)
        else:
            y = y.astype(np.float64)
        self._targets = y.shape[1:]
        splits = splits_of(self.cv, y, groups, _classifies(self))
        weights = None if sample_weight is None else _checked_weights(sample_weight, splits, len(y))
        every = tidy_examples("fit", X, y, weights)
        self._data = Data(every, every, name="all")
        objective = minimize("valid/loss") if self.objective is None else self.objective

        def sweep_of(data: Data, folds: int | None) -> Sweep:
            return Sweep(
                self._program(data),
                self.space,
                self.trials,
                rounds=self.rounds,
                replicates=self.replicates,
                folds=folds,
                sampler=Sobol() if self.sampler is None else self.sampler,
                scheduler=self.scheduler,
                objective=objective,
                seed=self.seed,
            )

        adaptive = self.rounds != 1 or self.scheduler is not None
        found = cross_validated(every, splits, sweep_of, adaptive, self.cv)
        self.result_ = found.results[0] if len(found.results) == 1 else found.results
        self._set_results(found, -objective.scores(found.values).mean(axis=1))
        again = Sweep(
            self._program(self._data),
            self.space,
            sampler=Manual([self.best_params_]),
            objective=objective,
            seed=self.seed,
        )
        last = again.run(progress=False)
        if last.best.status == Status.DIVERGED:
            raise RunError(
                f"the best trial, {self.best_params_}, diverged when it trained on all data. Write a "
                "space for SweepCV that leaves these values out."
            )
        self._traced = tuple(verdict.name for verdict in again.plan().verdicts if verdict.traced)
        self._leaves = [leaf for _, leaf in last.leaves(0)]
        self._predictor = self._predicting()
        return self

    def _program(self, data: Data) -> Program:
        """Returns the user's program for these splits. Raises unless it can predict, and keeps the weights."""
        program = self.program(data) if callable(self.program) else None
        if not isinstance(program, Program) or program.predict is None:
            raise InputError(
                "SweepCV.program",
                self.program,
                "must give an hpx.Program with predict",
                "Return hpx.supervised(...), or hpx.Program(..., predict=...).",
            )
        own = () if program.data is None else (program.data.train, program.data.valid)
        if isinstance(data.train, WeightedExamples) and any(isinstance(split, Examples) for split in own):
            allowed = "must keep the weights of fit(sample_weight=...), and its data has none"
            remedy = "Write data.train._replace(x=...), or give from_arrays weights=data.train.weights."
            raise InputError("SweepCV.program", self.program, allowed, remedy)
        return program

    def _predicting(self) -> Predictor:
        """Returns the predictor of the best trial's model, from what is pickled of it."""
        program = self._program(self._data)
        kinds = {name: self.space.kind(name) for name in self._traced}
        h = lane_hparams(kinds, self.best_params_, self._traced)
        return Predictor(program, trace_program(program, h, *program.splits), h, [self._leaves])

    def _set_results(self, found: CrossValidation, splits: Floats) -> None:
        """Sets the attributes that describe the cross-validation.

        Args:
          found: what it gave.
          splits: the score of each trial on each fold, greater being better, float (trials, folds).
        """
        points, ranking = found.points, found.ranking
        self.n_splits_, self.best_index_ = splits.shape[1], ranking[0]
        self.best_params_, self.best_score_ = points[self.best_index_], float(splits[self.best_index_].mean())
        place = np.full(len(points), len(ranking) + 1, np.int32)
        place[ranking] = np.arange(1, len(ranking) + 1)
        columns = {
            f"param_{name}": np.ma.MaskedArray(
                [point.get(name) for point in points], [name not in point for point in points], object
            )
            for name in found.results[0].names
        }
        self.cv_results_ = {
            "params": points,
            **columns,
            **{f"split{fold}_test_score": splits[:, fold] for fold in range(self.n_splits_)},
            "mean_test_score": splits.mean(axis=1),
            "std_test_score": splits.std(axis=1),
            "rank_test_score": place,
        }

    def _outputs(self, X: Any) -> Array:
        """Returns the model's outputs, (examples, ...)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True, dtype="numeric")
        outputs: Array = self._predictor(tidy_examples("predict", X, np.zeros(len(X))).x)[0]
        return outputs

    def predict(self, X: Any) -> Array:
        """Returns the label of each example, (examples,), or its targets, (examples,) or (examples, targets).

        Args:
          X: inputs, as in ``fit``.
        """
        if _classifies(self):
            chosen = self._logits(X).argmax(axis=1)
            labels: Array = self.classes_[chosen]
            return labels
        outputs = self._outputs(X)
        targets: Array = outputs.astype(np.float64).reshape(len(outputs), *self._targets)
        return targets

    @available_if(_classifies)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Array:
        """Returns the probability of each class by the softmax of the logits, float64 (examples, classes).

        A single logit, of the second of two classes, gives its probability by the sigmoid.

        Args:
          X: inputs, as in ``fit``.
        """
        from scipy.special import softmax

        shares: Array = softmax(self._logits(X), axis=1)
        return shares

    def _logits(self, X: Any) -> Array:
        """Returns the logit of each class, float64 (examples, classes); of two, the first may be 0.

        Raises:
          InputError: the model gives too few outputs.
        """
        outputs, classes = self._outputs(X).astype(np.float64), len(self.classes_)
        outputs = outputs[:, None] if outputs.ndim == 1 else outputs
        if outputs.shape[1] == 1 and classes == 2:
            return np.concatenate([np.zeros_like(outputs), outputs], axis=1)
        if outputs.ndim != 2 or outputs.shape[1] < classes:
            allowed = f"must give a logit for each of the {classes} classes"
            raise InputError("SweepCV.program", list(outputs.shape), allowed, f"End with nn.Dense({classes}).")
        return outputs[:, :classes]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Returns the accuracy, or for regression the coefficient of determination, R².

        Args:
          X: inputs, as in ``fit``.
          y: the true labels or targets, as in ``fit``.
          sample_weight: weights, (examples,), or None for equal ones.
        """
        measure = accuracy_score if _classifies(self) else r2_score
        return float(measure(y, self.predict(X), sample_weight=sample_weight))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k not in ("result_", "_predictor")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "_leaves"):
            self._predictor = self._predicting()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_predictor")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier" if _classifies(self) else "regressor"
        tags.classifier_tags = ClassifierTags() if _classifies(self) else None
        tags.regressor_tags = None if _classifies(self) else RegressorTags()
        tags.target_tags.required = True
        tags.target_tags.multi_output = not _classifies(self)
        return tags


__all__ = ["SweepCV"]
