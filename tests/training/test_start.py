"""Going on from the state of a trained trial, against plain Optax loops that train without a break."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax import InputError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 3)).astype("float32"), RNG.normal(size=8).astype("float32")
DATA = hpx.data.from_arrays(X, Y, valid=(X, Y), test=(X, Y))
RATES = (0.1, 0.02)


def schedule(h):
    return optax.linear_schedule(h.rate, 0.0, 40)


def program(steps, **settings):
    settings = {"optimizer": lambda h: optax.adam(schedule(h))} | settings
    settings = {"model": nn.Sequential([nn.Dense(1), lambda z: z[:, 0]])} | settings
    return hpx.supervised(
        loss=hpx.metrics.squared_error,
        data=DATA,
        batch_size=8,
        steps=steps,
        **settings,
    )


def run(own, **settings):
    space = hpx.Space(rate=hpx.Choice(*RATES))
    return hpx.Sweep(own, space, sampler=hpx.Grid(), **settings).run(progress=False)


@pytest.fixture(scope="module")
def first():
    return run(program(5))


def plain(params, steps, make, rate=None):
    """Parameters after steps of all examples with Adam and the same schedule, without a break."""
    optimizer, state = make(rate), None
    for _ in range(steps):
        state = optimizer.init(params) if state is None else state
        slopes = jax.grad(lambda p: jnp.mean((X @ p["kernel"][:, 0] + p["bias"][0] - Y) ** 2))(params)
        updates, state = optimizer.update(slopes, state, params)
        params = optax.apply_updates(params, updates)
    return params


def initial():
    model = nn.Sequential([nn.Dense(1), lambda z: z[:, 0]])
    key = hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "init")
    own = program(1).init(key, type("h", (), {"rate": 0.1})())
    assert jax.tree.structure(own.params) == jax.tree.structure(model.init(key, X)["params"])
    return own.params["layers_0"]


def close(state, params):
    for name, value in params.items():
        np.testing.assert_allclose(state["params"]["layers_0"][name], value, rtol=2e-5, atol=1e-6)


def test_a_schedule_goes_on_where_it_was(first):
    """Five steps and seven more are twelve of a plain loop, whose schedule and moments know no break."""
    for i, rate in enumerate(RATES):
        result = run(program(7, start_from=first[i]))
        wanted = plain(initial(), 12, lambda rate: optax.adam(optax.linear_schedule(rate, 0.0, 40)), rate)
        close(result[i].restore(), wanted)
        assert result[i].step == 7


def test_lanes_branch_from_several_states_in_one_program(first):
    stacked = jax.tree.map(lambda *states: np.stack(states), *(first[i].restore() for i in range(2)))
    own = program(7, start_from=lambda h: jax.tree.map(lambda x: jnp.asarray(x)[h.start], stacked))
    space = hpx.Space(start=hpx.Choice(0, 1), rate=hpx.Choice(*RATES))
    sweep = hpx.Sweep(own, space, sampler=hpx.Grid())
    assert len(sweep.plan().groups) == 1
    result = sweep.run(progress=False)
    (starts, rates), trials = result.grid("start", "rate")
    for start in starts:
        at = rates.index(RATES[start])
        wanted = plain(initial(), 12, lambda rate: optax.adam(optax.linear_schedule(rate, 0.0, 40)), RATES[start])
        close(result[int(trials[start, at])].restore(), wanted)


def test_hyperparameters_in_the_state_are_those_of_the_lane():
    """``inject_hyperparams`` holds the rate in its state: a branch trains at its own, not at that of the checkpoint."""
    make = optax.inject_hyperparams(optax.sgd)
    settings = {"optimizer": lambda h: make(learning_rate=h.rate)}
    first = run(program(5, **settings))
    result = run(program(3, start_from=first[0], **settings))
    half = first[0].restore()["params"]["layers_0"]
    for i, rate in enumerate(RATES):
        close(result[i].restore(), plain(half, 3, optax.sgd, rate))


def test_an_optimizer_without_a_state_goes_on():
    """What plain SGD restores has no ``opt_state``."""
    settings = {"optimizer": lambda h: optax.sgd(h.rate)}
    first = run(program(5, **settings))
    result = run(program(3, start_from=first[0], **settings))
    close(result[0].restore(), plain(first[0].restore()["params"]["layers_0"], 3, optax.sgd, RATES[0]))


def test_moments_of_a_module_named_hyperparams_go_on():
    model = nn.Sequential([nn.Dense(1, name="hyperparams"), lambda z: z[:, 0]])
    settings = {"model": model, "optimizer": lambda h: optax.adam(h.rate)}
    first = run(program(5, **settings))
    result, whole = run(program(3, start_from=first[0], **settings)), run(program(8, **settings))
    np.testing.assert_allclose(result.last("valid/loss")[0], whole.last("valid/loss")[0], rtol=1e-5)


def test_frozen_parameters_are_those_of_the_start(first):
    base = first[0].restore()["params"]["layers_0"]
    given = {"layers_0": {"kernel": base["kernel"]}}
    settings = {"init_from": given, "frozen": "layers_0/kernel"}
    adapted = run(program(2, **settings))[0]
    run(program(1, start_from=adapted, **settings))
    other = {"layers_0": {"kernel": base["kernel"] + 1}}
    with pytest.raises(InputError, match=r"layers_0/kernel.*is another one than the frozen parameter"):
        run(program(1, start_from=adapted, init_from=other, frozen="layers_0/kernel"))


def test_what_is_left_out_of_a_start_is_told(first):
    several = hpx.Sweep(program(2), hpx.Space(rate=0.1), trials=1, replicates=2).run(progress=False)
    plan = hpx.Sweep(program(2, start_from=several[0]), hpx.Space(rate=0.1), trials=1).plan()
    assert "start_from has 2 replicates: all lanes begin with the state of the first" in str(plan)


def test_a_decay_goes_on_from_a_constant_schedule_and_not_from_a_constant():
    decay = {"optimizer": lambda h: optax.adam(optax.linear_schedule(h.rate, 0.0, 4, 5))}
    with pytest.raises(InputError, match=r"opt_state/1/count.*Train the start with optax\.constant_schedule"):
        run(program(2, start_from=run(program(5, optimizer=lambda h: optax.adam(h.rate)))[0], **decay))
    constant = run(program(5, optimizer=lambda h: optax.adam(optax.constant_schedule(h.rate))))[0]
    wanted = plain(initial(), 7, lambda rate: optax.adam(optax.linear_schedule(rate, 0.0, 4, 5)), RATES[0])
    close(run(program(2, start_from=constant, **decay))[0].restore(), wanted)


def test_an_average_begins_at_the_parameters_or_goes_on(first):
    begun = run(program(1, start_from=first[0], average=1.0))[0].restore()["average"]["layers_0"]
    for name, value in first[0].restore()["params"]["layers_0"].items():
        np.testing.assert_array_equal(begun[name], value)
    averaged = run(program(5, average=0.5))[0]
    goes_on = run(program(1, start_from=averaged, average=1.0))[0].restore()["average"]["layers_0"]
    for name, value in averaged.restore()["average"]["layers_0"].items():
        np.testing.assert_array_equal(goes_on[name], value)


def test_early_stopping_keeps_what_it_starts_from(first):
    """A rate of 0 changes nothing, so that the best parameters are the ones of the start."""
    settings = {"optimizer": lambda h: optax.adam(optax.linear_schedule(h.rate * 0, 0.0, 40)), "keep": "best"}
    kept = run(program(2, start_from=first[0], **settings))[0].restore()
    close(kept, first[0].restore()["params"]["layers_0"])


def test_a_warmup_that_is_over_may_be_longer_than_the_branch(first):
    settings = {"optimizer": lambda h: optax.adam(hpx.optim.warmup_constant_schedule(0.0, h.rate, 4))}
    state = run(program(5, **settings))[0]
    branch = run(program(2, start_from=state, **settings))
    wanted = plain(initial(), 7, lambda rate: optax.adam(optax.warmup_constant_schedule(0.0, rate, 4)), RATES[0])
    close(branch[0].restore(), wanted)


def test_a_state_of_another_model_or_optimizer_is_refused(first):
    state = first[0].restore()
    wide = state | {"params": {"layers_0": {"kernel": np.zeros((4, 1)), "bias": np.zeros(1)}}}
    with pytest.raises(InputError, match=r"start_from\['params/layers_0/kernel'\].*\(4, 1\).*\(3, 1\)"):
        hpx.Sweep(program(3, start_from=wide), hpx.Space(rate=0.1), trials=1).plan()
    momentum = program(3, start_from=first[0], optimizer=lambda h: optax.sgd(h.rate, momentum=0.9))
    with pytest.raises(InputError, match=r"opt_state/0/count.*is no array of the program's state"):
        hpx.Sweep(momentum, hpx.Space(rate=0.1), trials=1).plan()
    less = state | {"params": {"layers_0": {"kernel": np.zeros((3, 1))}}}
    with pytest.raises(InputError, match=r"params/layers_0/bias.*is missing"):
        hpx.Sweep(program(3, start_from=less), hpx.Space(rate=0.1), trials=1).plan()
    more = state | {"params": state["params"] | {"head": np.zeros(3)}}
    with pytest.raises(InputError, match=r"params/head.*is no array of the program's state"):
        hpx.Sweep(program(3, start_from=more), hpx.Space(rate=0.1), trials=1).plan()


@pytest.mark.parametrize("given", [{"opt_state": {}}, "runs/a", 3])
def test_what_is_no_state_is_refused(given):
    with pytest.raises(InputError, match=r"start_from.*must be a trial"):
        program(3, start_from=given)
