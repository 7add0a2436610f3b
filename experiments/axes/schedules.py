"""Learning-rate schedules by selection: which one, and every number of it, in one program.

hpjax run experiments/axes/schedules.py --dir runs/schedules
"""

import optax
from flax import linen as nn

import hpjax as hpx
from hpjax import optim

STEPS = 300


def constant(t, h):
    return optim.constant_schedule(1.0)(t)


def linear(t, h):
    return optim.linear_schedule(1.0, h.final, STEPS)(t)


def polynomial(t, h):
    return optim.polynomial_schedule(1.0, h.final, h.power, STEPS)(t)


def cosine(t, h):
    return optim.cosine_decay_schedule(1.0, STEPS, h.final)(t)


def exponential(t, h):
    return optim.exponential_decay(1.0, STEPS, h.final)(t)


def piecewise(t, h):
    return optim.piecewise_constant_schedule(1.0, [(h.drop_at, h.drop_by)])(t)


def warmup_cosine(t, h):
    return optim.warmup_cosine_decay_schedule(0.0, 1.0, h.warmup, STEPS, h.final)(t)


def one_cycle(t, h):
    return optim.cosine_onecycle_schedule(STEPS, 1.0, h.rise)(t)


def inverse_sqrt(t, h):
    return optim.inverse_sqrt_schedule(1.0, h.warmup)(t)


def warmup_stable_decay(t, h):
    return optim.warmup_stable_decay_schedule(1.0, h.warmup, h.decay_from, STEPS - h.decay_from, end_value=h.final)(t)


def restarts(t, h):
    return optim.cosine_restarts_schedule(1.0, STEPS, h.cycles)(t)


SCHEDULES = (
    *(constant, linear, polynomial, cosine, exponential, piecewise),
    *(warmup_cosine, one_cycle, inverse_sqrt, warmup_stable_decay, restarts),
)

space = hpx.Space(
    schedule=hpx.Choice(*SCHEDULES, select=True),
    learning_rate=hpx.LogUniform(1e-2, 2.0),
    final=hpx.LogUniform(1e-3, 0.5),
    power=hpx.Uniform(0.5, 3),
    warmup=hpx.Int(1, 20),
    decay_from=hpx.Int(100, 290),
    drop_at=hpx.Int(100, 250),
    drop_by=hpx.LogUniform(0.01, 0.5),
    rise=hpx.Uniform(0.1, 0.5),
    cycles=hpx.Int(1, 5),
)

program = hpx.supervised(
    model=nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)]),
    optimizer=lambda h: optax.sgd(lambda t: h.learning_rate * h.schedule(t, h), 0.9),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(),
    batch_size=64,
    steps=STEPS,
    eval_every=100,
)

sweep = hpx.Sweep(program, space, trials=64)
