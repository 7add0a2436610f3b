"""Metrics of training batches every few steps, against those of every step."""

import jax
import numpy as np
import pytest

import hpjax as hpx
from tests.support.compare import same_bits
from tests.support.programs import classifier

SPACE = hpx.Space(learning_rate=hpx.Choice(0.1, 0.01), momentum=0.9, size=hpx.Choice(12, 16))
STEPS = 7


def trained(every, **arguments):
    made = {"steps": STEPS, "eval_every": None, "batch_size": lambda h: h.size, "train_metrics_every": every}
    program = classifier(**made | arguments)
    return hpx.Sweep(program, SPACE, sampler=hpx.Grid(), width=2).run(progress=False)


@pytest.fixture(scope="module")
def every_step():
    """The accuracy of each step, from evaluations after each."""
    return trained(1, eval_every=1)


@pytest.mark.parametrize("every", [2, 3, 100])
@pytest.mark.parametrize("weights", [None, lambda y: y >= 0], ids=["equal", "weights"])
def test_between_measured_steps_the_last_value_stands(every_step, every, weights):
    found = trained(every, weights=weights)
    each = every_step.curves("train/accuracy")[:, 0]
    assert each.shape == (4, STEPS)
    expected = each[:, [t - t % every for t in range(STEPS)]].mean(1)
    np.testing.assert_allclose(found.last("train/accuracy")[:, 0], expected, rtol=1e-5)
    losses = every_step.curves("train/loss")[:, 0].mean(1)
    np.testing.assert_allclose(found.last("train/loss")[:, 0], losses, rtol=1e-5)


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("weights", [None, lambda y: y >= 0], ids=["equal", "weights"])
def test_of_microbatches_the_whole_batch_is_measured(every, weights):
    """Of 12 and 16 examples in microbatches of 4, with batch statistics of these."""
    arguments = {"microbatch": 4, "weights": weights}
    one, found = trained(1, eval_every=1, **arguments), trained(every, **arguments)
    for trial in one:
        parts = trial.hparams["size"] // 4
        calls = one.curves("train/accuracy")[trial.id, 0, : STEPS * parts]
        batches = calls.reshape(STEPS, parts).mean(1)
        expected = np.mean([batches[t - t % every] for t in range(STEPS)])
        assert found.last("train/accuracy")[trial.id, 0] == pytest.approx(expected, rel=1e-5)


def test_training_is_the_same_bit_by_bit(every_step):
    for every in (None, 3):
        found = trained(every)
        assert same_bits(found.last("valid/loss"), every_step.last("valid/loss"))
        assert ("train/accuracy" in found.metrics) == (every is not None)
        assert {"train/loss", "valid/accuracy"} <= set(found.metrics)


def test_what_is_not_measured_is_not_computed():
    """Of 7 steps, the function of the host sees the batches of steps 0, 3 and 6, though lanes are vectorized."""
    seen = []

    def own(outputs, y):
        seen.append(len(y))
        return np.zeros(len(y))

    def calls(every):
        seen.clear()
        space = hpx.Space(learning_rate=hpx.Choice(0.1, 0.01), momentum=0.9)
        program = classifier(
            metrics={"own": hpx.metrics.on_host(own)}, steps=STEPS, eval_every=None, train_metrics_every=every
        )
        hpx.Sweep(program, space, sampler=hpx.Grid(), width=2).run(progress=False)
        jax.effects_barrier()
        return seen.count(16)

    assert (calls(1), calls(3), calls(None)) == (2 * 7, 2 * 3, 0)


def test_a_stream_may_be_measured_now_and_then():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 5)).astype(np.float32), rng.integers(0, 3, 64)
    batches = lambda: iter([(x[i : i + 8], y[i : i + 8]) for i in range(0, 64, 8)])
    data = hpx.data.stream(batches, valid=(x, y))
    one = trained(1, data=data, batch_size=None, eval_every=1).curves("train/accuracy")[:, 0]
    found = trained(4, data=data, batch_size=None).last("train/accuracy")[:, 0]
    np.testing.assert_allclose(found, one[:, [0, 0, 0, 0, 4, 4, 4]].mean(1), rtol=1e-5)


@pytest.mark.parametrize("every", [0, -1, 1.5, "2"])
def test_steps_that_are_none_are_refused(every):
    with pytest.raises(hpx.InputError, match=r"supervised.train_metrics_every = .*must be a whole number, 1 or more"):
        classifier(train_metrics_every=every)
