"""How much each hyperparameter matters for a metric, on conditional spaces too, as Optuna's evaluators have it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array, Floats
from hpjax.core.errors import InputError, check_int, did_you_mean, missing
from hpjax.core.objective import Objective, minimize
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable

METHODS = ("ped-anova", "fanova")
# The name of which alternative of a space a trial is of, where there are several.
ALTERNATIVE = "(alternative)"
# An alternative with fewer trials has no importances.
FEWEST = 8
# Of the intervals, 90 %.
ENDS = (0.05, 0.95)


class Importance(NamedTuple):
    """How much a hyperparameter matters.

    Attributes:
      name: of the hyperparameter; ``"(alternative)"`` for which alternative of a space a trial is of.
      value: its share, from 0 to 1; those of all hyperparameters add up to 1.
      low, high: the ends of its 90 % interval.
    """

    name: str
    value: float
    low: float
    high: float


def importance(
    table: TrialTable, metric: str | Objective | None, method: str, resamples: int, seed: int
) -> list[Importance]:
    """Returns how much each hyperparameter matters; see ``Result.importance``."""
    try:
        import optuna
    except ImportError:
        raise missing("importance()", "optuna") from None
    if method not in METHODS:
        raise InputError("importance.method", method, f"must be one of {METHODS}", 'Write method="fanova".')
    by = _objective(table, metric, method)
    metric = by.metric
    resamples = check_int("importance.resamples", resamples, least=0)
    kept = np.flatnonzero((table.statuses == Status.COMPLETE) & np.isfinite(table.last(metric)).all(axis=1))
    if not table.varied or len(kept) < FEWEST:
        allowed = f"must have {FEWEST} or more complete trials, and a hyperparameter that varies"
        raise InputError("importance", f"{len(kept)} complete trials", allowed, "Write hpx.Sweep(..., trials=64).")
    scores = by.scores(table.last(metric)[kept].astype(float))  # (trials, replicates), lower is better
    # Shares do not depend on the unit, and in this one the square of no score overflows.
    scores = np.ldexp(scores, -int(np.frexp(np.abs(scores).max())[1]))
    shares = _Shares(optuna, table, kept, method)
    value = shares.of(np.arange(len(kept)), scores.mean(axis=1))
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(resamples):
        rows = rng.integers(0, len(kept), len(kept))
        columns = rng.integers(0, scores.shape[1], scores.shape)
        drawn.append(shares.of(rows, np.take_along_axis(scores[rows], columns, axis=1).mean(axis=1)))
    found = []
    for name, share in value.items():
        ends = np.quantile([each.get(name, 0.0) for each in drawn], ENDS) if drawn else (np.nan, np.nan)
        found.append(Importance(name, share, float(ends[0]), float(ends[1])))
    return sorted(found, key=lambda each: -each.value)


def _objective(table: TrialTable, metric: str | Objective | None, method: str) -> Objective:
    """Returns what was asked for as a metric and a direction, which a variance does not need."""
    by = table.objective if metric is None or metric == table.objective.metric else metric
    if isinstance(by, str) and by in table.metrics and method == "fanova":
        by = minimize(by)
    name = by.metric if isinstance(by, Objective) else by
    if name not in table.metrics:
        raise InputError("importance.metric", name, "must be a metric", did_you_mean(str(name), table.metrics))
    if not isinstance(by, Objective):
        allowed = "must say which of its values are best, by which PED-ANOVA goes"
        raise InputError("importance.metric", name, allowed, f'Write metric=hpx.minimize("{name}"), or maximize.')
    return by


class _Shares:
    """The shares of hyperparameters in the variance of scores: between the alternatives of a space, and within each."""

    def __init__(self, optuna: Any, table: TrialTable, kept: Array, method: str) -> None:
        # With the sampler for Optuna these import JAX, which results need for nothing else.
        from hpjax.results.optuna_export import distributions_of, parameter_of
        from hpjax.samplers.optuna import silent

        self._optuna, self._silent, self._method = optuna, silent, method
        kinds = distributions_of(optuna, table)
        self._points = [{n: parameter_of(value) for n, value in table.first_hparams[t].items()} for t in kept]
        # A constant has no share, and Optuna no use for it.
        self._kinds = {name: kind for name, kind in kinds.items() if name in table.varied}
        held = ((each.holds(table.first_hparams[t]) for each in table.alternatives) for t in kept)
        self._branch = np.array([next((at for at, holds in enumerate(each) if holds), 0) for each in held])

    def of(self, rows: Array, scores: Floats) -> dict[str, float]:
        """Returns name to share for the trials in some rows, with their scores, (rows,)."""
        branch, mean = self._branch[rows], scores.mean()
        found: dict[str, float] = {}
        between = 0.0
        for each in np.unique(branch):
            own = branch == each
            weight = own.mean()
            between += weight * (scores[own].mean() - mean) ** 2
            within = weight * scores[own].var()
            for name, share in self._within([self._points[row] for row in rows[own]], scores[own]).items():
                found[name] = found.get(name, 0.0) + within * share
        if len(np.unique(self._branch)) > 1:
            found[ALTERNATIVE] = between
        whole = sum(found.values())
        return {name: float(share / whole) if whole > 0 else 0.0 for name, share in found.items()}

    def _within(self, points: Sequence[Mapping[str, Any]], scores: Floats) -> dict[str, float]:
        """Returns the shares of the hyperparameters that all of some points have."""
        names = [name for name in self._kinds if name in points[0]]
        if len(points) < FEWEST or not names or scores.var() == 0:
            return dict.fromkeys(names, 0.0)
        with self._silent(self._optuna):
            study = self._optuna.create_study()
        own = {name: self._kinds[name] for name in names}
        for point, score in zip(points, scores.tolist(), strict=True):
            params = {name: point[name] for name in names}
            study.add_trial(self._optuna.trial.create_trial(params=params, distributions=own, value=score))
        evaluators = self._optuna.importance
        evaluator = (
            evaluators.FanovaImportanceEvaluator(seed=0)
            if self._method == "fanova"
            else evaluators.PedAnovaImportanceEvaluator()
        )
        return dict(evaluators.get_param_importances(study, evaluator=evaluator))
