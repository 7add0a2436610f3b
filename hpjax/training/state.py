"""The state of a lane of a supervised program: NamedTuples whose fields are None where nobody asked for them."""

from typing import Any, NamedTuple

import jax

from hpjax.training.early_stopping import StoppingState
from hpjax.training.measures import Values
from hpjax.training.ramp import Filled
from hpjax.training.weighting import Weighted


class LastEvaluation(NamedTuple):
    """The last evaluation, for optimizers that look at metrics.

    Attributes:
      metrics: the metrics of the validation split by their full names, float (); infinite before the first evaluation.
      evaluations: number of evaluations so far, int32 ().
    """

    metrics: Values
    evaluations: jax.Array


class Accumulated(NamedTuple):
    """The sums over the microbatches of a batch that have been computed so far.

    Attributes:
      gradients: a pytree like the parameters, float32 at least.
      loss: float ().
      parts: number of microbatches, int32 ().
      squares: the sum of their gradients' squared norms, float () by layer; None unless the gradient noise is
        monitored.
      weighted: with weights, the sums of loss and metrics by name, float (), of which gradients and loss are sums, too.
        Empty where examples count alike: gradients and loss are then shares of the mean.
    """

    gradients: Any
    loss: jax.Array
    parts: jax.Array
    squares: Values | None
    weighted: dict[str, Weighted]


class Held(NamedTuple):
    """The metrics of training batches that stand until the next batch is measured.

    Attributes:
      so_far: what the calls of the present batch added up to, float () by name.
      last: the values of the last batch that was measured, float () by name.
    """

    so_far: Values
    last: Values


class TrainingState(NamedTuple):
    """The state of a lane; a field that the arguments of ``supervised`` do not ask for is None.

    Attributes:
      params: the parameters of the model, as they are trained.
      stats: the model's other variables, such as batch statistics.
      opt_state: the state of the optimizer.
      average: the parameters that evaluations use, where these are others than ``params``: a moving average, float32 at
        least, the slow ones of ``optax.lookahead``, those of a schedule-free optimizer, or the true ones of SAM.
      stopping: the state of early stopping.
      last: the last evaluation.
      accumulated: the sums over microbatches.
      filled: the batches so far, where their size changes.
      held: the metrics of training batches, where not every batch is measured.
    """

    params: Any
    stats: Any
    opt_state: Any
    average: Any = None
    stopping: StoppingState | None = None
    last: LastEvaluation | None = None
    accumulated: Accumulated | None = None
    filled: Filled | None = None
    held: Held | None = None

    @property
    def evaluated(self) -> "Evaluated":
        """What evaluations use: ``average`` if there is any, else ``params``, and the statistics."""
        if self.average is None:
            return Evaluated(self.params, self.stats)
        # In the dtypes that the model computes with.
        return Evaluated(jax.tree.map(lambda a, p: a.astype(p.dtype), self.average, self.params), self.stats)


class Evaluated(NamedTuple):
    """The variables of a model that an evaluation uses, and that early stopping keeps of the best one.

    Attributes:
      params: the parameters.
      stats: the model's other variables.
    """

    params: Any
    stats: Any
