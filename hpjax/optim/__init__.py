"""Optimizers and schedules whose every number can be traced, under the names and arguments of Optax.

Optax decides at trace time on step counts, decay rates and ``nesterov``; here they may be
hyperparameters that differ from lane to lane. What is not here, ``optax.adam`` and its kin, clipping,
weight decay, traces as it is.

Besides gradients and parameters, ``supervised`` hands to an optimizer's ``update``, as Optax's extra
arguments: ``value``, the loss of the batch; ``key``, of this step alone; and to ``reduce_on_plateau``
``metrics``, those of the last evaluation, and ``evaluations``, their number so far.

Example:
  >>> schedule = warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=10, decay_steps=100)
  >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 55, 100)]
  [0.0, 0.05, 0.1, 0.05, 0.0]
"""

from hpjax.optim.schedules import (
    constant_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    cosine_restarts_schedule,
    exponential_decay,
    inverse_sqrt_schedule,
    linear_onecycle_schedule,
    linear_schedule,
    piecewise_constant_schedule,
    polynomial_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_stable_decay_schedule,
)
from hpjax.optim.transforms import add_noise, half_life, reduce_on_plateau, sgd

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
    "polynomial_schedule",
    "reduce_on_plateau",
    "sgd",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_stable_decay_schedule",
]
