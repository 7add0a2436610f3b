"""Gradient transformations whose every number can be traced, under the names of Optax: see ``hpx.optim``."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError, did_you_mean
from hpjax.core.objective import Objective, minimize
from hpjax.optim.schedules import (
    Number,
    Schedule,
)


def sgd(
    learning_rate: Number | Schedule, momentum: Number = 0.0, nesterov: Any = False
) -> optax.GradientTransformation:
    """Returns ``optax.sgd`` with a ``nesterov`` that can be traced, too.

    I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.

    Args:
      learning_rate: the step size, float (), or a schedule.
      momentum: decay of the accumulated gradient, in [0, 1]; float32 () where it is traced.
      nesterov: whether to use Nesterov's momentum: a bool, or bool () where it is traced.

    Raises:
      InputError: ``momentum`` lies outside [0, 1].

    Example:
      >>> optimizer = sgd(0.1)
      >>> update, state = optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(0.0)))
      >>> round(float(update), 3)
      -0.2
    """
    check_bounds("sgd.momentum", momentum, 0, 1)

    def init(params: Any) -> optax.TraceState:
        return optax.TraceState(trace=jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, optax.TraceState]:
        trace = jax.tree.map(lambda g, v: g + momentum * v, gradients, state.trace)
        ahead = jax.tree.map(lambda g, v: jnp.where(nesterov, g + momentum * v, v), gradients, trace)
        return ahead, optax.TraceState(trace=trace)

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))


class PlateauState(NamedTuple):
    """The state of ``reduce_on_plateau``.

    Attributes:
      scale: the factor of the updates, float ().
      best: the best value so far, float (), lower being better.
      bad: evaluations since then, none of which was better, int32 ().
      cooling: evaluations of the cooldown that remain, int32 ().
      evaluations: number of evaluations so far, int32 ().
    """

    scale: jax.Array
    best: jax.Array
    bad: jax.Array
    cooling: jax.Array
    evaluations: jax.Array


def looks_at_metrics(opt_state: Any) -> bool:
    """Returns whether the state of an optimizer contains that of a ``reduce_on_plateau``."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda leaf: isinstance(leaf, PlateauState))
    return any(isinstance(leaf, PlateauState) for leaf in leaves)


def reduce_on_plateau(
    factor: Number = 0.1,
    patience: Number = 10,
    cooldown: Number = 0,
    rtol: Number = 1e-4,
    atol: Number = 0.0,
    min_scale: Number = 0.0,
    objective: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Returns a transformation that reduces updates whenever a validation metric stalls.

    It is like ``optax.contrib.reduce_on_plateau`` and PyTorch's ``ReduceLROnPlateau``, but it counts evaluations, and
    every number can be traced. Chain it after the optimizer.

    Args:
      factor: the factor by which updates are multiplied at each reduction, in [0, 1].
      patience: evaluations without improvement before a reduction, 1 or more.
      cooldown: evaluations after a reduction that are not counted, 0 or more.
      rtol, atol: an improvement is a value that is better than the best by more than ``rtol * abs(best) + atol``;
        ``rtol`` lies in [0, 1].
      min_scale: the product of all reductions does not fall below it, in [0, 1].
      objective: the metric and its direction; ``hpx.minimize("valid/loss")`` by default.

    Raises:
      InputError: a number outside its range, or a metric that the program does not have.

    Example:
      >>> optimizer = optax.chain(optax.adam(1e-3), reduce_on_plateau(factor=0.5, patience=3))
    """
    objective = minimize("valid/loss") if objective is None else objective
    metric, sign = objective.metric, 1 if objective.direction == "minimize" else -1
    check_bounds("reduce_on_plateau.min_scale", min_scale, 0, 1)
    check_bounds("reduce_on_plateau.rtol", rtol, 0, 1)
    check_bounds("reduce_on_plateau.factor", factor, 0, 1)
    check_bounds("reduce_on_plateau.patience", patience, 1)
    check_bounds("reduce_on_plateau.cooldown", cooldown, 0)

    def init(params: Any) -> PlateauState:
        zero = jnp.zeros((), jnp.int32)
        real = jnp.result_type(float)
        return PlateauState(jnp.ones((), real), jnp.full((), jnp.inf, real), zero, zero, zero)

    def look(state: PlateauState, value: Any) -> PlateauState:
        # Relative to the absolute value of the best, since that may be negative.
        better = value < state.best - rtol * jnp.where(jnp.isinf(state.best), 0, jnp.abs(state.best)) - atol
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
            raise InputError("reduce_on_plateau.objective", metric, allowed, did_you_mean(metric, metrics))
        seen = look(state, sign * metrics[metric])
        # Steps between two evaluations get the metrics of the last one, which is counted once.
        is_new = evaluations > state.evaluations
        state = jax.tree.map(lambda new, old: jnp.where(is_new, new, old), seen, state)
        return jax.tree.map(lambda u: u * state.scale.astype(u.dtype), updates), state._replace(
            evaluations=jnp.asarray(evaluations, jnp.int32)
        )

    return optax.GradientTransformationExtraArgs(init, update)


def add_noise(eta: Number, gamma: Number = 0.55) -> optax.GradientTransformationExtraArgs:
    """Returns a transformation that adds normal noise of variance ``eta / (1 + step) ** gamma`` to gradients.

    The noise depends on the replicate and the step, and with ``randomness="independent"`` on the trial.

    A. Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015.

    Args:
      eta: variance at the first step, 0 or more.
      gamma: the exponent of its decay.

    Raises:
      InputError: ``eta`` is negative.

    Example:
      >>> optimizer = optax.chain(add_noise(eta=0.01), optax.sgd(0.1))
    """
    check_bounds("add_noise.eta", eta, 0)

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


def scale_by_batch_size(reference: Number, power: Number = 0.5) -> optax.GradientTransformationExtraArgs:
    """Returns a transformation that multiplies updates by ``(batch_size / reference) ** power``.

    The batch size is that of the step, also where it changes while a lane trains. The square root is the rule for Adam
    and its kin (S. Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", 2022, arXiv
    2205.10287), 1 that for SGD (P. Goyal et al., "Accurate, Large Minibatch SGD", 2017, arXiv 1706.02677). Chain it
    after the optimizer.

    Args:
      reference: the batch size at which updates are as they are, 1 or more.
      power: the exponent.

    Raises:
      InputError: ``reference`` is below 1, or batches come from a stream, of whose size nothing is known.

    Example:
      >>> optimizer = optax.chain(optax.adam(1e-3), scale_by_batch_size(32))
      >>> update, _ = optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(0.0)), batch_size=128)
      >>> round(float(update), 6)
      -0.002
    """
    check_bounds("scale_by_batch_size.reference", reference, 1)

    def update(updates: Any, state: Any, params: Any = None, *, batch_size: Any = None, **_: Any) -> tuple[Any, Any]:
        if batch_size is None:
            allowed = "needs the batch size, which a stream has not, and lookahead and sam do not hand on"
            remedy = "Write it outside of that optimizer, or give data of hpx.data.from_arrays."
            raise InputError("supervised.optimizer", "scale_by_batch_size", allowed, remedy)
        scale = (jnp.asarray(batch_size, jnp.result_type(float)) / reference) ** power
        return jax.tree.map(lambda u: u * scale.astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def half_life(examples: Number, batch_size: Number) -> Any:
    """Returns the decay of a moving average that forgets half within so many examples: ½ ** (batch_size / examples).

    If ``b2`` is given in this way, Adam averages over equally many examples at every batch size.

    M. Marek et al., "Small Batch Size Training for Language Models: When Vanilla SGD Works, and Why Gradient
    Accumulation Is Wasteful", NeurIPS 2025.

    Args:
      examples: the half-life in examples, 1 or more.
      batch_size: examples of a step.

    Returns:
      The decay β in (0, 1): a float, or float32 () where an argument is traced.

    Raises:
      InputError: ``examples`` is below 1.

    Example:
      >>> half_life(examples=64, batch_size=64)
      0.5
    """
    check_bounds("half_life.examples", examples, 1)
    # Traced whole numbers are int32, and a quotient of int32s would be float32 even with jax_enable_x64.
    half = jnp.asarray(examples, jnp.result_type(float)) if isinstance(examples, jax.Array) else examples
    return 0.5 ** (batch_size / half)
