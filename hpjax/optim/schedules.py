"""Schedules whose every number can be traced, under the names and arguments of Optax: see ``hpx.optim``.

Each function returns a schedule: ``schedule(count)`` takes the number of the optimizer step, int32 () from 0, and
returns the value at that step, float (). Every argument is a number, or an array of shape () where it is traced;
steps are optimizer steps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from hpjax.core.bounds import check_bounds

Number = Any  # a float, an int, or a traced hyperparameter
Schedule = Callable[[Any], Any]


def as_float(count: Any) -> Any:
    """Returns a number of steps as a float array, float32 by default."""
    return jnp.asarray(count).astype(jnp.result_type(float))


def constant_schedule(value: Number) -> Schedule:
    """Returns a schedule with the same value at every step.

    Args:
      value: the value.

    Example:
      >>> float(constant_schedule(0.5)(10))
      0.5
    """
    return lambda count: jnp.full_like(as_float(count), value)


def polynomial_schedule(
    init_value: Number, end_value: Number, power: Number, transition_steps: Number, transition_begin: Number = 0
) -> Schedule:
    """Returns a schedule that goes from ``init_value`` to ``end_value`` as a polynomial.

    Args:
      init_value: the value up to step ``transition_begin``.
      end_value: the value from step ``transition_begin + transition_steps`` on.
      power: the exponent of the polynomial; 1 makes a straight line.
      transition_steps: steps of the transition, 0 or more; with 0 the value stays ``init_value``, as in Optax.
      transition_begin: the step at which the transition begins, 0 or more.

    Raises:
      InputError: a number of steps is negative.

    Example:
      >>> float(polynomial_schedule(1.0, 0.0, power=2, transition_steps=10)(5))
      0.25
    """
    check_bounds("polynomial_schedule.transition_steps", transition_steps, 0)
    check_bounds("polynomial_schedule.transition_begin", transition_begin, 0)

    def schedule(count: Any) -> Any:
        # Clipped after the division: rounding may take a quotient beyond 1, and a negative base has no real power.
        done = jnp.clip((as_float(count) - transition_begin) / jnp.maximum(transition_steps, 1), 0, 1)
        done = jnp.where(jnp.asarray(transition_steps) > 0, done, 0)
        return (init_value - end_value) * (1 - done) ** power + end_value

    return schedule


def linear_schedule(
    init_value: Number, end_value: Number, transition_steps: Number, transition_begin: Number = 0
) -> Schedule:
    """Returns a schedule that goes from ``init_value`` to ``end_value`` in a straight line.

    Args:
      init_value: the value up to step ``transition_begin``.
      end_value: the value from step ``transition_begin + transition_steps`` on.
      transition_steps: steps of the transition, 0 or more.
      transition_begin: the step at which the transition begins, 0 or more.

    Raises:
      InputError: a number of steps is negative.

    Example:
      >>> float(linear_schedule(1.0, 0.0, transition_steps=10)(5))
      0.5
    """
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)


def cosine_decay_schedule(
    init_value: Number, decay_steps: Number, alpha: Number = 0.0, exponent: Number = 1.0
) -> Schedule:
    """Returns a schedule that follows half a cosine from ``init_value`` down to ``alpha * init_value``.

    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Args:
      init_value: the value at step 0.
      decay_steps: steps until the lowest value, which then stays; 1 or more.
      alpha: the lowest value as a share of ``init_value``.
      exponent: the power to which the cosine is raised.

    Raises:
      InputError: ``decay_steps`` is below 1.

    Example:
      >>> round(float(cosine_decay_schedule(1.0, decay_steps=10)(5)), 3)
      0.5
    """
    check_bounds("cosine_decay_schedule.decay_steps", decay_steps, 1)

    def schedule(count: Any) -> Any:
        done = jnp.minimum(as_float(count), decay_steps) / decay_steps
        return init_value * ((1 - alpha) * (0.5 * (1 + jnp.cos(jnp.pi * done))) ** exponent + alpha)

    return schedule


def cosine_restarts_schedule(
    init_value: Number, decay_steps: Number, cycles: Number, alpha: Number = 0.0, growth: Number = 1.0
) -> Schedule:
    """Returns a schedule of several half cosines, each from ``init_value`` down; the last value stays.

    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Args:
      init_value: the value at the beginning of each cycle.
      decay_steps: steps of all cycles together, 1 or more.
      cycles: number of cycles, 1 or more.
      alpha: the value at the end of a cycle as a share of ``init_value``.
      growth: the length of a cycle as a multiple of the one before, 1 or more; 1 makes them equal.

    Raises:
      InputError: ``decay_steps``, ``cycles`` or ``growth`` is below 1.

    Example:
      >>> schedule = cosine_restarts_schedule(1.0, decay_steps=100, cycles=2)
      >>> [round(float(schedule(step)), 3) for step in (0, 25, 50, 75)]
      [1.0, 0.5, 1.0, 0.5]
    """
    check_bounds("cosine_restarts_schedule.decay_steps", decay_steps, 1)
    check_bounds("cosine_restarts_schedule.cycles", cycles, 1)
    check_bounds("cosine_restarts_schedule.growth", growth, 1)

    def schedule(count: Any) -> Any:
        done = jnp.minimum(as_float(count), decay_steps) / decay_steps
        equal = jnp.abs(jnp.asarray(growth, done.dtype) - 1) < 1e-6
        # For equal cycles the formula below would divide by log 1 = 0; any other number keeps its unused result finite.
        safe = jnp.where(equal, 2.0, growth)
        # Cycle c of n begins at (growthᶜ − 1) / (growthⁿ − 1) of all steps; for equal cycles that tends to c / n.
        grown = jnp.log1p(done * (safe**cycles - 1)) / jnp.log(safe)
        place = jnp.where(equal, done * cycles, grown)
        cycle = jnp.clip(jnp.floor(place + 1e-6), 0, cycles - 1)
        start, end = (jnp.where(equal, c / cycles, (safe**c - 1) / (safe**cycles - 1)) for c in (cycle, cycle + 1))
        within_cycle = jnp.clip((done - start) / (end - start), 0, 1)
        return init_value * ((1 - alpha) * 0.5 * (1 + jnp.cos(jnp.pi * within_cycle)) + alpha)

    return schedule


def exponential_decay(
    init_value: Number,
    transition_steps: Number,
    decay_rate: Number,
    transition_begin: Number = 0,
    staircase: bool = False,
    end_value: Number | None = None,
) -> Schedule:
    """Returns the schedule ``init_value * decay_rate ** (step / transition_steps)``.

    Args:
      init_value: the value up to step ``transition_begin``.
      transition_steps: steps in which the value is multiplied by ``decay_rate`` once, 1 or more.
      decay_rate: the factor, 0 or more; with 0 the value stays ``init_value``, as in Optax.
      transition_begin: the step at which the decay begins, 0 or more.
      staircase: a bool; True keeps the value for ``transition_steps`` and then multiplies it.
      end_value: the value that the schedule does not go beyond; None for no such value.

    Raises:
      InputError: a number of steps or ``decay_rate`` is too small.

    Example:
      >>> float(exponential_decay(1.0, transition_steps=10, decay_rate=0.5)(20))
      0.25
    """
    check_bounds("exponential_decay.transition_steps", transition_steps, 1)
    check_bounds("exponential_decay.transition_begin", transition_begin, 0)
    check_bounds("exponential_decay.decay_rate", decay_rate, 0)

    def schedule(count: Any) -> Any:
        later = as_float(count) - transition_begin
        power = later / transition_steps
        decayed = init_value * decay_rate ** (jnp.floor(power) if staircase else power)
        # A rate of 0 means no decay, as in Optax.
        value = jnp.where((later <= 0) | (jnp.asarray(decay_rate) == 0), init_value, decayed)
        if end_value is None:
            return value
        return jnp.where(decay_rate < 1, jnp.maximum(value, end_value), jnp.minimum(value, end_value))

    return schedule


def piecewise_constant_schedule(
    init_value: Number, boundaries_and_scales: Mapping[int, Number] | Sequence[tuple[Number, Number]]
) -> Schedule:
    """Returns a schedule that is multiplied by a scale at each of several steps.

    Args:
      init_value: the value at step 0.
      boundaries_and_scales: a dict of step to scale, or a list of pairs (step, scale), since a traced step cannot be
        the key of a dict; all are 0 or more.

    Raises:
      InputError: a step or a scale is negative.

    Example:
      >>> schedule = piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.5})
      >>> [float(schedule(step)) for step in (9, 10, 20)]
      [1.0, 0.5, 0.25]
    """
    pairs = list(boundaries_and_scales.items() if isinstance(boundaries_and_scales, Mapping) else boundaries_and_scales)
    for boundary, scale in pairs:
        check_bounds("piecewise_constant_schedule.boundary", boundary, 0)
        check_bounds("piecewise_constant_schedule.scale", scale, 0)

    def schedule(count: Any) -> Any:
        value = jnp.asarray(init_value, jnp.result_type(float))
        for boundary, scale in pairs:
            value = jnp.where(as_float(count) >= boundary, value * scale, value)
        return value

    return schedule
