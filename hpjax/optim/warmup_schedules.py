"""Schedules that begin with a rise, under the names and arguments of Optax; see ``hpjax.optim.schedules``."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.optim.schedules import Number, Schedule, as_float, linear_schedule


def warmup_constant_schedule(init_value: Number, peak_value: Number, warmup_steps: Number) -> Schedule:
    """Returns a schedule that rises in a straight line to ``peak_value`` and stays there.

    Args:
      init_value: the value at step 0.
      peak_value: the value from step ``warmup_steps`` on.
      warmup_steps: steps of the rise, 0 or more, at most those of the trial.

    Raises:
      InputError: ``warmup_steps`` is negative, or more than the steps of a trial.

    Example:
      >>> float(warmup_constant_schedule(0.0, 1.0, warmup_steps=10)(5))
      0.5
    """
    check_bounds("warmup_constant_schedule.warmup_steps", warmup_steps, 0, in_run=True)
    return linear_schedule(init_value, peak_value, warmup_steps)


def _rising(t: Any, init_value: Number, peak_value: Number, warmup_steps: Number) -> Any:
    """Returns the value of the straight line of a warmup at step ``t``."""
    return init_value + (peak_value - init_value) * t / jnp.maximum(warmup_steps, 1)


def warmup_cosine_decay_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number,
    decay_steps: Number,
    end_value: Number = 0.0,
    exponent: Number = 1.0,
) -> Schedule:
    """Returns a schedule that rises to ``peak_value`` in a straight line and falls to ``end_value`` as half a cosine.

    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Args:
      init_value: the value at step 0.
      peak_value: the value at step ``warmup_steps``.
      warmup_steps: steps of the rise, 0 or more.
      decay_steps: steps of rise and fall together, more than ``warmup_steps``.
      end_value: the value from step ``decay_steps`` on.
      exponent: the power to which the cosine is raised.

    Raises:
      InputError: ``warmup_steps`` is negative, not less than ``decay_steps``, or more than the steps of a trial.

    Example:
      >>> schedule = warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=30)
      >>> [round(float(schedule(step)), 3) for step in (5, 10, 20, 30)]
      [0.5, 1.0, 0.5, 0.0]
    """
    _warmup("warmup_cosine_decay_schedule", warmup_steps, decay_steps)

    def schedule(count: Any) -> Any:
        t = as_float(count)
        rising = _rising(t, init_value, peak_value, warmup_steps)
        done = jnp.clip((t - warmup_steps) / (decay_steps - warmup_steps), 0, 1)
        falling = (peak_value - end_value) * (0.5 * (1 + jnp.cos(jnp.pi * done))) ** exponent + end_value
        return jnp.where(t < warmup_steps, rising, falling)

    return schedule


def inverse_sqrt_schedule(peak_value: Number, warmup_steps: Number, init_value: Number = 0.0) -> Schedule:
    """Returns a schedule that rises to ``peak_value`` and then is ``peak_value * sqrt(warmup_steps / step)``.

    A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 5.3.

    Args:
      peak_value: the value at step ``warmup_steps``.
      warmup_steps: steps of the rise in a straight line, 1 or more, at most those of the trial.
      init_value: the value at step 0.

    Raises:
      InputError: ``warmup_steps`` is below 1, or more than the steps of a trial.

    Example:
      >>> float(inverse_sqrt_schedule(1.0, warmup_steps=10)(40))
      0.5
    """
    check_bounds("inverse_sqrt_schedule.warmup_steps", warmup_steps, 1, in_run=True)

    def schedule(count: Any) -> Any:
        t = as_float(count)
        rising = _rising(t, init_value, peak_value, warmup_steps)
        return jnp.where(t < warmup_steps, rising, peak_value * jnp.sqrt(warmup_steps / jnp.maximum(t, 1)))

    return schedule


def warmup_stable_decay_schedule(
    peak_value: Number,
    warmup_steps: Number,
    decay_begin: Number,
    decay_steps: Number,
    init_value: Number = 0.0,
    end_value: Number = 0.0,
) -> Schedule:
    """Returns a schedule that rises to ``peak_value``, stays there, and falls to ``end_value``, in straight lines.

    S. Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies", COLM
    2024.

    Args:
      peak_value: the value between rise and fall.
      warmup_steps: steps of the rise, 0 or more.
      decay_begin: the step at which the fall begins, ``warmup_steps`` or later.
      decay_steps: steps of the fall, 1 or more.
      init_value: the value at step 0.
      end_value: the value from step ``decay_begin + decay_steps`` on.

    Raises:
      InputError: a number of steps is too small, or the rise ends after the fall begins or after the trial.

    Example:
      >>> schedule = warmup_stable_decay_schedule(1.0, warmup_steps=10, decay_begin=80, decay_steps=20)
      >>> [round(float(schedule(step)), 3) for step in (5, 50, 90, 100)]
      [0.5, 1.0, 0.5, 0.0]
    """
    _warmup("warmup_stable_decay_schedule", warmup_steps, decay_begin, equal=True)
    check_bounds("warmup_stable_decay_schedule.decay_steps", decay_steps, 1)

    def schedule(count: Any) -> Any:
        t = as_float(count)
        rising = _rising(t, init_value, peak_value, warmup_steps)
        falling = peak_value + (end_value - peak_value) * jnp.clip((t - decay_begin) / decay_steps, 0, 1)
        return jnp.where(t < warmup_steps, rising, falling)

    return schedule


def _onecycle(init_value: Number, knots: list[tuple[Any, Any]], curve: Callable[[Any], Any]) -> Schedule:
    """Returns a schedule that goes from knot to knot, and stays at the last one.

    Args:
      init_value: the value at step 0.
      knots: (step, value) pairs, in the order of their steps.
      curve: maps [0, 1] to [0, 1]: the way from one value to the next.
    """

    def schedule(count: Any) -> Any:
        t = as_float(count)
        begin, value = jnp.zeros_like(t), jnp.asarray(init_value, t.dtype)
        result = value
        for end, target in knots:
            done = jnp.clip((t - begin) / jnp.maximum(end - begin, 1), 0, 1)
            result = jnp.where(t >= begin, value + (target - value) * curve(done), result)
            begin, value = jnp.asarray(end, t.dtype), target
        return jnp.where(t >= begin, value, result)

    return schedule


def _step_at(share: Number, steps: Number) -> Any:
    """Returns ``share * steps`` rounded down, as Optax does it."""
    traced = isinstance(share, jax.Array) or isinstance(steps, jax.Array)
    return jnp.floor(share * steps) if traced else int(share * steps)


def cosine_onecycle_schedule(
    transition_steps: Number,
    peak_value: Number,
    pct_start: Number = 0.3,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Returns a schedule that rises to ``peak_value`` and falls far below its first value, each as half a cosine.

    L. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018.

    Optax computes the step of the peak, ``pct_start * transition_steps``, in float64. Where one of the two is traced,
    it is computed in float32, so that rounding may move the peak by one step.

    Args:
      transition_steps: steps of rise and fall together, 1 or more.
      peak_value: the highest value.
      pct_start: the share of the steps that the rise takes, in [0, 1].
      div_factor: the first value is ``peak_value / div_factor``.
      final_div_factor: the last value is the first one divided by it.

    Raises:
      InputError: ``transition_steps`` is below 1, or ``pct_start`` lies outside [0, 1].

    Example:
      >>> schedule = cosine_onecycle_schedule(100, 1.0)
      >>> [round(float(schedule(step)), 3) for step in (0, 30, 65)]
      [0.04, 1.0, 0.5]
    """
    check_bounds("cosine_onecycle_schedule.transition_steps", transition_steps, 1)
    check_bounds("cosine_onecycle_schedule.pct_start", pct_start, 0, 1)
    first = peak_value / div_factor
    knots = [(_step_at(pct_start, transition_steps), peak_value), (transition_steps, first / final_div_factor)]
    return _onecycle(first, knots, lambda done: 0.5 - 0.5 * jnp.cos(jnp.pi * done))


def linear_onecycle_schedule(
    transition_steps: Number,
    peak_value: Number,
    pct_start: Number = 0.3,
    pct_final: Number = 0.85,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Returns a schedule of straight lines: up to ``peak_value``, back to the first value, and far below it.

    L. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018.

    As in ``cosine_onecycle_schedule``, rounding may move a knot by one step where its share or the steps are traced.

    Args:
      transition_steps: steps of all three lines together, 1 or more.
      peak_value: the highest value.
      pct_start: the share of the steps after which the peak is reached, in [0, 1].
      pct_final: the share of the steps after which the first value is reached again, in [0, 1].
      div_factor: the first value is ``peak_value / div_factor``.
      final_div_factor: the last value is the first one divided by it.

    Raises:
      InputError: ``transition_steps`` is below 1, or a share lies outside [0, 1].

    Example:
      >>> schedule = linear_onecycle_schedule(100, 1.0)
      >>> [round(float(schedule(step)), 3) for step in (0, 30, 85)]
      [0.04, 1.0, 0.04]
    """
    check_bounds("linear_onecycle_schedule.transition_steps", transition_steps, 1)
    check_bounds("linear_onecycle_schedule.pct_start", pct_start, 0, 1)
    check_bounds("linear_onecycle_schedule.pct_final", pct_final, 0, 1)
    first = peak_value / div_factor
    knots = [
        (_step_at(pct_start, transition_steps), peak_value),
        (_step_at(pct_final, transition_steps), first),
        (transition_steps, first / final_div_factor),
    ]
    return _onecycle(first, knots, lambda done: done)


def _warmup(schedule: str, warmup_steps: Number, end: Number, equal: bool = False) -> None:
    """Raises ``InputError`` unless ``warmup_steps`` is less than ``end``, or with ``equal`` at most that."""
    check_bounds(f"{schedule}.warmup_steps", warmup_steps, 0, in_run=True)
    numbers = not isinstance(warmup_steps, jax.core.Tracer) and not isinstance(end, jax.core.Tracer)
    if numbers and (warmup_steps > end or (warmup_steps == end and not equal)):
        raise InputError(
            f"{schedule}.warmup_steps",
            warmup_steps,
            f"must be less than {end}, where the fall ends or begins",
            f"Write warmup_steps={end // 10}, or train longer.",
        )
