"""Several families of schedules in one program: the alternatives of a space, each with numbers of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.interpolate import PchipInterpolator

import hpjax as hpx
from tests.support.counting import ran
from tests.support.networks import MLP, difference, make_data
from tests.support.plain import SEED, cross_entropy, train_alone

STEPS = 12


def cosine(t, h):
    return hpx.optim.warmup_cosine_decay_schedule(0.0, 1.0, h.warmup, STEPS)(t)


def rex(t, h):
    return hpx.optim.warmup_rex_decay_schedule(0.0, 1.0, h.warmup, STEPS, beta=h.beta)(t)


def stable_decay(t, h):
    return hpx.optim.warmup_stable_decay_schedule(1.0, h.warmup, STEPS - h.decay, h.decay)(t)


def lines(t, h):
    return hpx.optim.piecewise_linear_schedule([(0, 0.0), (h.warmup, 1.0), (8, h.level), (STEPS, 0.0)])(t)


def spline(t, h):
    return hpx.optim.spline_schedule([(0, 0.0), (h.warmup, 1.0), (8, h.level), (STEPS, 0.0)])(t)


def alternative(schedule, **own):
    """A schedule with its own numbers; those of the others do not matter, and are constants."""
    others = {"beta": 0.0, "decay": 1, "level": 0.0}
    return hpx.Space(schedule=hpx.Choice(schedule, select=True), **others | own)


SPACE = hpx.Space(rate=hpx.LogUniform(0.01, 1.0), warmup=hpx.Int(1, 5)) & (
    alternative(cosine)
    | alternative(rex, beta=hpx.LogUniform(0.1, 10.0))
    | alternative(stable_decay, decay=hpx.Int(1, 6))
    | alternative(lines, level=hpx.Uniform(0, 1))
    | alternative(spline, level=hpx.Uniform(0, 1))
)


def alone(point):
    """The learning rate at every step, by NumPy, SciPy and Optax."""
    t, warmup = np.arange(STEPS), point["warmup"]
    through = [0, warmup, 8, STEPS], [0.0, 1.0, point["level"], 0.0]
    z = (t - warmup) / (STEPS - warmup)
    shapes = {
        "cosine": lambda: [float(optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, STEPS)(i)) for i in t],
        "rex": lambda: np.where(t < warmup, t / warmup, (1 - z) / (1 - z + point["beta"] * z)),
        "stable_decay": lambda: np.interp(t, [0, warmup, STEPS - point["decay"], STEPS], [0.0, 1.0, 1.0, 0.0]),
        "lines": lambda: np.interp(t, *through),
        "spline": lambda: PchipInterpolator(*through)(t),
    }
    rates = point["rate"] * np.array(shapes[point["schedule"]](), float)
    return optax.sgd(lambda count: jnp.asarray(rates)[count])


def test_five_families_with_numbers_of_their_own_are_one_program():
    with jax.enable_x64(True):
        data = make_data("blobs")
        program = hpx.supervised(
            model=MLP(),
            optimizer=lambda h: optax.sgd(lambda t: h.rate * h.schedule(t, h)),
            loss=cross_entropy,
            data=data,
            batch_size=16,
            steps=STEPS,
            eval_every=4,
        )
        sweep = hpx.Sweep(program, SPACE, trials=12, seed=SEED, width=4, devices=1)
        assert len(sweep.plan().groups) == 1
        result = ran(sweep, programs=1)
        points = result.hparams
        assert {point["schedule"] for point in points} == {"cosine", "rex", "stable_decay", "lines", "spline"}
        for trial, point in enumerate(points):
            params, losses = train_alone(data, model=MLP(), optimizer=alone(point))
            assert difference(result[trial].restore()["params"], params) < 1e-6, point
            np.testing.assert_allclose(result.curves("valid/loss")[trial, 0], losses, rtol=1e-6)
