"""keep: which parameters a complete trial has, against a plain loop."""

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from tests.support.plain import SEED, train_alone
from tests.support.programs import blobs, classifier

SPACE = hpx.Space(learning_rate=hpx.Choice(0.1, 1.0, 3.0), momentum=0.9)


class Dense(nn.Dense):
    """A linear model that may be told whether it trains."""

    def __call__(self, x, train=False):
        return super().__call__(x)


def trained(**arguments):
    made = {"model": nn.Dense(3), "steps": 24, "eval_every": 3} | arguments
    return hpx.Sweep(classifier(**made), SPACE, sampler=hpx.Grid(), seed=SEED, width=3).run(progress=False)


@pytest.fixture(scope="module")
def best():
    return trained(keep="best")


def test_the_best_parameters_are_kept_and_nothing_stops(best):
    for trial in best:
        seen = []

        def note(losses, params, state, seen=seen):
            seen.append((losses[-1], params))
            return state, False

        train_alone(
            blobs(),
            model=Dense(3),
            optimizer=optax.sgd(trial.hparams["learning_rate"], 0.9),
            steps=24,
            batch_size=16,
            eval_every=3,
            after_evaluation=note,
        )
        loss, params = min(seen, key=lambda each: each[0])
        np.testing.assert_allclose(trial.restore()["params"]["kernel"], params["kernel"], rtol=1e-4, atol=1e-6)
        assert trial.metrics["valid/best_loss"] == pytest.approx(loss, rel=1e-4)
        assert (trial.step, trial.status) == (24, "complete")
        assert trial.metrics["valid/loss"] == pytest.approx(seen[-1][0], rel=1e-4)
    assert any(trial.metrics["valid/best_loss"] < trial.metrics["valid/loss"] for trial in best)


def test_curves_are_those_of_a_sweep_that_keeps_the_last(best):
    last = trained()
    for name in ("train/loss", "valid/loss", "valid/accuracy"):
        np.testing.assert_allclose(best.curves(name), last.curves(name), rtol=1e-6)
    assert "valid/best_loss" not in last.metrics
    assert trained(keep="last").metrics == last.metrics


def test_another_objective_may_decide():
    result = trained(keep=hpx.maximize("valid/accuracy"))
    valid = blobs().valid
    for trial in result:
        best = trial.curve("valid/accuracy")[0].max()
        assert trial.metrics["valid/best_accuracy"] == pytest.approx(best)
        assert (trial.predict(valid.x)[0].argmax(-1) == valid.y).mean() == pytest.approx(best)


def test_the_average_is_what_is_kept():
    result = trained(keep="best", average=0.9)
    for trial in result:
        state = trial.restore()
        jax.tree.map(np.testing.assert_array_equal, state["params"], state["average"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": "first"}, 'must be "last", "best", or an objective'),
        ({"keep": None}, 'must be "last", "best", or an objective'),
        ({"keep": hpx.minimize("train/loss")}, 'must be "last", "best", or an objective'),
        ({"keep": "best", "early_stopping": hpx.EarlyStopping(patience=2)}, "cannot be combined with early_stopping"),
    ],
)
def test_what_cannot_be_kept_is_refused(arguments, message):
    with pytest.raises(hpx.InputError, match=rf"supervised.keep = .*: {message}"):
        classifier(**arguments)


def test_a_metric_that_is_not_there_is_named():
    program = classifier(keep=hpx.minimize("valid/acuracy"))
    with pytest.raises(hpx.InputError, match=r"supervised.keep = 'valid/acuracy'.* Did you mean 'valid/accuracy'"):
        hpx.Sweep(program, SPACE, 2).plan()
