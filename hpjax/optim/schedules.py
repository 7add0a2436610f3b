"""Schedules whose every number can be traced, under the names and arguments of Optax: see ``hpx.optim``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError

Number = Any  # a float, an int, or a traced hyperparameter
Schedule = Callable[[Any], Any]


def _real(count: Any) -> Any:
    return jnp.asarray(count).astype(jnp.result_type(float))


def constant_schedule(value: Number) -> Schedule:
    """``value`` at every step."""
    return lambda count: jnp.full_like(_real(count), value)


def polynomial_schedule(
    init_value: Number, end_value: Number, power: Number, transition_steps: Number, transition_begin: Number = 0
) -> Schedule:
    """From ``init_value`` to ``end_value`` as a polynomial, in ``transition_steps`` steps from ``transition_begin`` on.

    With no steps it is ``init_value`` throughout, as in Optax.
    """
    check_bounds("polynomial_schedule.transition_steps", transition_steps, 0)
    check_bounds("polynomial_schedule.transition_begin", transition_begin, 0)

    def schedule(count: Any) -> Any:
        # Clipped last: a quotient that rounding takes beyond 1 would have no power.
        done = jnp.clip((_real(count) - transition_begin) / jnp.maximum(transition_steps, 1), 0, 1)
        done = jnp.where(jnp.asarray(transition_steps) > 0, done, 0)
        return (init_value - end_value) * (1 - done) ** power + end_value

    return schedule


def linear_schedule(
    init_value: Number, end_value: Number, transition_steps: Number, transition_begin: Number = 0
) -> Schedule:
    """From ``init_value`` to ``end_value`` in a straight line."""
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)


def cosine_decay_schedule(
    init_value: Number, decay_steps: Number, alpha: Number = 0.0, exponent: Number = 1.0
) -> Schedule:
    """Half a cosine from ``init_value`` down to ``alpha * init_value``.

    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """
    check_bounds("cosine_decay_schedule.decay_steps", decay_steps, 1)

    def schedule(count: Any) -> Any:
        done = jnp.minimum(_real(count), decay_steps) / decay_steps
        return init_value * ((1 - alpha) * (0.5 * (1 + jnp.cos(jnp.pi * done))) ** exponent + alpha)

    return schedule


def cosine_restarts_schedule(
    init_value: Number, decay_steps: Number, cycles: Number, alpha: Number = 0.0, growth: Number = 1.0
) -> Schedule:
    """``cycles`` half cosines one after the other, in ``decay_steps`` steps in all; the last value stays.

    Args:
      init_value: where every cycle begins.
      decay_steps: steps of all cycles together.
      cycles: how many, 1 or more; a traced one may differ from lane to lane.
      alpha: where a cycle ends, as a share of ``init_value``.
      growth: how much longer each cycle is than the one before; 1 makes them equal.

    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """
    check_bounds("cosine_restarts_schedule.decay_steps", decay_steps, 1)
    check_bounds("cosine_restarts_schedule.cycles", cycles, 1)
    check_bounds("cosine_restarts_schedule.growth", growth, 1)

    def schedule(count: Any) -> Any:
        done = jnp.minimum(_real(count), decay_steps) / decay_steps
        equal = jnp.abs(jnp.asarray(growth, done.dtype) - 1) < 1e-6
        safe = jnp.where(equal, 2.0, growth)
        # Cycle c begins at (growthᶜ − 1) / (growthⁿ − 1) of the whole, in the limit at c / n.
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
    """``init_value * decay_rate ** (step / transition_steps)``; where asked in stairs, and not beyond ``end_value``."""
    check_bounds("exponential_decay.transition_steps", transition_steps, 1)
    check_bounds("exponential_decay.transition_begin", transition_begin, 0)
    check_bounds("exponential_decay.decay_rate", decay_rate, 0)

    def schedule(count: Any) -> Any:
        later = _real(count) - transition_begin
        power = later / transition_steps
        decayed = init_value * decay_rate ** (jnp.floor(power) if staircase else power)
        # No decay at all at rate 0, as in Optax.
        value = jnp.where((later <= 0) | (jnp.asarray(decay_rate) == 0), init_value, decayed)
        if end_value is None:
            return value
        return jnp.where(decay_rate < 1, jnp.maximum(value, end_value), jnp.minimum(value, end_value))

    return schedule


def piecewise_constant_schedule(
    init_value: Number, boundaries_and_scales: Mapping[int, Number] | Sequence[tuple[Number, Number]]
) -> Schedule:
    """``init_value``, multiplied by each scale from its boundary on.

    Args:
      init_value: the value at step 0.
      boundaries_and_scales: step to scale, or a list of such pairs, since a traced step cannot be a key.
    """
    pairs = list(boundaries_and_scales.items() if isinstance(boundaries_and_scales, Mapping) else boundaries_and_scales)
    for boundary, scale in pairs:
        check_bounds("piecewise_constant_schedule.boundary", boundary, 0)
        check_bounds("piecewise_constant_schedule.scale", scale, 0)

    def schedule(count: Any) -> Any:
        value = jnp.asarray(init_value, jnp.result_type(float))
        for boundary, scale in pairs:
            value = jnp.where(_real(count) >= boundary, value * scale, value)
        return value

    return schedule


def warmup_constant_schedule(init_value: Number, peak_value: Number, warmup_steps: Number) -> Schedule:
    """A straight line to ``peak_value``, which stays."""
    check_bounds("warmup_constant_schedule.warmup_steps", warmup_steps, 0, in_run=True)
    return linear_schedule(init_value, peak_value, warmup_steps)


def _rising(t: Any, init_value: Number, peak_value: Number, warmup_steps: Number) -> Any:
    """The straight line of a warmup, at step ``t`` of it."""
    return init_value + (peak_value - init_value) * t / jnp.maximum(warmup_steps, 1)


def warmup_cosine_decay_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number,
    decay_steps: Number,
    end_value: Number = 0.0,
    exponent: Number = 1.0,
) -> Schedule:
    """A straight line to ``peak_value``, then half a cosine to ``end_value``, at step ``decay_steps``.

    Args: as in Optax; ``decay_steps`` counts the warmup too and must be greater.
    """
    _warmup("warmup_cosine_decay_schedule", warmup_steps, decay_steps)

    def schedule(count: Any) -> Any:
        t = _real(count)
        rising = _rising(t, init_value, peak_value, warmup_steps)
        done = jnp.clip((t - warmup_steps) / (decay_steps - warmup_steps), 0, 1)
        falling = (peak_value - end_value) * (0.5 * (1 + jnp.cos(jnp.pi * done))) ** exponent + end_value
        return jnp.where(t < warmup_steps, rising, falling)

    return schedule


def inverse_sqrt_schedule(peak_value: Number, warmup_steps: Number, init_value: Number = 0.0) -> Schedule:
    """A straight line to ``peak_value``, then ``peak_value * sqrt(warmup_steps / step)``.

    A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 5.3.
    """
    check_bounds("inverse_sqrt_schedule.warmup_steps", warmup_steps, 1, in_run=True)

    def schedule(count: Any) -> Any:
        t = _real(count)
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
    """A straight line to ``peak_value``, which stays until ``decay_begin``, then a line to ``end_value``.

    Args:
      peak_value: the rate between warmup and decay.
      warmup_steps: steps of the rise from ``init_value``.
      decay_begin: the step at which the fall begins, ``warmup_steps`` or later.
      decay_steps: steps of the fall.

    S. Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training
    Strategies", COLM 2024.
    """
    _warmup("warmup_stable_decay_schedule", warmup_steps, decay_begin, equal=True)
    check_bounds("warmup_stable_decay_schedule.decay_steps", decay_steps, 1)

    def schedule(count: Any) -> Any:
        t = _real(count)
        rising = _rising(t, init_value, peak_value, warmup_steps)
        falling = peak_value + (end_value - peak_value) * jnp.clip((t - decay_begin) / decay_steps, 0, 1)
        return jnp.where(t < warmup_steps, rising, falling)

    return schedule


def _onecycle(init_value: Number, knots: list[tuple[Any, Any]], curve: Callable[[Any], Any]) -> Schedule:
    """From knot to knot (step, value), bent as ``curve`` maps [0, 1] to itself; the last value stays."""

    def schedule(count: Any) -> Any:
        t = _real(count)
        begin, value = jnp.zeros_like(t), jnp.asarray(init_value, t.dtype)
        result = value
        for end, target in knots:
            done = jnp.clip((t - begin) / jnp.maximum(end - begin, 1), 0, 1)
            result = jnp.where(t >= begin, value + (target - value) * curve(done), result)
            begin, value = jnp.asarray(end, t.dtype), target
        return jnp.where(t >= begin, value, result)

    return schedule


def _whole(share: Number, steps: Number) -> Any:
    """The step that far into the run, rounded down as Optax does it."""
    traced = isinstance(share, jax.Array) or isinstance(steps, jax.Array)
    return jnp.floor(share * steps) if traced else int(share * steps)


def cosine_onecycle_schedule(
    transition_steps: Number,
    peak_value: Number,
    pct_start: Number = 0.3,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Half a cosine up to ``peak_value`` and one down: from ``peak_value / div_factor`` and far below it.

    L. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates", 2018. Arguments as in Optax. Where ``pct_start * transition_steps`` is traced and a whole number but for
    rounding, the peak may come a step earlier or later than Optax's, which rounds in float64.
    """
    check_bounds("cosine_onecycle_schedule.transition_steps", transition_steps, 1)
    check_bounds("cosine_onecycle_schedule.pct_start", pct_start, 0, 1)
    first = peak_value / div_factor
    knots = [(_whole(pct_start, transition_steps), peak_value), (transition_steps, first / final_div_factor)]
    return _onecycle(first, knots, lambda done: 0.5 - 0.5 * jnp.cos(jnp.pi * done))


def linear_onecycle_schedule(
    transition_steps: Number,
    peak_value: Number,
    pct_start: Number = 0.3,
    pct_final: Number = 0.85,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Straight lines up to ``peak_value``, back, and far below: as ``cosine_onecycle_schedule``, see there."""
    check_bounds("linear_onecycle_schedule.transition_steps", transition_steps, 1)
    check_bounds("linear_onecycle_schedule.pct_start", pct_start, 0, 1)
    check_bounds("linear_onecycle_schedule.pct_final", pct_final, 0, 1)
    first = peak_value / div_factor
    knots = [
        (_whole(pct_start, transition_steps), peak_value),
        (_whole(pct_final, transition_steps), first),
        (transition_steps, first / final_div_factor),
    ]
    return _onecycle(first, knots, lambda done: done)


def _warmup(schedule: str, warmup_steps: Number, end: Number, equal: bool = False) -> None:
    check_bounds(f"{schedule}.warmup_steps", warmup_steps, 0, in_run=True)
    numbers = not isinstance(warmup_steps, jax.core.Tracer) and not isinstance(end, jax.core.Tracer)
    if numbers and (warmup_steps > end or (warmup_steps == end and not equal)):
        raise InputError(
            f"{schedule}.warmup_steps",
            warmup_steps,
            f"must be less than {end}, where the fall ends or begins",
            "Warm up for a share of the run, or train longer.",
        )
