"""Every hyperparameter of the field is an axis: trials that differ in it, in one sweep, against plain loops.

A row names the values, what ``supervised`` gets, what the plain loop gets, and how many programs are compiled.
All is in float64, where a difference is a mistake and not rounding.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from scipy.interpolate import PchipInterpolator
from sklearn.model_selection import KFold

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.engine.tracing import numbers
from tests.support.counting import ran
from tests.support.marks import few_of
from tests.support.networks import BATCH, MLP, REAL, Dense, Masked, Small, difference, make_data, points
from tests.support.plain import SEED, FromNnx, cross_entropy, learn_alone, search_alone, train_alone
from tests.support.programs import example

STEPS, EVERY = 12, 4


class Row(NamedTuple):
    """One hyperparameter, or a few that belong together.

    Attributes:
      points: of each trial its values.
      ours: what ``supervised`` gets, or under "program" a program of one's own.
      alone: of a point what the plain loop gets.
      programs: how many are compiled.
      data: of which kind.
      select: names of the choices by selection.
      small: of a masked lane's parameters and a point those of the small network, which starts from these.
      lanes: of the data what each lane of a trial trains on, and with which seed.
      sweep: more arguments of ``Sweep``.
      train: the plain loop.
      metric: what it returns of each evaluation.
      tolerance: the largest relative difference.
    """

    points: list[dict[str, Any]]
    ours: dict[str, Any]
    alone: Callable[..., dict[str, Any]]
    programs: int = 1
    compiled: int = 0  # where groups share programs
    data: str = "blobs"
    select: tuple[str, ...] = ()
    small: Callable[..., Any] | None = None
    lanes: Callable[[hpx.Data], list[tuple[hpx.Data, int]]] = lambda data: [(data, 0)]
    sweep: dict[str, Any] = {}  # noqa: RUF012  never changed
    train: Callable[..., Any] = lambda data, **alone: train_alone(data, **(common() | alone))
    metric: str = "valid/loss"
    tolerance: float = 1e-9


class Dropping(nn.Module):
    rate: Any
    layer: Any = nn.Dropout

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.tanh(Dense(8)(x))
        return Dense(3)(self.layer(self.rate, deterministic=not train)(x))


class Attending(nn.Module):
    rate: Any
    layer: Any = nn.MultiHeadAttention

    @nn.compact
    def __call__(self, x, train=False):
        x = self.layer(num_heads=2, dropout_rate=self.rate, deterministic=not train, param_dtype=REAL)(x)
        return Dense(3)(x.mean(-2))


class Precise(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x, train=False):
        return Dense(3)(nn.tanh(Dense(6, dtype=self.dtype)(x)))


class Conv(nn.Module):
    kernel: int = 3
    stride: int = 1
    padding: str = "SAME"
    pool: str = "max"

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (self.kernel,) * 2, self.stride, self.padding, param_dtype=REAL)(x))
        x = (nn.max_pool if self.pool == "max" else nn.avg_pool)(x, (2, 2))
        return Dense(3)(x.reshape(len(x), -1))


class Normed(nn.Module):
    momentum: Any = 0.9
    epsilon: Any = 1e-5
    layer_epsilon: Any = 1e-6

    @nn.compact
    def __call__(self, x, train=False):
        x = Dense(6, use_bias=False)(x)
        x = nn.BatchNorm(not train, momentum=self.momentum, epsilon=self.epsilon, param_dtype=REAL)(x)
        return Dense(3)(nn.LayerNorm(epsilon=self.layer_epsilon, param_dtype=REAL)(nn.tanh(x)))


class MaskedNormed(nn.Module):
    units: Any

    @nn.compact
    def __call__(self, x, train=False):
        dense = functools.partial(hpx.nn.Dense, param_dtype=REAL)
        x = hpx.nn.LayerNorm(self.units, param_dtype=REAL)(dense(8, self.units)(x))
        return dense(3, inputs=self.units)(nn.sigmoid(x))


class SmallNormed(nn.Module):
    units: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.LayerNorm(param_dtype=REAL)(Dense(self.units)(x))
        return Dense(3)(nn.sigmoid(x))


class NnxMLP(nnx.Module):
    def __init__(self, first, middle, last):
        self.first, self.middle, self.last = first, middle, last

    def __call__(self, x):
        return self.last(nnx.sigmoid(self.middle(self.first(x))))


class Autoencoder(nn.Module):
    latent: Any

    @nn.compact
    def __call__(self, x, train=False):
        return Dense(x.shape[-1])(nn.tanh(Dense(self.latent)(x)))


class MaskedAutoencoder(nn.Module):
    latent: Any

    @nn.compact
    def __call__(self, x, train=False):
        code = nn.tanh(hpx.nn.Dense(4, self.latent, param_dtype=REAL)(x))
        return hpx.nn.Dense(x.shape[-1], inputs=self.latent, param_dtype=REAL)(code)


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return Dense(3)(nn.RNN(nn.SimpleCell(6, param_dtype=REAL))(x)[:, -1])


def optimizers(values, ours, alone=None, **more):
    """A row in which only the optimizer differs."""
    return Row(values, {"optimizer": ours}, lambda p: {"optimizer": (alone or ours)(hpx.Hparams(p))}, **more)


def models(values, ours, alone, **more):
    """A row in which only the model differs."""
    return Row(values, {"model": ours}, lambda p: {"model": alone(hpx.Hparams(p))}, **more)


def losses(values, ours, alone=None, **more):
    """A row in which only the loss differs."""
    return Row(values, {"loss": ours}, lambda p: {"loss": (alone or ours)(hpx.Hparams(p))}, **more)


def schedule(name, **values):
    """A row of schedules, each number of which differs from trial to trial."""

    def ours(h):
        return optax.sgd(getattr(hpx.optim, name)(**{n: h[n] for n in h}))

    return optimizers(points(**values), ours, lambda h: in_float64(getattr(optax, name)(**{n: h[n] for n in h})))


def in_float64(schedule):
    """Optax counts in int32, which a division turns into float32."""
    return optax.sgd(lambda count: schedule(jnp.asarray(count, REAL)))


def rex_alone(t, h):
    """Equation by equation: a line up, then (1 − z) / (1 − (1 − β) z)."""
    z = (t - h["warmup"]) / (STEPS - h["warmup"])
    return h["rate"] * jnp.where(t < h["warmup"], t / h["warmup"], (1 - z) / (1 - (1 - h["beta"]) * z))


def sqrt_alone(t, h):
    """The ellipse, and a power of it."""
    z = (t - h["warmup"]) / (STEPS - h["warmup"])
    return h["rate"] * jnp.where(t < h["warmup"], t / h["warmup"], (1 - z**2) ** (h["exponent"] / 2))


def two_points(h):
    """A spline through two points, each of which is a share of what is left before it."""
    first, second = (h.x1, h.y1), (h.x2, h.y2)
    return optax.sgd(hpx.optim.two_point_spline_schedule(0.0, h.rate, h.warmup, STEPS, first, second))


def two_points_alone(h):
    """SciPy's spline, at every step."""
    first = h["warmup"] + h["x1"] * (STEPS - h["warmup"])
    steps = [h["warmup"], first, first + h["x2"] * (STEPS - first), STEPS]
    values = np.array([1, h["y1"], h["y1"] * h["y2"], 0]) * h["rate"]
    t = np.arange(STEPS)
    curve = np.where(t < h["warmup"], h["rate"] * t / h["warmup"], PchipInterpolator(steps, values)(t))
    return optax.sgd(lambda count: jnp.asarray(curve)[count])


def over_a_peak(h):
    """A smooth curve over a peak and two points, in any order."""
    points = (h.x1, h.y1), (h.x2, h.y2)
    return optax.sgd(hpx.optim.smooth_nonmonotonic_schedule(h.y_start, h.rate, STEPS, h.x_peak, *points))


def over_a_peak_alone(h):
    """SciPy's spline through the points in the order of their steps."""
    second = h["x1"] + h["x2"] * (1 - h["x1"])
    points = [(0, h["y_start"]), (h["x1"], h["rate"] * h["y1"]), (second, h["rate"] * h["y2"])]
    steps, values = np.transpose(sorted([*points, (h["x_peak"], h["rate"]), (1, 0)]))
    curve = PchipInterpolator(steps * STEPS, values)(np.arange(STEPS))
    return optax.sgd(lambda count: jnp.asarray(curve)[count])


def labels_of(params):
    return jax.tree.map_with_path(lambda path, _: "first" if path[0].key == "Dense_0" else "rest", params)


def by_label(h):
    return optax.multi_transform({"first": optax.sgd(h.first), "rest": optax.sgd(h.rest)}, labels_of)


def kernels(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def noisy(key, batch, h):
    return batch._replace(x=batch.x + h.strength * jax.random.normal(key, batch.x.shape, REAL))


def mixup(key, x, y, alpha):
    ratio = jax.random.beta(key, alpha, alpha, (len(x), 1), REAL)
    y = jax.nn.one_hot(y, 3, dtype=REAL)
    return ratio * x + (1 - ratio) * x[::-1], ratio * y + (1 - ratio) * y[::-1]


def soft_cross_entropy(logits, y):
    soft = y if y.ndim == logits.ndim else jax.nn.one_hot(y, 3, dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, soft)


def focal(gamma):
    """T.-Y. Lin et al., "Focal Loss for Dense Object Detection", equation 4, for several classes."""

    def loss(logits, y):
        p = jnp.take_along_axis(jax.nn.softmax(logits), y[:, None], -1)[:, 0]
        return -((1 - p) ** gamma) * jnp.log(p)

    return loss


def smooth(alpha):
    return lambda logits, y: optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(y, 3), alpha))


def weighted(weight):
    return lambda logits, y: jnp.where(y == 0, weight, 1.0) * cross_entropy(logits, y)


def huber(delta):
    return lambda out, y: optax.huber_loss(out[:, 0], y.astype(REAL), delta=delta)


def sum_of(function):
    return lambda params: sum(function(p).sum() for p in jax.tree.leaves(params))


@jax.custom_jvp
def size(x):
    """The absolute value, its derivative by its closed form: the sign, and 0 at 0."""
    return jnp.abs(x)


@size.defjvp
def _(primals, tangents):
    return size(*primals), jnp.sign(*primals) * tangents[0]


def both_penalties(params):
    return 0.01 * hpx.losses.l1(params) + 0.01 * hpx.losses.l2(params)


def both_alone(params):
    return 0.01 * sum_of(size)(params) + 0.01 * sum_of(jnp.square)(params)


def warmed(h):
    """A schedule that ends with the trial's own number of steps."""
    return optax.sgd(hpx.optim.warmup_cosine_decay_schedule(0.0, h.rate, h.warmup, h.steps))


def warmed_alone(p):
    return in_float64(optax.warmup_cosine_decay_schedule(0.0, p["rate"], p["warmup"], p["steps"]))


def plateau(h):
    return optax.chain(optax.sgd(0.5), hpx.optim.reduce_on_plateau(h.factor, h.patience, h.cooldown, rtol=0.05))


def plateau_alone(factor, patience, cooldown):
    """Optax's own, told of every validation loss, whose scale goes into the learning rate."""
    rule = optax.contrib.reduce_on_plateau(factor, patience, rtol=0.05, cooldown=cooldown)
    state = rule.init({"w": jnp.zeros((), REAL)})
    update = jax.jit(lambda state, loss: rule.update({"w": jnp.zeros((), REAL)}, state, value=loss)[1])

    def react(losses, params, opt_state):
        nonlocal state
        state = update(state, losses[-1])
        return opt_state._replace(hyperparams={"learning_rate": 0.5 * state.scale}), False

    return {"optimizer": optax.inject_hyperparams(optax.sgd)(learning_rate=0.5), "after_evaluation": react}


def noisy_alone(eta, gamma):
    """Gradients with the noise of each step: that of the step's key, one part of it a leaf."""

    def update(grads, count, params=None):
        key = jax.random.fold_in(step_key(purpose_key(lane_key(SEED, 0), "step"), count), 3)
        leaves, tree = jax.tree.flatten(grads)
        noise = [jax.random.normal(k, g.shape, REAL) for k, g in zip(jax.random.split(key, len(leaves)), leaves)]
        scale = jnp.sqrt(eta / (1 + jnp.asarray(count, REAL)) ** gamma)
        return jax.tree.unflatten(tree, [-0.1 * (g + scale * n) for g, n in zip(leaves, noise)]), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def stopping_alone(patience, min_delta):
    """Keras's rule, by hand."""
    kept = {"value": np.inf, "bad": 0, "params": None}

    def react(losses, params, opt_state):
        if losses[-1] < kept["value"] - min_delta:
            kept.update(value=losses[-1], bad=0, params=params)
        else:
            kept["bad"] += 1
        return opt_state, kept["bad"] >= patience

    return {"after_evaluation": react, "final": lambda params: kept["params"]}


def stopping(**more):
    """Early stopping at a learning rate at which validation losses rise and fall."""
    common = {"optimizer": optax.sgd(2.0), "steps": 24, "eval_every": 2, **more}
    return Row(
        points(patience=[1, 2, 30], min_delta=[0.0, 0.05, 0.0]),
        {"early_stopping": lambda h: hpx.EarlyStopping(h.patience, h.min_delta), **common},
        lambda p: {**common, **stopping_alone(**p)},
        sweep={"objective": hpx.minimize("valid/best_loss")},
    )


def dense_part(layer, inputs, units):
    """The first inputs and units of a dense layer's parameters."""
    return {"kernel": layer["kernel"][:inputs, :units], "bias": layer["bias"][:units]}


def small_mlp(params, point):
    """The parameters of ``Small``, out of those of ``Masked``."""
    units, depth = point["units"], point["depth"]
    first = {"Dense_0": dense_part(params["Dense_0"], None, units)}
    blocks = {f"Dense_{i}": dense_part(params[f"Dense_{i}"], units, units) for i in range(1, depth + 1)}
    return first | blocks | {f"Dense_{depth + 1}": dense_part(params["Dense_4"], units, None)}


def small_autoencoder(params, point):
    latent = point["latent"]
    return {
        "Dense_0": dense_part(params["Dense_1"], latent, None),
        "Dense_1": dense_part(params["Dense_0"], None, latent),
    }


def small_normed(first, norm, last):
    """The same of a norm between two dense layers of these names."""

    def small(params, point):
        units = point["units"]
        return {
            first: dense_part(params[first], None, units),
            norm: jax.tree.map(lambda a: a[:units], params[norm]),
            last: dense_part(params[last], units, None),
        }

    return small


def nnx_dropping(rngs, dropout, rate):
    linear = functools.partial(nnx.Linear, param_dtype=REAL, rngs=rngs)
    return NnxMLP(linear(5, 8), dropout(rate, rngs=rngs), linear(8, 3))


def nnx_masked(rngs, units):
    dense = functools.partial(hpx.nn.Dense, param_dtype=REAL, rngs=rngs)
    norm = hpx.nn.LayerNorm(units, num_features=8, param_dtype=REAL, rngs=rngs)
    return NnxMLP(dense(8, units, in_features=5), norm, dense(3, inputs=units, in_features=8))


def nnx_small(rngs, units):
    linear = functools.partial(nnx.Linear, param_dtype=REAL, rngs=rngs)
    return NnxMLP(linear(5, units), nnx.LayerNorm(units, param_dtype=REAL, rngs=rngs), linear(units, 3))


def folded(data):
    """Three folds, cut by scikit-learn."""
    pool = hpx.data.pool(data)
    for parts in KFold(3).split(pool.x):
        yield hpx.Data(*(type(pool)(pool.x[part], pool.y[part]) for part in parts)), 0


CLIPPED = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.05))
Q_LEARNING, BEAM_SEARCH = example("axes/q_learning"), example("axes/beam_search")
OPTIMIZERS = {
    "rmsprop": lambda h: optax.rmsprop(h.rate),
    "adagrad": lambda h: optax.adagrad(h.rate),
    "lion": lambda h: optax.lion(h.rate),
    "lamb": lambda h: optax.lamb(h.rate),
}
ACTIVATIONS = (nn.relu, nn.tanh)
SCHEMES = ("glorot_normal", "he_uniform", "orthogonal", "zeros")

ROWS = {
    "learning rate": optimizers(points(rate=[0.01, 0.1, 0.5]), lambda h: optax.sgd(h.rate)),
    "learning rates by label": optimizers(points(first=[0.01, 0.1, 0.3], rest=[0.1, 0.1, 0.01]), by_label),
    "schedule: constant": schedule("constant_schedule", value=[0.1, 0.3]),
    "schedule: linear": schedule(
        "linear_schedule", init_value=[0.3, 0.1], end_value=[0.01, 0.2], transition_steps=[5, 10], transition_begin=[0, 3]
    ),
    "schedule: polynomial": schedule(
        "polynomial_schedule", init_value=[0.3, 0.1], end_value=[0.01, 0.02], power=[1.0, 2.5], transition_steps=[5, 12]
    ),
    "schedule: cosine": schedule(
        "cosine_decay_schedule", init_value=[0.3, 0.1], decay_steps=[6, 12], alpha=[0.0, 0.1], exponent=[1.0, 2.0]
    ),
    "schedule: exponential": schedule(
        "exponential_decay", init_value=[0.3, 0.1], transition_steps=[4, 2], decay_rate=[0.5, 0.9], transition_begin=[0, 5]
    ),
    "schedule: warmup": schedule(
        "warmup_constant_schedule", init_value=[0.0, 0.1], peak_value=[0.1, 0.3], warmup_steps=[5, 9]
    ),
    "schedule: warmup-cosine": schedule(
        "warmup_cosine_decay_schedule", init_value=[0.0, 0.1], peak_value=[0.1, 0.3], warmup_steps=[3, 9], decay_steps=[9, 12]
    ),
    "schedule: one-cycle": schedule(
        "cosine_onecycle_schedule", transition_steps=[12, 10], peak_value=[0.1, 0.3], pct_start=[0.3, 0.5], div_factor=[25.0, 9.0]
    ),
    "schedule: linear one-cycle": schedule(
        "linear_onecycle_schedule", transition_steps=[12, 10], peak_value=[0.1, 0.3], pct_start=[0.3, 0.5]
    ),
    "schedule: piecewise": optimizers(
        points(rate=[0.3, 0.1], at=[3, 7], by=[0.1, 3.0]),
        lambda h: optax.sgd(hpx.optim.piecewise_constant_schedule(h.rate, [(h.at, h.by)])),
        lambda h: in_float64(optax.piecewise_constant_schedule(h.rate, {h.at: h.by})),
    ),
    "schedule: inverse square root": optimizers(
        points(rate=[0.3, 0.1], warmup=[3, 7]),
        lambda h: optax.sgd(hpx.optim.inverse_sqrt_schedule(h.rate, h.warmup)),
        lambda h: in_float64(lambda t: h.rate * jnp.minimum(t / h.warmup, jnp.sqrt(h.warmup / jnp.maximum(t, 1)))),
    ),
    "schedule: warmup-stable-decay": optimizers(
        points(rate=[0.3, 0.1], warmup=[3, 5], begin=[6, 8], decay=[4, 3]),
        lambda h: optax.sgd(hpx.optim.warmup_stable_decay_schedule(h.rate, h.warmup, h.begin, h.decay)),
        lambda h: in_float64(
            optax.join_schedules(
                [optax.linear_schedule(0.0, h.rate, h.warmup), lambda t: h.rate, optax.linear_schedule(h.rate, 0.0, h.decay)],
                [h.warmup, h.begin],
            )
        ),
    ),
    "schedule: rex": optimizers(
        points(rate=[0.3, 0.1], warmup=[3, 5], beta=[0.5, 2.0]),
        lambda h: optax.sgd(hpx.optim.warmup_rex_decay_schedule(0.0, h.rate, h.warmup, STEPS, beta=h.beta)),
        lambda h: in_float64(lambda t: rex_alone(t, h)),
    ),
    "schedule: straight lines through points": optimizers(
        points(rate=[0.3, 0.1], at=[3, 7], by=[0.5, 2.0]),
        lambda h: optax.sgd(hpx.optim.piecewise_linear_schedule([(0, h.rate), (h.at, h.rate * h.by), (12, 0.0)])),
        lambda h: in_float64(optax.piecewise_interpolate_schedule("linear", h.rate, {h.at: h.by, 12: 0.0})),
    ),
    "schedule: two points and a spline": optimizers(
        points(rate=[0.3, 0.1], warmup=[2, 3], x1=[0.2, 0.5], y1=[0.7, 0.9], x2=[0.4, 0.1], y2=[0.3, 0.5]),
        two_points,
        two_points_alone,
    ),
    "schedule: a smooth curve over a peak": optimizers(
        points(
            rate=[0.3, 0.1], x_peak=[0.1, 0.5], x1=[0.2, 0.7], y1=[0.7, 0.9], x2=[0.4, 0.2], y2=[0.3, 0.5],
            y_start=[0.0, 0.02],
        ),
        over_a_peak,
        over_a_peak_alone,
    ),
    "schedule: a square root": optimizers(
        points(rate=[0.3, 0.1], warmup=[3, 5], exponent=[0.5, 2.0]),
        lambda h: optax.sgd(
            hpx.optim.warmup_sqrt_decay_schedule(0.0, h.rate, h.warmup, STEPS, exponent=h.exponent)
        ),
        lambda h: in_float64(lambda t: sqrt_alone(t, h)),
    ),
    "schedule: restarts": optimizers(
        points(rate=[0.3, 0.1], cycles=[1, 3]),
        lambda h: optax.sgd(hpx.optim.cosine_restarts_schedule(h.rate, 12, h.cycles)),
        lambda h: in_float64(
            optax.sgdr_schedule(
                [{"init_value": h.rate, "peak_value": h.rate, "warmup_steps": 0, "decay_steps": 12 // h.cycles}] * h.cycles
            )
        ),
    ),
    "momentum and Nesterov": optimizers(
        points(momentum=[0.0, 0.9, 0.9], nesterov=[True, False, True]),
        lambda h: hpx.optim.sgd(0.1, h.momentum, h.nesterov),
        lambda h: optax.sgd(0.1, h.momentum, h.nesterov),
    ),
    "b1, b2, eps": optimizers(
        points(b1=[0.9, 0.5], b2=[0.999, 0.9], eps=[1e-8, 1e-3]), lambda h: optax.adam(0.01, h.b1, h.b2, h.eps)
    ),
    "b2 as a half-life": optimizers(
        points(life=[100, 1000]),
        lambda h: optax.adam(0.01, b2=hpx.optim.half_life(h.life, BATCH)),
        lambda h: optax.adam(0.01, b2=0.5 ** (BATCH / h.life)),
    ),
    "optimizer": optimizers(
        points(kind=list(OPTIMIZERS), rate=0.01), lambda h: OPTIMIZERS[h.kind](h), programs=len(OPTIMIZERS)
    ),
    "weight decay and its mask": optimizers(
        points(decay=[0.0, 0.1, 1.0]), lambda h: optax.adamw(0.01, weight_decay=h.decay, mask=kernels)
    ),
    "L1 and L2 penalties": Row(
        points(l1=[0.0, 0.01, 0.1], l2=[0.1, 0.01, 0.0]),
        {"penalty": lambda params, h: h.l1 * hpx.losses.l1(params) + h.l2 * hpx.losses.l2(params)},
        lambda p: {"penalty": lambda w: p["l1"] * sum_of(size)(w) + p["l2"] * sum_of(jnp.square)(w)},
    ),
    "clipping by value": optimizers(
        points(limit=[0.01, 0.1, float("inf")]), lambda h: optax.chain(optax.clip(h.limit), optax.sgd(0.1))
    ),
    "clipping by global norm": optimizers(
        points(limit=[0.01, 0.1, float("inf")]), lambda h: optax.chain(optax.clip_by_global_norm(h.limit), optax.sgd(0.1))
    ),
    "dropout rate": models(
        points(rate=[0.0, 0.3, 1.0]), lambda h: Dropping(h.rate, hpx.nn.Dropout), lambda h: Dropping(h.rate)
    ),
    "attention dropout": models(
        points(rate=[0.0, 0.3, 0.6]),
        lambda h: Attending(h.rate, hpx.nn.MultiHeadAttention),
        lambda h: Attending(h.rate),
        data="sequences",
    ),
    "label smoothing": losses(points(alpha=[0.0, 0.1, 0.5]), lambda h: hpx.losses.cross_entropy(smoothing=h.alpha), lambda h: smooth(h.alpha)),
    "class weights": losses(points(weight=[0.0, 1.0, 5.0]), lambda h: hpx.losses.cross_entropy(weights=(h.weight, 1.0, 1.0)), lambda h: weighted(h.weight)),
    "focal gamma": losses(points(gamma=[0.0, 1.0, 2.0]), lambda h: hpx.losses.cross_entropy(focal=h.gamma), lambda h: focal(h.gamma)),
    "Huber delta": losses(points(delta=[0.1, 1.0]), lambda h: huber(h.delta)),
    "loss function": losses(points(loss=[cross_entropy, focal(2.0)]), lambda h: h.loss, programs=2),
    "loss function by selection": losses(
        points(loss=[cross_entropy, focal(2.0)]), lambda h: lambda o, y: h.loss(o, y), select=("loss",)
    ),
    "activation": models(points(act=list(ACTIVATIONS)), lambda h: MLP(act=h.act), lambda h: MLP(act=h.act), programs=2),
    "activation by selection": models(
        points(act=list(ACTIVATIONS)), lambda h: MLP(act=h.act), lambda h: MLP(act=h.act), select=("act",)
    ),
    "initialization scheme and scale": models(
        points(scheme=[getattr(hpx.nn, s) for s in SCHEMES], scale=[1.0, 0.5, 2.0, 1.0]),
        lambda h: MLP(kernel_init=hpx.nn.scaled(h.scheme, h.scale)),
        lambda h: MLP(kernel_init=lambda k, s, d: h.scale * initializer(h.scheme)(k, s, d)),
        select=("scheme",),
    ),
    "units and layers": models(
        points(units=[4, 8], depth=[1, 2]), lambda h: MLP(h.units, depth=h.depth), lambda h: MLP(h.units, depth=h.depth), programs=2
    ),
    "kernel, stride, padding, pooling": models(
        points(kernel=[3, 2], stride=[1, 2], padding=["SAME", "VALID"], pool=["max", "avg"]),
        lambda h: Conv(h.kernel, h.stride, h.padding, h.pool),
        lambda h: Conv(h.kernel, h.stride, h.padding, h.pool),
        programs=2,
        data="images",
    ),
    "normalization": models(
        points(momentum=[0.5, 0.99], epsilon=[1e-5, 0.1], layer=[1e-6, 0.3]),
        lambda h: Normed(h.momentum, h.epsilon, h.layer),
        lambda h: Normed(h.momentum, h.epsilon, h.layer),
    ),
    "batch size": Row(
        points(batch=[8, 16]), {"batch_size": lambda h: h.batch}, lambda p: {"batch_size": p["batch"]}, programs=2
    ),
    "steps": Row(
        points(steps=[6, 9, 12], warmup=[2, 3, 3], rate=0.3),
        {"steps": lambda h: h.steps, "optimizer": warmed},
        lambda p: {"steps": p["steps"], "optimizer": warmed_alone(p)},
    ),
    "input noise": Row(
        points(strength=[0.0, 0.5, 2.0]),
        {"augment": noisy},
        lambda p: {"augment": lambda k, x, y: (x + p["strength"] * jax.random.normal(k, x.shape, REAL), y)},
    ),
    "mixup": Row(
        points(alpha=[0.2, 1.0]),
        {"augment": lambda k, b, h: type(b)(*mixup(k, b.x, b.y, h.alpha)), "loss": lambda out, y: soft_cross_entropy(out, y)},
        lambda p: {"augment": lambda k, x, y: mixup(k, x, y, p["alpha"]), "loss": soft_cross_entropy},
    ),
    "weight averaging": Row(
        points(decay=[0.0, 0.5, 0.9]), {"average": lambda h: h.decay}, lambda p: {"average": p["decay"]}
    ),
    "latent size": Row(
        points(latent=[1, 3, 4]),
        {"model": lambda h: Autoencoder(h.latent), "loss": hpx.metrics.squared_error},
        lambda p: {"model": Autoencoder(p["latent"]), "loss": lambda o, y: ((o - y) ** 2).mean(-1)},
        programs=3,
        compiled=1,
        data="reconstruction",
    ),
    "microbatches": Row(
        points(batch=[8, 16, 20]),
        {"batch_size": lambda h: h.batch, "microbatch": 8, "optimizer": optax.adam(0.01), "eval_every": None,
         "penalty": lambda params, h: 0.01 * hpx.losses.l2(params)},
        lambda p: {"batch_size": p["batch"], "optimizer": optax.adam(0.01), "eval_every": STEPS,
                   "penalty": lambda w: 0.01 * sum_of(jnp.square)(w)},
    ),
    "microbatches for as many epochs": Row(
        points(batch=[8, 16, 24]),
        {"batch_size": lambda h: h.batch, "microbatch": 8, "steps": lambda h: 144 // h.batch, "eval_every": None,
         "optimizer": lambda h: optax.sgd(hpx.optim.cosine_decay_schedule(0.3, 144 // h.batch))},
        lambda p: {"batch_size": p["batch"], "steps": 144 // p["batch"], "eval_every": 144 // p["batch"],
                   "optimizer": in_float64(optax.cosine_decay_schedule(0.3, 144 // p["batch"]))},
    ),
    "plateau": Row(
        points(factor=[0.1, 0.5, 0.5, 0.3], patience=[1, 1, 2, 3], cooldown=[0, 2, 1, 0]),
        {"optimizer": plateau, "eval_every": 1, "steps": 24},
        lambda p: {"eval_every": 1, "steps": 24, **plateau_alone(**p)},
    ),
    "gradient noise": Row(
        points(eta=[0.0, 0.01, 1.0], gamma=[0.0, 0.55, 1.0]),
        {"optimizer": lambda h: optax.chain(hpx.optim.add_noise(h.eta, h.gamma), optax.sgd(0.1))},
        lambda p: {"optimizer": noisy_alone(**p)},
    ),
    "units and layers by masks": Row(  # units that give f(0) ≠ 0, Adam, and a norm over all gradients
        points(units=[1, 3, 8], depth=[0, 2, 3]),
        {"model": lambda h: Masked(h.units, h.depth), "optimizer": CLIPPED,
         # Of what the small network has; the weights of skipped layers stay as they were drawn.
         "penalty": lambda params, h: both_penalties([params["Dense_0"], params["Dense_4"]])},
        lambda p: {"model": Small(**p), "optimizer": CLIPPED,
                   "penalty": lambda w: both_alone([w["Dense_0"], w[f"Dense_{p['depth'] + 1}"]])},
        small=small_mlp,
    ),
    "layer norm over masked units": models(
        points(units=[3, 5, 8]), lambda h: MaskedNormed(h.units), lambda h: SmallNormed(h.units), small=small_normed("Dense_0", "LayerNorm_0", "Dense_1")
    ),
    "masked units in NNX": Row(
        points(units=[3, 5, 8]),
        {"model": lambda h, rngs: nnx_masked(rngs, h.units)},
        lambda p: {"model": FromNnx(lambda rngs: nnx_small(rngs, p["units"]))},
        small=small_normed("first", "middle", "last"),
    ),
    "latent size by a mask": Row(
        points(latent=[1, 3, 4]),
        {"model": lambda h: MaskedAutoencoder(h.latent), "loss": hpx.metrics.squared_error},
        lambda p: {"model": Autoencoder(p["latent"]), "loss": lambda o, y: ((o - y) ** 2).mean(-1)},
        data="reconstruction",
        small=small_autoencoder,
    ),
    "dropout rate in NNX": Row(
        points(rate=[0.0, 0.3, 1.0]),
        {"model": lambda h, rngs: nnx_dropping(rngs, hpx.nn.Dropout, h.rate)},
        lambda p: {"model": FromNnx(lambda rngs: nnx_dropping(rngs, nnx.Dropout, p["rate"]))},
    ),
    "early stopping": stopping(),
    "early stopping of averaged weights": stopping(average=0.5),
    "random seed": optimizers(
        points(rate=[0.1, 0.3]), lambda h: optax.sgd(h.rate), sweep={"replicates": 2}, lanes=lambda data: [(data, i) for i in range(2)]
    ),
    "cross-validation fold": optimizers(
        points(rate=[0.1, 0.3]), lambda h: optax.sgd(h.rate), sweep={"folds": 3}, lanes=lambda data: list(folded(data))
    ),
    "precision": models(
        points(dtype=["float32", "bfloat16"]), lambda h: Precise(h.dtype), lambda h: Precise(h.dtype), programs=2,
        tolerance=1e-7,  # the rounding of float32
    ),
    "exploration in Q-learning": Row(
        points(learning_rate=0.5, epsilon=[0.0, 0.5, 1.0], decay=[0.9, 0.999, 0.99]),
        {"program": dataclasses.replace(Q_LEARNING.program, steps=200, eval_every=100)},
        lambda p: {**p, "example": Q_LEARNING},
        sweep={"objective": hpx.maximize("valid/return")},
        train=learn_alone,
        metric="valid/return",
    ),
    "beam width": Row(
        points(learning_rate=50.0, width=[1, 2, 8]),
        {"program": BEAM_SEARCH.program},
        lambda p: {**p, "example": BEAM_SEARCH},
        train=search_alone,
        metric="valid/found",
    ),
    "clipping in a recurrent network": Row(
        points(limit=[0.001, 0.1, float("inf")]),
        {"model": Recurrent(), "optimizer": lambda h: optax.chain(optax.clip_by_global_norm(h.limit), optax.sgd(0.1))},
        lambda p: {"model": Recurrent(), "optimizer": optax.chain(optax.clip_by_global_norm(p["limit"]), optax.sgd(0.1))},
        data="sequences",
    ),
}  # fmt: skip


# Those of `make test`: one of each kind.
FEW = {
    "learning rate",
    "schedule: warmup-cosine",
    "momentum and Nesterov",
    "weight decay and its mask",
    "dropout rate",
    "dropout rate in NNX",
    "activation by selection",
    "early stopping",
    "latent size by a mask",
    "cross-validation fold",
    "exploration in Q-learning",
}


def initializer(function):
    return getattr(nn.initializers, function.__name__.replace("zeros", "zeros_init"))()


def space_of(row):
    """A choice among the values of each name, of which all are tried."""
    names = row.points[0]
    return hpx.Space(**{n: hpx.Choice(*dict.fromkeys(p[n] for p in row.points), select=n in row.select) for n in names})


def common():
    """What rows do not change."""
    budget = {"batch_size": BATCH, "steps": STEPS, "eval_every": EVERY}
    return {"model": MLP(), "optimizer": optax.sgd(0.1, 0.9), "loss": cross_entropy, **budget}


def sweep_of(row, data):
    program = row.ours.get("program") or hpx.supervised(**(common() | {"data": data} | row.ours))
    return hpx.Sweep(program, space_of(row), sampler=hpx.Manual(row.points), seed=SEED, width=2, devices=1, **row.sweep)


def initial(init, point, replicate):
    """The state that a lane begins with."""
    h = hpx.Hparams({name: numbers(type(value), [value])[0] for name, value in point.items()}, point)
    return init(purpose_key(lane_key(SEED, replicate), "init"), h)


@pytest.mark.parametrize("name", few_of(ROWS, FEW))
def test_trials_equal_plain_loops(name):
    row = ROWS[name]
    with jax.enable_x64(True):
        data = make_data(row.data)
        sweep = sweep_of(row, data)
        result = ran(sweep, row.compiled or row.programs)
        assert len(sweep.plan().groups) == row.programs
        assert (result.statuses == "complete").all()
        seen, init = set(), jax.jit(sweep.program.init)
        small = row.small or (lambda params, point: params)
        for trial, point in enumerate(row.points):
            for lane, (own, replicate) in enumerate(row.lanes(data)):
                alone = {"replicate": replicate, **row.alone(point)}
                if row.small is not None:
                    alone["params"] = small(initial(init, point, replicate).params, point)
                params, values = row.train(own, **alone)
                restored = result[trial].restore(lane)
                if isinstance(restored, dict) and "params" in restored:
                    restored = restored["params"]  # of a training state, read from the store without its class
                found = small(restored, point)
                assert difference(found, params) < row.tolerance, (point, lane)
                curve = result.curves(row.metric)[trial, lane]
                np.testing.assert_allclose(curve[~np.isnan(curve)], values, rtol=row.tolerance)
                seen.add((values[-1], *(np.sum(leaf) for leaf in jax.tree.leaves(params))))
        distinct = len(row.points) * len(row.lanes(data))
        assert len(seen) == distinct, "a hyperparameter that changes nothing proves nothing"
