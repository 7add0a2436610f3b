"""Schedules that begin with a rise, under the names and arguments of Optax; see ``hpjax.optim.schedules``."""

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


def rising_line(t: Any, init_value: Number, peak_value: Number, warmup_steps: Number) -> Any:
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
    check_warmup("warmup_cosine_decay_schedule", warmup_steps, decay_steps)

    def schedule(count: Any) -> Any:
        t = as_float(count)
        rising = rising_line(t, init_value, peak_value, warmup_steps)
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
        rising = rising_line(t, init_value, peak_value, warmup_steps)
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
    check_warmup("warmup_stable_decay_schedule", warmup_steps, decay_begin, equal=True)
    check_bounds("warmup_stable_decay_schedule.decay_steps", decay_steps, 1)

    def schedule(count: Any) -> Any:
        t = as_float(count)
        rising = rising_line(t, init_value, peak_value, warmup_steps)
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
    check_warmup("warmup_rex_decay_schedule", warmup_steps, decay_steps)
    check_bounds("warmup_rex_decay_schedule.beta", beta, 0)

    def schedule(count: Any) -> Any:
        t = as_float(count)
        rising = rising_line(t, init_value, peak_value, warmup_steps)
        done = jnp.clip((t - warmup_steps) / (decay_steps - warmup_steps), 0, 1)
        # With β = 0 the quotient would be 0 / 0 at the end.
        share = (1 - done) / jnp.where(done < 1, 1 - done + beta * done, 1)
        return jnp.where(t < warmup_steps, rising, end_value + (peak_value - end_value) * share)

    return schedule


def warmup_sqrt_decay_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Number,
    decay_steps: Number,
    end_value: Number = 0.0,
    exponent: Number = 1.0,
) -> Schedule:
    """Returns a schedule that rises to ``peak_value`` in a straight line and falls to ``end_value`` as a square root.

    At the share z of the fall the value is √(1 − z²) to the power α of the way down from the peak, α being the
    ``exponent``: for α = 1 a quarter of an ellipse, which is steepest at the end, for α = 2 a parabola. This is the
    sqrt family of H. Naganuma et al., "What do near-optimal learning rate schedules look like?", 2026, arXiv
    2603.10301, as its code in init2winit has it. ``inverse_sqrt_schedule`` is another one, which has no last step.

    Args:
      init_value: the value at step 0.
      peak_value: the value at step ``warmup_steps``.
      warmup_steps: steps of the rise, 0 or more.
      decay_steps: steps of rise and fall together, more than ``warmup_steps``.
      end_value: the value from step ``decay_steps`` on.
      exponent: α, 0 or more; with 0 the peak stays.

    Raises:
      InputError: ``warmup_steps`` is negative, not less than ``decay_steps``, or more than the steps of a trial; or
        ``exponent`` is negative.

    Example:
      >>> schedule = warmup_sqrt_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=110)
      >>> [round(float(schedule(step)), 3) for step in (5, 10, 70, 90, 110)]
      [0.5, 1.0, 0.8, 0.6, 0.0]
    """
    check_warmup("warmup_sqrt_decay_schedule", warmup_steps, decay_steps)
    check_bounds("warmup_sqrt_decay_schedule.exponent", exponent, 0)

    def schedule(count: Any) -> Any:
        t = as_float(count)
        rising = rising_line(t, init_value, peak_value, warmup_steps)
        done = jnp.clip((t - warmup_steps) / (decay_steps - warmup_steps), 0, 1)
        # (1 − z)(1 + z) rather than 1 − z², which rounding spoils near the end.
        falling = end_value + (peak_value - end_value) * jnp.sqrt((1 - done) * (1 + done)) ** exponent
        return jnp.where(t < warmup_steps, rising, falling)

    return schedule


def check_warmup(schedule: str, warmup_steps: Number, end: Number, equal: bool = False) -> None:
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
