"""Early stopping: ends a lane when its validation metric stalls; the lane keeps its best parameters."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError, did_you_mean
from hpjax.core.objective import Objective, minimize


class StoppingState(NamedTuple):
    """The state of early stopping.

    Attributes:
      best: the value of the best evaluation so far, float (), lower being better; infinite before the first.
      bad: evaluations since then, none of which was an improvement, int32 ().
      kept: the variables that the best evaluation used.
    """

    best: jax.Array
    bad: jax.Array
    kept: Any


@dataclass(frozen=True)
class EarlyStopping:
    """Ends each lane when a validation metric has not improved for ``patience`` evaluations.

    The lane is then complete, costs nothing from the next segment on, and keeps the parameters of its best evaluation.
    The metric ``valid/best_<metric>`` reports the value of that evaluation; rank such trials by it.

    L. Prechelt, "Early Stopping — But When?", 1998.

    Args:
      patience: evaluations without improvement before the end, 1 or more; int32 () where it is traced.
      min_delta: an improvement is a value that is better than the best by more than this, 0 or more; float32 () where
        it is traced. After a smaller improvement the parameters are not kept, as in Keras.
      objective: the validation metric and its direction.

    Raises:
      InputError: a number lies outside its range, or the metric is not measured on the validation split.

    Example:
      >>> EarlyStopping(patience=3, objective=hpx.maximize("valid/accuracy"))
      EarlyStopping(patience=3, min_delta=0.0, objective=maximize valid/accuracy)
    """

    patience: Any
    min_delta: Any = 0.0
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))

    # The argument that gave the objective, in errors.
    argument: ClassVar[str] = "EarlyStopping.objective"

    def __post_init__(self) -> None:
        check_bounds("EarlyStopping.patience", self.patience, 1)
        check_bounds("EarlyStopping.min_delta", self.min_delta, 0)
        if not isinstance(self.objective, Objective) or not self.objective.metric.startswith("valid/"):
            allowed = "must be of a validation metric"
            raise InputError(
                "EarlyStopping.objective", self.objective, allowed, 'Write objective=hpx.minimize("valid/loss").'
            )

    def __repr__(self) -> str:
        return f"EarlyStopping(patience={self.patience}, min_delta={self.min_delta}, objective={self.objective})"

    @property
    def metric(self) -> str:
        """The name of the metric without ``valid/``."""
        return self.objective.metric.removeprefix("valid/")

    def check(self, names: Collection[str]) -> None:
        """Raises ``InputError`` unless the metric is one of the names that an evaluation measures, and its best is not.

        Args:
          names: names without ``valid/``.
        """
        if self.metric not in names:
            known = did_you_mean(self.objective.metric, [f"valid/{name}" for name in names])
            allowed = "must be a validation metric of the program"
            raise InputError(self.argument, self.objective.metric, allowed, known)
        if (best := f"best_{self.metric}") in names:
            remedy = f'Write {{"my_{best}": function}}.'
            raise InputError("supervised.metrics", best, "is what early stopping reports", remedy)

    def init(self, kept: Any) -> StoppingState:
        """Returns the state before the first evaluation, in which ``kept`` are the variables to keep."""
        return StoppingState(jnp.full((), jnp.inf, jnp.result_type(float)), jnp.zeros((), jnp.int32), kept)

    def best(self, state: StoppingState, value: jax.Array) -> jax.Array:
        """Returns the value of the best evaluation so far, including one with ``value``, float ()."""
        return self._sign * jnp.where(self._improved(state, value), self._sign * value, state.best)

    def look(self, state: StoppingState, value: jax.Array, kept: Any) -> tuple[StoppingState, jax.Array]:
        """Returns the state after an evaluation, and whether the trial is over, bool ().

        Args:
          state: the state before the evaluation.
          value: the metric, float ().
          kept: the variables that the evaluation used.
        """
        improved = self._improved(state, value)
        bad = jnp.where(improved, 0, state.bad + 1)
        best = jnp.where(improved, self._sign * value, state.best).astype(state.best.dtype)
        kept = jax.tree.map(lambda new, old: jnp.where(improved, new, old), kept, state.kept)
        return StoppingState(best, bad, kept), bad >= self.patience

    def _improved(self, state: StoppingState, value: jax.Array) -> jax.Array:
        improved: jax.Array = self._sign * value < state.best - self.min_delta
        return improved

    @property
    def _sign(self) -> int:
        return 1 if self.objective.direction == "minimize" else -1


class Keeping(EarlyStopping):
    """Keeps the parameters of each lane's best evaluation, and ends none."""

    argument = "supervised.keep"

    def look(self, state: StoppingState, value: jax.Array, kept: Any) -> tuple[StoppingState, jax.Array]:
        """Returns the state after an evaluation, and that the trial is not over."""
        return super().look(state, value, kept)[0], jnp.zeros((), bool)


def keeping(keep: Any) -> EarlyStopping | None:
    """Returns what keeps the parameters of each trial's best evaluation and never stops it; None for the last ones.

    Args:
      keep: ``"last"``, ``"best"`` for the lowest ``valid/loss``, or an objective of a validation metric.

    Raises:
      InputError: ``keep`` is none of these.
    """
    if isinstance(keep, str) and keep == "last":
        return None
    objective = minimize("valid/loss") if isinstance(keep, str) and keep == "best" else keep
    if not isinstance(objective, Objective) or not objective.metric.startswith("valid/"):
        allowed = 'must be "last", "best", or an objective of a validation metric'
        raise InputError("supervised.keep", keep, allowed, 'Write keep=hpx.maximize("valid/accuracy").')
    return Keeping(1, objective=objective)
