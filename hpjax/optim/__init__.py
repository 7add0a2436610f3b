"""Optimizers and schedules whose every number can be traced, under the names and arguments of Optax.

Optax decides with Python's ``if`` on step counts, decay rates and ``nesterov``; here they may be hyperparameters that
differ from lane to lane. ``optax.adam`` and its kin, clipping and weight decay are not here, since Optax's own versions
can be traced.

Besides gradients and parameters, ``supervised`` passes to an optimizer's ``update``, as Optax's extra arguments:
``value``, the loss of the batch, penalty included, float (); ``grad``, its gradients, a pytree like the parameters;
``value_fn`` and ``obj_fn``, functions of parameters that give this loss; ``grad_fn``, a function of parameters and a
number that gives its gradients; ``key``, a random key of this step, shape (); ``batch_size``, its examples, a
number or int32 (), None with a stream; and for ``reduce_on_plateau`` ``metrics``, those of the last evaluation by
their full names, and ``evaluations``, the number of evaluations so far.
An ``update`` without ``**extra_args`` gets those that it names.

Example:
  >>> schedule = warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=10, decay_steps=100)
  >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 55, 100)]
  [0.0, 0.05, 0.1, 0.05, 0.0]
"""

from hpjax.optim.interpolated_schedules import (
    cosine_onecycle_schedule,
    linear_onecycle_schedule,
    piecewise_linear_schedule,
    spline_schedule,
)
from hpjax.optim.schedules import (
    constant_schedule,
    cosine_decay_schedule,
    cosine_restarts_schedule,
    exponential_decay,
    linear_schedule,
    piecewise_constant_schedule,
    polynomial_schedule,
)
from hpjax.optim.transforms import add_noise, half_life, reduce_on_plateau, scale_by_batch_size, sgd
from hpjax.optim.two_point_schedules import (
    smooth_nonmonotonic_schedule,
    two_point_linear_schedule,
    two_point_spline_schedule,
)
from hpjax.optim.warmup_schedules import (
    inverse_sqrt_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_rex_decay_schedule,
    warmup_sqrt_decay_schedule,
    warmup_stable_decay_schedule,
)

__all__ = [
    "add_noise",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "cosine_restarts_schedule",
    "exponential_decay",
    "half_life",
    "inverse_sqrt_schedule",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_linear_schedule",
    "polynomial_schedule",
    "reduce_on_plateau",
    "scale_by_batch_size",
    "sgd",
    "smooth_nonmonotonic_schedule",
    "spline_schedule",
    "two_point_linear_schedule",
    "two_point_spline_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_rex_decay_schedule",
    "warmup_sqrt_decay_schedule",
    "warmup_stable_decay_schedule",
]
