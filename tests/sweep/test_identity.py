"""What decides the bits of a run: its directory refuses a sweep that differs in it, and no other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import hpjax as hpx
from hpjax.core.errors import RunError
from hpjax.sweep.identity import description, digests

SCALAR = jax.ShapeDtypeStruct((), jnp.float32)


def sweep(evaluate, scheduler=None, data=None):
    """Of a program of one number, whose loss is ``evaluate(number)``."""

    def step(key, state, batch, h):
        return state + h.rate, {}

    def loss(key, state, valid, h):
        return {"loss": evaluate(state)}

    program = hpx.Program(lambda key, h: jnp.zeros(()), step, loss, steps=2, data=data)
    return hpx.Sweep(program, hpx.Space(rate=hpx.Uniform(0.1, 1.0)), trials=2, scheduler=scheduler)


def code_of(given):
    return digests(given.spec, given.plan()).code


def scaled(factor, x):
    return np.float32(factor * x)


def pure(function):
    return lambda x: jax.pure_callback(function, SCALAR, x, vmap_method="sequential")


def ordered(function):
    return lambda x: io_callback(function, SCALAR, x)


def printing(function):
    def evaluate(x):
        jax.debug.callback(function, x)
        return x

    return evaluate


def on_host(function):
    return lambda x: hpx.metrics.on_host(lambda outputs, y: function(outputs))(x[None], x[None])[0]


def inside_a_loop(function):
    return lambda x: jax.lax.scan(lambda c, _: (pure(function)(c), None), x, None, 2)[0]


def in_a_gradient(function):
    @jax.custom_vjp
    def power(x):
        return x**2

    power.defvjp(lambda x: (x**2, x), lambda x, g: (pure(function)(x) * g,))
    return jax.grad(power)


def vectorized(function):
    """By a rule that only lanes together use, of which a trace of one lane shows nothing."""

    @jax.custom_batching.custom_vmap
    def same(x):
        return x

    same.def_vmap(lambda size, batched, x: (jax.vmap(pure(function))(x), True))
    return same


@pytest.mark.parametrize("called", [pure, ordered, printing, on_host, inside_a_loop, in_a_gradient, vectorized])
def test_the_code_of_callbacks_counts(called):
    double, triple = functools.partial(scaled, 2.0), functools.partial(scaled, 3.0)
    assert code_of(sweep(called(double))) == code_of(sweep(called(functools.partial(scaled, 2.0))))
    assert code_of(sweep(called(double))) != code_of(sweep(called(triple)))


def test_what_a_callback_counts_does_not_make_it_another():
    calls = []

    def counting(x):
        calls.append(x)
        return x

    given = sweep(pure(counting))
    before = code_of(given)
    counting(1.0)
    assert code_of(given) == before


def test_the_code_of_a_scheduler_of_ones_own_counts():
    class Stops(hpx.schedulers.Scheduler):
        def decide(self, race):
            return race.ranked(race.live)[1:]

    first = sweep(lambda x: x, Stops())

    class Stops(hpx.schedulers.Scheduler):  # the same name with other code, as after an edit
        def decide(self, race):
            return race.ranked(race.live)[2:]

    edited = sweep(lambda x: x, Stops())
    shown = [description(each.spec, each.plan()).scheduler for each in (first, edited)]
    assert shown[0] != shown[1]
    assert all(each.startswith("Stops() ") for each in shown)


def test_the_code_of_a_stream_counts():
    def stream(later):
        def batches():
            yield np.zeros(3)
            while True:
                yield np.full(3, later)

        return hpx.data.stream(batches, valid=np.zeros(3))

    found = [digests(s.spec, s.plan()).data for s in (sweep(lambda x: x, data=stream(later)) for later in (1.0, 2.0))]
    assert found[0]["train"] != found[1]["train"]
    assert found[0]["valid"] == found[1]["valid"]


def test_a_changed_metric_is_refused(tmp_path):
    """The share of right answers is 5 of 19, or of wrong ones 14 of 19: never the one under the name of the other."""
    directory = tmp_path / "run"
    right, wrong = on_host(lambda x: x + 5 / 19), on_host(lambda x: x + 14 / 19)
    sweep(right).run(directory, progress=False)
    assert len(sweep(right).run(directory, progress=False)) == 2
    with pytest.raises(RunError, match=r"holds a different sweep. What differs:\n  the program's code\nChoose"):
        sweep(wrong).run(directory, progress=False)
