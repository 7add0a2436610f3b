"""Early stopping: a trial ends when its validation metric has stalled, and keeps its best parameters."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.core.objective import Objective, minimize


class StoppingState(NamedTuple):
    """What early stopping carries.

    Attributes:
      best: the value of the best evaluation so far, lower being better, ().
      bad: evaluations since, that were no better, int32 ().
      kept: what the program had then.
    """

    best: jax.Array
    bad: jax.Array
    kept: Any


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a trial when a validation metric has not improved for ``patience`` evaluations.

    The trial is then complete, its lane costs nothing from the next segment on, and it keeps the parameters of
    its best evaluation. ``valid/best_<metric>`` is the value these have: the objective to rank such trials by.

    Args:
      patience: evaluations without improvement before the end, 1 or more; may be traced.
      min_delta: an improvement is a value better than the best by more than this, 0 or more; may be traced. Smaller
        ones do not count, and what they reached is not kept, as in Keras.
      objective: the metric, one of ``evaluate``, and which way is better.

    Raises:
      InputError: a number outside its range, or a metric of training.

    L. Prechelt, "Early Stopping — But When?", 1998.

    Example:
      >>> EarlyStopping(patience=3, objective=hpx.maximize("valid/accuracy"))
      EarlyStopping(patience=3, min_delta=0.0, objective=maximize valid/accuracy)
    """

    patience: Any
    min_delta: Any = 0.0
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))

    def __post_init__(self) -> None:
        check_bounds("EarlyStopping.patience", self.patience, 1)
        check_bounds("EarlyStopping.min_delta", self.min_delta, 0)
        if not isinstance(self.objective, Objective) or not self.objective.metric.startswith("valid/"):
            raise InputError(
                "EarlyStopping.objective", self.objective, "must be of a validation metric", 'minimize("valid/loss").'
            )

    def __repr__(self) -> str:
        return f"EarlyStopping(patience={self.patience}, min_delta={self.min_delta}, objective={self.objective})"

    @property
    def metric(self) -> str:
        """The name of the metric among those of ``evaluate``."""
        return self.objective.metric.removeprefix("valid/")

    def init(self, kept: Any) -> StoppingState:
        """The state before the first evaluation."""
        return StoppingState(jnp.full((), jnp.inf, jnp.result_type(float)), jnp.zeros((), jnp.int32), kept)

    def best(self, state: StoppingState, value: jax.Array) -> jax.Array:
        """The value of the best evaluation so far, this one included, as it is reported."""
        return self._sign * jnp.where(self._improved(state, value), self._sign * value, state.best)

    def look(self, state: StoppingState, value: jax.Array, kept: Any) -> tuple[StoppingState, jax.Array]:
        """The state after an evaluation, and whether the trial is over."""
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
