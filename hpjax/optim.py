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

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hpjax.checks import within
from hpjax.errors import InputError, did_you_mean

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
    within("polynomial_schedule.transition_steps", transition_steps, 0)
    within("polynomial_schedule.transition_begin", transition_begin, 0)

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
    within("cosine_decay_schedule.decay_steps", decay_steps, 1)

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
    within("cosine_restarts_schedule.decay_steps", decay_steps, 1)
    within("cosine_restarts_schedule.cycles", cycles, 1)
    within("cosine_restarts_schedule.growth", growth, 1)

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
    within("exponential_decay.transition_steps", transition_steps, 1)
    within("exponential_decay.transition_begin", transition_begin, 0)
    within("exponential_decay.decay_rate", decay_rate, 0)

    def schedule(count: Any) -> Any:
        later = _real(count) - transition_begin
        power = later / transition_steps
        value = jnp.where(later <= 0, init_value, init_value * decay_rate ** (jnp.floor(power) if staircase else power))
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
        within("piecewise_constant_schedule.boundary", boundary, 0)
        within("piecewise_constant_schedule.scale", scale, 0)

    def schedule(count: Any) -> Any:
        value = jnp.asarray(init_value, jnp.result_type(float))
        for boundary, scale in pairs:
            value = jnp.where(_real(count) >= boundary, value * scale, value)
        return value

    return schedule


def warmup_constant_schedule(init_value: Number, peak_value: Number, warmup_steps: Number) -> Schedule:
    """A straight line to ``peak_value``, which stays."""
    return linear_schedule(init_value, peak_value, warmup_steps)


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
        rising = init_value + (peak_value - init_value) * t / jnp.maximum(warmup_steps, 1)
        done = jnp.clip((t - warmup_steps) / (decay_steps - warmup_steps), 0, 1)
        falling = (peak_value - end_value) * (0.5 * (1 + jnp.cos(jnp.pi * done))) ** exponent + end_value
        return jnp.where(t < warmup_steps, rising, falling)

    return schedule


def inverse_sqrt_schedule(peak_value: Number, warmup_steps: Number, init_value: Number = 0.0) -> Schedule:
    """A straight line to ``peak_value``, then ``peak_value * sqrt(warmup_steps / step)``.

    A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 5.3.
    """
    within("inverse_sqrt_schedule.warmup_steps", warmup_steps, 1)

    def schedule(count: Any) -> Any:
        t = _real(count)
        rising = init_value + (peak_value - init_value) * t / warmup_steps
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
    _warmup("warmup_stable_decay_schedule", warmup_steps, decay_begin)
    within("warmup_stable_decay_schedule.decay_steps", decay_steps, 1)

    def schedule(count: Any) -> Any:
        t = _real(count)
        rising = init_value + (peak_value - init_value) * t / jnp.maximum(warmup_steps, 1)
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
    Rates", 2018. Arguments as in Optax.
    """
    within("cosine_onecycle_schedule.transition_steps", transition_steps, 1)
    within("cosine_onecycle_schedule.pct_start", pct_start, 0, 1)
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
    within("linear_onecycle_schedule.transition_steps", transition_steps, 1)
    within("linear_onecycle_schedule.pct_start", pct_start, 0, 1)
    within("linear_onecycle_schedule.pct_final", pct_final, 0, 1)
    first = peak_value / div_factor
    knots = [
        (_whole(pct_start, transition_steps), peak_value),
        (_whole(pct_final, transition_steps), first),
        (transition_steps, first / final_div_factor),
    ]
    return _onecycle(first, knots, lambda done: done)


def _warmup(schedule: str, warmup_steps: Number, end: Number) -> None:
    within(f"{schedule}.warmup_steps", warmup_steps, 0)
    numbers = not isinstance(warmup_steps, jax.core.Tracer) and not isinstance(end, jax.core.Tracer)
    if numbers and warmup_steps >= end:
        raise InputError(
            f"{schedule}.warmup_steps",
            warmup_steps,
            f"must be less than {end}, where the fall ends or begins",
            "Warm up for a share of the run, or train longer.",
        )


def sgd(
    learning_rate: Number | Schedule, momentum: Number = 0.0, nesterov: Any = False
) -> optax.GradientTransformation:
    """``optax.sgd`` where ``nesterov`` too may be a hyperparameter: a bool, traced or not.

    Raises:
      InputError: ``momentum`` outside [0, 1].

    I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
    """
    within("sgd.momentum", momentum, 0, 1)

    def init(params: Any) -> optax.TraceState:
        return optax.TraceState(trace=jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, optax.TraceState]:
        trace = jax.tree.map(lambda g, v: g + momentum * v, gradients, state.trace)
        ahead = jax.tree.map(lambda g, v: jnp.where(nesterov, g + momentum * v, v), gradients, trace)
        return ahead, optax.TraceState(trace=trace)

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))


class PlateauState(NamedTuple):
    """What ``reduce_on_plateau`` carries: scalars.

    Attributes:
      scale: what updates are multiplied by.
      best: the best value so far.
      bad: evaluations since, that were no better.
      cooling: evaluations of cooldown that are left.
      evaluations: how many were seen.
    """

    scale: jax.Array
    best: jax.Array
    bad: jax.Array
    cooling: jax.Array
    evaluations: jax.Array


def looks_at_metrics(opt_state: Any) -> bool:
    """Whether a ``reduce_on_plateau`` is among the transformations of an optimizer."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda leaf: isinstance(leaf, PlateauState))
    return any(isinstance(leaf, PlateauState) for leaf in leaves)


def reduce_on_plateau(
    factor: Number = 0.1,
    patience: Number = 10,
    cooldown: Number = 0,
    rtol: Number = 1e-4,
    atol: Number = 0.0,
    min_scale: Number = 0.0,
    metric: str = "valid/loss",
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by ``factor`` once more, whenever a metric stalls for ``patience`` evaluations.

    As ``optax.contrib.reduce_on_plateau`` and PyTorch's ReduceLROnPlateau, but it looks at evaluations, and every
    number can be traced. Chain it behind the optimizer.

    Args:
      factor: in [0, 1].
      patience: evaluations without improvement before a reduction, 1 or more.
      cooldown: evaluations after a reduction that do not count.
      rtol, atol: an improvement is a value below ``(1 - rtol) * best - atol``.
      min_scale: the scale never falls below it.
      metric: of an evaluation, lower being better.

    Raises:
      InputError: a number outside its range, or no such metric.
    """
    within("reduce_on_plateau.factor", factor, 0, 1)
    within("reduce_on_plateau.patience", patience, 1)
    within("reduce_on_plateau.cooldown", cooldown, 0)

    def init(params: Any) -> PlateauState:
        zero = jnp.zeros((), jnp.int32)
        real = jnp.result_type(float)
        return PlateauState(jnp.ones((), real), jnp.full((), jnp.inf, real), zero, zero, zero)

    def look(state: PlateauState, value: Any) -> PlateauState:
        better = value < (1 - rtol) * state.best - atol
        bad = jnp.where(better, 0, state.bad + 1)
        cooling = state.cooling > 0
        reduce = ~cooling & (bad >= patience)
        return state._replace(
            scale=jnp.where(reduce, jnp.maximum(state.scale * factor, min_scale), state.scale).astype(
                state.scale.dtype
            ),
            best=jnp.where(better, value, state.best).astype(state.best.dtype),
            bad=jnp.where(cooling | reduce, 0, bad).astype(jnp.int32),
            cooling=jnp.where(cooling, state.cooling - 1, jnp.where(reduce, cooldown, 0)).astype(jnp.int32),
        )

    def update(
        updates: Any, state: Any, params: Any = None, *, metrics: Mapping[str, Any], evaluations: Any, **_: Any
    ) -> tuple[Any, PlateauState]:
        if metric not in metrics:
            allowed = "must be a metric of the program"
            raise InputError("reduce_on_plateau.metric", metric, allowed, did_you_mean(metric, metrics))
        seen = look(state, metrics[metric])
        news = evaluations > state.evaluations
        state = jax.tree.map(lambda new, old: jnp.where(news, new, old), seen, state)
        return jax.tree.map(lambda u: u * state.scale.astype(u.dtype), updates), state._replace(
            evaluations=jnp.asarray(evaluations, jnp.int32)
        )

    return optax.GradientTransformationExtraArgs(init, update)


def add_noise(eta: Number, gamma: Number = 0.55) -> optax.GradientTransformationExtraArgs:
    """Adds normal noise of variance ``eta / (1 + step) ** gamma`` to gradients; the noise follows the replicate.

    Args:
      eta: variance at the first step, 0 or more.
      gamma: how fast it falls.

    A. Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015.
    """
    within("add_noise.eta", eta, 0)

    def init(params: Any) -> Any:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, *, key: jax.Array, **_: Any) -> tuple[Any, Any]:
        deviation = jnp.sqrt(eta / (1.0 + state.count) ** gamma)
        leaves, tree = jax.tree.flatten(updates)
        keys = jax.random.split(key, len(leaves))
        noisy = [
            u + deviation.astype(u.dtype) * jax.random.normal(k, u.shape, u.dtype)
            for u, k in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(tree, noisy), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def half_life(examples: Number, batch_size: Number) -> Any:
    """The decay β of a moving average that forgets half within so many examples: ½ ** (batch_size / examples).

    With b2 given so, Adam's memory does not depend on the batch size.

    M. Marek et al., "Small Batch Size Training for Language Models: When Vanilla SGD Works, and Why Gradient
    Accumulation Is Wasteful", NeurIPS 2025.
    """
    within("half_life.examples", examples, 1)
    # Traced whole numbers are int32, whose quotient would be a float32 even among float64.
    half = _real(examples) if isinstance(examples, jax.Array) else examples
    return 0.5 ** (batch_size / half)
