"""Schedules over two points of which each is a share of what is left; see ``hpjax.optim.schedules``."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.optim.interpolated_schedules import Points, piecewise_linear_schedule, spline_schedule
from hpjax.optim.schedules import Number, Schedule, as_float
from hpjax.optim.warmup_schedules import check_warmup, rising_line


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

    It falls at three paces, which change at the points from one step to the next. All four numbers of the points are
    shares of what is left before them, so that whatever they are, the schedule does not rise after its peak. This is
    the two-point linear family of H. Naganuma et al., "What do near-optimal learning rate schedules look like?", 2026,
    arXiv 2603.10301.

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
      >>> [round(float(schedule(step)), 3) for step in (5, 10, 20, 30, 50, 70, 90, 110)]
      [0.5, 1.0, 0.9, 0.8, 0.5, 0.2, 0.1, 0.0]
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

    It has the values of ``two_point_linear_schedule`` at the points, and others between them: the curve, that of
    ``spline_schedule``, bends from one pace to the next instead of changing it at once, and it is level at the end of a
    line that is. It never rises. This is the two-point spline family of H. Naganuma et al., "What do near-optimal
    learning rate schedules look like?", 2026, arXiv 2603.10301.

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
      >>> [round(float(schedule(step)), 3) for step in (5, 10, 20, 30, 50, 70, 90, 110)]
      [0.5, 1.0, 0.909, 0.8, 0.479, 0.2, 0.062, 0.0]
    """
    points = _two_points("two_point_spline_schedule", peak_value, warmup_steps, decay_steps, first, second, end_value)
    return _after_rise(init_value, warmup_steps, points, spline_schedule)


def smooth_nonmonotonic_schedule(
    init_value: Number,
    peak_value: Number,
    transition_steps: Number,
    peak_at: Number,
    first: tuple[Number, Number],
    second: tuple[Number, Number],
    end_value: Number = 0.0,
) -> Schedule:
    """Returns a schedule that goes through a peak and two points anywhere as a smooth curve, and may rise again.

    Unlike ``two_point_spline_schedule`` it has no warmup: the peak may come before, between or after the points, and
    what leads up to it is a part of the curve, that of ``spline_schedule``. This is the smooth non-monotonic family of
    H. Naganuma et al., "What do near-optimal learning rate schedules look like?", 2026, arXiv 2603.10301.

    Args:
      init_value: the value at step 0.
      peak_value: the value at the peak.
      transition_steps: steps of the whole curve, 1 or more.
      peak_at: the share of the steps after which the peak comes, in [0, 1].
      first: (x, y), each in [0, 1]: the first point comes after x of the steps, at y of ``peak_value``.
      second: (x, y), each in [0, 1]: the second comes after x of the steps that are left after the first, at y of
        ``peak_value``. Of several at one step the last holds, in the order start, first, second, peak, end.
      end_value: the value from step ``transition_steps`` on.

    Raises:
      InputError: ``transition_steps`` is below 1, or a share lies outside [0, 1].

    Example:
      >>> schedule = smooth_nonmonotonic_schedule(0.1, 1.0, 100, peak_at=0.5, first=(0.2, 0.4), second=(0.75, 0.9))
      >>> [round(float(schedule(step)), 3) for step in (0, 20, 50, 80, 100)]
      [0.1, 0.4, 1.0, 0.9, 0.0]
    """
    field = "smooth_nonmonotonic_schedule"
    check_bounds(f"{field}.transition_steps", transition_steps, 1)
    check_bounds(f"{field}.peak_at", peak_at, 0, 1)
    points, step = [], 0
    for name, (x, y) in (("first", first), ("second", second)):
        check_bounds(f"{field}.{name}[0]", x, 0, 1)
        check_bounds(f"{field}.{name}[1]", y, 0, 1)
        step = step + x * (transition_steps - step)
        points.append((step, y * peak_value))
    between = _inserted((peak_at * transition_steps, peak_value), *points)
    return spline_schedule([(0, init_value), *between, (transition_steps, end_value)])


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
    check_warmup(schedule, warmup_steps, decay_steps)
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
        return jnp.where(t < warmup_steps, rising_line(t, init_value, peak_value, warmup_steps), fall(t))

    return schedule


def _inserted(point: tuple[Number, Number], first: tuple[Number, Number], second: tuple[Number, Number]) -> Points:
    """Returns three points in the order of their steps, of which ``second`` is not before ``first``."""
    before_first, before_second = jnp.less(point[0], first[0]), jnp.less(point[0], second[0])

    def sorted_column(own: Number, one: Number, two: Number) -> tuple[Number, Number, Number]:
        middle = jnp.where(before_first, one, jnp.where(before_second, own, two))
        return jnp.where(before_first, own, one), middle, jnp.where(before_second, two, own)

    return list(zip(*map(sorted_column, point, first, second), strict=True))
