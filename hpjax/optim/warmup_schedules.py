"""Schedules that begin with a rise, under the names and arguments of Optax; see ``hpjax.optim.schedules``."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.optim.interpolated_schedules import Points, piecewise_linear_schedule, spline_schedule
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


def warmup_rex_decay_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number,
    decay_steps: Number,
    end_value: Number = 0.0,
    beta: Number = 0.5,
) -> Schedule:
    """Returns a schedule that rises to ``peak_value`` in a straight line and falls to ``end_value`` as a hyperbola.

    At the share z of the fall the value is (1 − z) / (1 − z + β z) of the way down from the peak. β = 1/2 is REX: J.
    Chen, C. Wolfe and A. Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022, arXiv
    2107.04197. β = 1 is a straight line, and a larger one falls early. Any β is the generalized REX of H. Naganuma et
    al., "What do near-optimal learning rate schedules look like?", 2026, arXiv 2603.10301.

    Args:
      init_value: the value at step 0.
      peak_value: the value at step ``warmup_steps``.
      warmup_steps: steps of the rise, 0 or more.
      decay_steps: steps of rise and fall together, more than ``warmup_steps``.
      end_value: the value from step ``decay_steps`` on.
      beta: β, 0 or more; with 0 the peak stays up to ``decay_steps``.

    Raises:
      InputError: ``warmup_steps`` is negative, not less than ``decay_steps``, or more than the steps of a trial; or
        ``beta`` is negative.

    Example:
      >>> schedule = warmup_rex_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=30)
      >>> [round(float(schedule(step)), 3) for step in (5, 10, 20, 30)]
      [0.5, 1.0, 0.667, 0.0]
    """
    _warmup("warmup_rex_decay_schedule", warmup_steps, decay_steps)
    check_bounds("warmup_rex_decay_schedule.beta", beta, 0)

    def schedule(count: Any) -> Any:
        t = as_float(count)
        rising = _rising(t, init_value, peak_value, warmup_steps)
        done = jnp.clip((t - warmup_steps) / (decay_steps - warmup_steps), 0, 1)
        # With β = 0 the quotient would be 0 / 0 at the end.
        share = (1 - done) / jnp.where(done < 1, 1 - done + beta * done, 1)
        return jnp.where(t < warmup_steps, rising, end_value + (peak_value - end_value) * share)

    return schedule


def two_point_linear_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number,
    decay_steps: Number,
    first: tuple[Number, Number],
    second: tuple[Number, Number],
    end_value: Number = 0.0,
) -> Schedule:
    """Returns a schedule that rises to ``peak_value`` and falls over two points to ``end_value``, in straight lines.

    All four numbers of the points are shares of what is left before them, so that whatever they are, the schedule does
    not rise after its peak. This is the two-point linear family of H. Naganuma et al., "What do near-optimal learning
    rate schedules look like?", 2026, arXiv 2603.10301.

    Args:
      init_value: the value at step 0.
      peak_value: the value at step ``warmup_steps``.
      warmup_steps: steps of the rise, 0 or more.
      decay_steps: steps of rise and fall together, more than ``warmup_steps``.
      first: (x, y), each in [0, 1]: the first point comes after x of the steps of the fall, at y of the height of the
        peak over ``end_value``.
      second: (x, y), each in [0, 1]: the second comes after x of the steps from the first to ``decay_steps``, at y of
        the height of the first.
      end_value: the value from step ``decay_steps`` on.

    Raises:
      InputError: ``warmup_steps`` is negative, not less than ``decay_steps``, or more than the steps of a trial; or a
        share lies outside [0, 1].

    Example:
      >>> schedule = two_point_linear_schedule(0.0, 1.0, 10, 110, first=(0.2, 0.8), second=(0.5, 0.25))
      >>> [round(float(schedule(step)), 3) for step in (5, 10, 20, 30, 70, 110)]
      [0.5, 1.0, 0.9, 0.8, 0.2, 0.0]
    """
    points = _two_points("two_point_linear_schedule", peak_value, warmup_steps, decay_steps, first, second, end_value)
    return _after_rise(init_value, warmup_steps, points, piecewise_linear_schedule)


def two_point_spline_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number,
    decay_steps: Number,
    first: tuple[Number, Number],
    second: tuple[Number, Number],
    end_value: Number = 0.0,
) -> Schedule:
    """Returns a schedule that rises to ``peak_value`` in a straight line and falls over two points as a smooth curve.

    The curve is that of ``spline_schedule``, through the points of ``two_point_linear_schedule``: it never rises. This
    is the two-point spline family of H. Naganuma et al., "What do near-optimal learning rate schedules look like?",
    2026, arXiv 2603.10301.

    Args:
      init_value: the value at step 0.
      peak_value: the value at step ``warmup_steps``.
      warmup_steps: steps of the rise, 0 or more.
      decay_steps: steps of rise and fall together, more than ``warmup_steps``.
      first, second: the points, as for ``two_point_linear_schedule``.
      end_value: the value from step ``decay_steps`` on.

    Raises:
      InputError: ``warmup_steps`` is negative, not less than ``decay_steps``, or more than the steps of a trial; or a
        share lies outside [0, 1].

    Example:
      >>> schedule = two_point_spline_schedule(0.0, 1.0, 10, 110, first=(0.2, 0.8), second=(0.5, 0.25))
      >>> [round(float(schedule(step)), 3) for step in (5, 10, 20, 30, 70, 110)]
      [0.5, 1.0, 0.909, 0.8, 0.2, 0.0]
    """
    points = _two_points("two_point_spline_schedule", peak_value, warmup_steps, decay_steps, first, second, end_value)
    return _after_rise(init_value, warmup_steps, points, spline_schedule)


def _two_points(
    schedule: str,
    peak_value: Number,
    warmup_steps: Number,
    decay_steps: Number,
    first: tuple[Number, Number],
    second: tuple[Number, Number],
    end_value: Number,
) -> Points:
    """Returns the peak, the two points, and the end, each with its step and its value; raises as the schedules do."""
    _warmup(schedule, warmup_steps, decay_steps)
    step, value = warmup_steps, peak_value
    points = [(step, value)]
    for name, (x, y) in (("first", first), ("second", second)):
        check_bounds(f"{schedule}.{name}[0]", x, 0, 1)
        check_bounds(f"{schedule}.{name}[1]", y, 0, 1)
        step, value = step + x * (decay_steps - step), end_value + y * (value - end_value)
        points.append((step, value))
    return [*points, (decay_steps, end_value)]


def _after_rise(
    init_value: Number, warmup_steps: Number, points: Points, falling: Callable[[Points], Schedule]
) -> Schedule:
    """Returns a schedule that rises in a straight line to the first of some points, and then goes through them."""
    fall, peak_value = falling(points), points[0][1]

    def schedule(count: Any) -> Any:
        t = as_float(count)
        return jnp.where(t < warmup_steps, _rising(t, init_value, peak_value, warmup_steps), fall(t))

    return schedule


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
