"""A program of one function, as hyperoptax and purejaxrl have them, against the function itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx


def train(key, h):
    """Gradient descent on a noisy quadratic: the loss, and beside it the curve, the last key and a function."""

    def step(carry, _):
        w, key = carry
        key, own = jax.random.split(key)
        w = w - h.rate * (2 * (w - 1) + 0.1 * jax.random.normal(own))
        return (w, key), w

    (w, key), curve = jax.lax.scan(step, (jnp.zeros(()), key), length=20)
    return {"loss": (w - 1) ** 2, "w": w}, {"curve": curve, "key": key, "f": jnp.tanh}


SPACE = hpx.Space(rate=hpx.LogUniform(0.01, 1.0))


def run(fn, **settings):
    return hpx.Sweep(hpx.function(fn), SPACE, trials=3, **settings).run(progress=False)


def test_it_gives_what_the_function_gives():
    result = run(train, replicates=2)
    for trial in result:
        for replicate in range(2):
            key = hpx.keys.step_key(hpx.keys.purpose_key(hpx.keys.lane_key(0, replicate), "step"), 0)
            metrics, state = train(key, hpx.Hparams(trial.hparams))
            found = trial.restore(replicate)["state"]
            np.testing.assert_allclose(trial.curve("valid/loss")[replicate], metrics["loss"], rtol=2e-5, atol=1e-9)
            np.testing.assert_allclose(found["curve"], state["curve"], rtol=1e-5)
            np.testing.assert_array_equal(found["key"], jax.random.key_data(state["key"]))


def test_a_scalar_is_the_loss_and_all_trials_are_one_program():
    result = run(lambda key, h: h.rate**2)
    np.testing.assert_allclose(result.last("valid/loss")[:, 0], [t.hparams["rate"] ** 2 for t in result], rtol=1e-6)
    assert set(result.groups) == {0}


def test_a_lane_that_gives_nan_diverged():
    assert "diverged" in run(lambda key, h: jnp.where(h.rate > 0.1, jnp.nan, h.rate)).statuses


def test_a_curve_among_the_metrics_is_refused_with_what_to_type():
    message = r"metric 'curve' .* must be a scalar, got \[3\].*return metrics, {'curve'"
    with pytest.raises(hpx.ProgramError, match=message):
        run(lambda key, h: {"loss": h.rate, "curve": jnp.zeros(3)})
    with pytest.raises(hpx.InputError, match=r"function.fn = 3: must be a function of key and h"):
        hpx.function(3)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            {"runner_state": (1.0, {"x": 2.0}), "loss": 1.0},
            "metric 'runner_state' .* must be a scalar, got tuple. Return",
        ),
        ({"metrics": {"returns": 1.0}}, "metric 'metrics' .* must be a scalar, got dict. Return it beside"),
        ([1.0], r"must return metrics or \(metrics, state\), .* got list. Write return"),
        (None, "one scalar, got NoneType"),
    ],
)
def test_what_is_no_metric_is_named(returned, message):
    with pytest.raises(hpx.ProgramError, match=message):
        hpx.Sweep(hpx.function(lambda key, h: returned), hpx.Space(a=1.0), trials=1).plan()
