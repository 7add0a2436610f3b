"""Schedules that go from point to point, whose every number can be traced; see ``hpjax.optim.schedules``."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError
from hpjax.optim.schedules import Number, Schedule, as_float

Points = Sequence[tuple[Number, Number]]  # each a step and the value there

# Steps that lie between two points at least, so that points at one step divide nothing by 0.
CLOSEST = 1e-3


def piecewise_linear_schedule(points: Points) -> Schedule:
    """Returns a schedule that goes through points in straight lines.

    Optax has it as ``piecewise_interpolate_schedule("linear", ...)``, whose values are products of scales.

    Args:
      points: (step, value) pairs, two or more, in the order of their steps. Before the first point its value holds,
        and from the last one on that of the last. Two points at one step make a jump there, to the second.

    Raises:
      InputError: there are fewer than two points, or one comes after a later one.

    Example:
      >>> schedule = piecewise_linear_schedule([(0, 0.0), (10, 1.0), (30, 0.5)])
      >>> [float(schedule(step)) for step in (0, 5, 10, 20, 40)]
      [0.0, 0.5, 1.0, 0.75, 0.5]
    """
    _check_points("piecewise_linear_schedule", points)
    return _through(points, lambda done: done)


def spline_schedule(points: Points) -> Schedule:
    """Returns a schedule that goes through points as a smooth curve, which overshoots none of them.

    The curve is a piecewise cubic Hermite polynomial (PCHIP): between two points it only rises or only falls. F. N.
    Fritsch and J. Butland, "A Method for Constructing Local Monotone Piecewise Cubic Interpolants", SIAM J. Sci. Stat.
    Comput. 5 (1984), as SciPy's ``PchipInterpolator`` has it.

    Args:
      points: (step, value) pairs, as for ``piecewise_linear_schedule``; two make a straight line.

    Raises:
      InputError: there are fewer than two points, or one comes after a later one.

    Example:
      >>> schedule = spline_schedule([(0, 1.0), (10, 0.5), (30, 0.0)])
      >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 20, 40)]
      [1.0, 0.72, 0.5, 0.184, 0.0]
    """
    _check_points("spline_schedule", points)

    def schedule(count: Any) -> Any:
        t = as_float(count)
        steps, values = ([jnp.asarray(each, t.dtype) for each in column] for column in zip(*points, strict=True))
        widths = [jnp.maximum(end - begin, CLOSEST) for begin, end in pairwise(steps)]
        secants = [(high - low) / width for (low, high), width in zip(pairwise(values), widths, strict=True)]
        slopes = _slopes(widths, secants)
        result = values[0]
        for i, (width, secant) in enumerate(zip(widths, secants, strict=True)):
            done = jnp.clip((t - steps[i]) / width, 0, 1)
            bend = 3 * secant - 2 * slopes[i] - slopes[i + 1] + done * (slopes[i] + slopes[i + 1] - 2 * secant)
            curve = values[i] + width * done * (slopes[i] + done * bend)
            # Rounding may take the curve beyond its ends, and a learning rate below 0.
            low, high = jnp.minimum(values[i], values[i + 1]), jnp.maximum(values[i], values[i + 1])
            result = jnp.where(t >= steps[i], jnp.clip(curve, low, high), result)
        return jnp.where(t >= steps[-1], values[-1], result)

    return schedule


def _slopes(widths: list[jax.Array], secants: list[jax.Array]) -> list[jax.Array]:
    """Returns the slope at each point, from the width and the slope of the secant of each interval."""
    if len(secants) == 1:
        return [secants[0], secants[0]]
    inner = [_inner_slope(*w, *s) for w, s in zip(pairwise(widths), pairwise(secants), strict=True)]
    first = _end_slope(widths[0], widths[1], secants[0], secants[1])
    last = _end_slope(widths[-1], widths[-2], secants[-1], secants[-2])
    return [first, *inner, last]


def _inner_slope(before: jax.Array, after: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns the weighted harmonic mean of two secants, or 0 where the curve turns."""
    weight_left, weight_right = 2 * after + before, after + 2 * before
    same = jnp.sign(left) * jnp.sign(right) > 0
    left, right = jnp.where(same, left, 1), jnp.where(same, right, 1)
    return jnp.where(same, (weight_left + weight_right) / (weight_left / left + weight_right / right), 0)


def _end_slope(own: jax.Array, next_: jax.Array, secant: jax.Array, next_secant: jax.Array) -> jax.Array:
    """Returns the slope at an end by the formula of three points, bounded so that the curve stays monotone."""
    slope = ((2 * own + next_) * secant - own * next_secant) / (own + next_)
    turns = jnp.sign(secant) != jnp.sign(next_secant)
    slope = jnp.where(turns & (jnp.abs(slope) > 3 * jnp.abs(secant)), 3 * secant, slope)
    return jnp.where(jnp.sign(slope) == jnp.sign(secant), slope, 0)


def _check_points(schedule: str, points: Points) -> None:
    """Raises ``InputError`` unless there are two points or more, in the order of their steps."""
    if len(points) < 2:
        remedy = f"Write {schedule}([(0, 1.0), (100, 0.0)])."
        raise InputError(f"{schedule}.points", points, "must be two or more pairs (step, value)", remedy)
    for number, (before, after) in enumerate(pairwise(points), 1):
        check_bounds(f"{schedule}.steps_from_point_{number}_to_{number + 1}", after[0] - before[0], 0)


def _through(points: Points, curve: Callable[[Any], Any]) -> Schedule:
    """Returns a schedule that goes from point to point, and stays at the last one.

    Args:
      points: (step, value) pairs, in the order of their steps.
      curve: maps [0, 1] to [0, 1]: the way from one value to the next.
    """

    def schedule(count: Any) -> Any:
        t = as_float(count)
        (begin, value), *others = points
        result = jnp.asarray(value, t.dtype)
        for end, target in others:
            done = jnp.clip((t - begin) / jnp.maximum(end - begin, CLOSEST), 0, 1)
            result = jnp.where(t >= begin, value + (target - value) * curve(done), result)
            begin, value = end, target
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
    points = [
        (0, first),
        (_step_at(pct_start, transition_steps), peak_value),
        (transition_steps, first / final_div_factor),
    ]
    return _through(points, lambda done: 0.5 - 0.5 * jnp.cos(jnp.pi * done))


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

    As in ``cosine_onecycle_schedule``, rounding may move a point by one step where its share or the steps are traced.

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
    points = [
        (0, first),
        (_step_at(pct_start, transition_steps), peak_value),
        (_step_at(pct_final, transition_steps), first),
        (transition_steps, first / final_div_factor),
    ]
    return _through(points, lambda done: done)
