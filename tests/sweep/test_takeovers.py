"""Hyperparameters that are in the state follow the lineage: by hand, in replays, after a resume."""

import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.engine import sharding
from tests.support.compare import same_bits
from tests.support.programs import blobs

RATES = hpx.Space(rate=hpx.LogUniform(1e-4, 1e3))
POINTS = hpx.Manual([{"rate": rate} for rate in np.geomspace(1e-4, 0.05, 12).round(5).tolist()])


def in_state(key, h):
    return {"double": 2 * h.rate, "w": jnp.zeros(())}


def step(key, s, batch, h):
    return s | {"w": s["w"] - s["double"] * (s["w"] - 1)}, {}


def evaluate(key, s, split, h):
    return {"loss": (s["w"] - 1) ** 2}


PROGRAM = hpx.Program(in_state, step, evaluate, steps=40, eval_every=5)


def sweep(**changes):
    arguments = {"sampler": POINTS, "scheduler": hpx.PBT(every=10, share=0.25), "width": 4, "replicates": 2}
    return hpx.Sweep(PROGRAM, RATES, **(arguments | changes))


@pytest.fixture(scope="module")
def result():
    return sweep(devices=2).run(progress=False)


def test_what_the_lineage_records_is_what_trained(result):
    """Gradient descent on (w − 1)² by the rate in the state: 1 − w is a product over the rates of the lineage."""
    assert len(result.lineage) >= 9
    for trial in result:
        steps = np.diff([*(step for step, _ in trial.schedule), 40])
        far = np.prod([(1 - 2 * h["rate"]) ** n for n, (_, h) in zip(steps, trial.schedule, strict=True)])
        for replicate in range(2):
            state = trial.restore(replicate)
            np.testing.assert_allclose(1 - state["w"], far, rtol=1e-4)
            np.testing.assert_allclose(state["double"], 2 * trial.hparams["rate"], rtol=1e-6)


@pytest.mark.parametrize("changes", [{"devices": 1}, {"devices": 4, "segment": 3}, {"spread": "pmap"}], ids=str)
def test_packing_changes_no_bit(result, changes):
    assert_same(sweep(**changes).run(progress=False), result)


def test_waves_that_wait_on_the_host_renew_their_states(result, monkeypatch):
    monkeypatch.setattr(sharding, "memory", lambda: 300)
    small = sweep(devices=1)
    assert len(small.plan().arrangements[0].waves) > 1
    assert_same(small.run(progress=False), result)


def assert_same(other, result):
    assert other.lineage == result.lineage
    assert same_bits(other.curves("valid/loss"), result.curves("valid/loss"))
    for a, b in itertools.product(zip(other, result, strict=True), range(2)):
        assert all(same_bits(x.restore(b)["w"], a[1].restore(b)["w"]) for x in a)


def test_a_replay_agrees(result):
    longest = max(result, key=lambda trial: len(trial.descent))
    assert len(longest.descent) > 2
    assert sweep(devices=2).replay(longest).agrees


@pytest.mark.parametrize("after", [5, 9])
def test_a_run_that_is_resumed_right_after_a_takeover_ends_with_the_same_bits(result, tmp_path, after):
    events = sweep(devices=2).events(tmp_path / "run", checkpoint_seconds=0.0)
    assert len(list(itertools.islice(events, after))) == after
    events.close()
    assert_same(sweep(devices=2).run(tmp_path / "run", progress=False), result)


def test_injected_hyperparameters_train_as_those_that_are_given_anew():
    """F02: both optimizers are the same one, and so are the curves of their populations."""

    def curves(optimizer):
        program = hpx.supervised(
            model=nn.Dense(3),
            optimizer=optimizer,
            loss=optax.softmax_cross_entropy_with_integer_labels,
            data=blobs(),
            batch_size=16,
            steps=4,
            eval_every=2,
        )
        points = hpx.Manual([{"rate": rate} for rate in (0.5, 0.4, 0.01, 0.009)])
        scheduler = hpx.PBT(every=2, explore="resample")
        found = hpx.Sweep(program, RATES, sampler=points, scheduler=scheduler, width=4).run(progress=False)
        return found, found.curves("valid/loss")

    given, expected = curves(lambda h: optax.sgd(h.rate))
    injected, actual = curves(lambda h: optax.inject_hyperparams(optax.sgd)(learning_rate=h.rate))
    assert injected.lineage == given.lineage != []
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    (takeover,) = injected.lineage
    rates = [leaf for path, leaf in injected.leaves(takeover.trial) if "learning_rate" in path]
    assert rates == [np.float32(takeover.hparams["rate"])]


class Changing(hpx.Scheduler):
    """Has trial 0 go on from trial 1, at another start of its own."""

    def decide(self, race):
        return []

    def next(self, step):
        return step + 10

    def replace(self, race):
        return {0: hpx.Clone(1, race.points[1] | {"start": 0.5})} if race.step == 10 else {}


def begun_anywhere(key, h):
    return {"w": 1.0 * h.start, "double": 2 * h.rate}


def test_a_start_that_training_has_left_behind_cannot_change():
    program = hpx.Program(begun_anywhere, step, evaluate, steps=40, eval_every=5)
    space = hpx.Space(rate=hpx.Uniform(0, 0.1), start=hpx.Uniform(0, 1))
    changing = hpx.Sweep(program, space, trials=4, scheduler=Changing(), width=4)
    with pytest.raises(hpx.InputError, match="'start': is static, or part of the trained state, and cannot change"):
        changing.run(progress=False)
    scheduler = hpx.PBT(every=10, explore="resample", share=0.5)
    found = hpx.Sweep(program, space, trials=8, scheduler=scheduler, width=4).run(progress=False)
    assert len(found.lineage) > 4
    for trial in found:
        first = found.first_hparams[trial.descent[0][0]]["start"]
        assert trial.hparams["start"] == first, "of the trial from which its state descends"
        steps = np.diff([*(step for step, _ in trial.schedule), 40])
        far = np.prod([(1 - 2 * h["rate"]) ** n for n, (_, h) in zip(steps, trial.schedule, strict=True)])
        np.testing.assert_allclose(1 - trial.restore()["w"], (1 - first) * far, rtol=1e-4, atol=1e-6)
