"""One trial trained again, alone: every bit agrees, and where one does not the text says which."""

import dataclasses
import json
import sqlite3

import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from tests.support.counting import compilations
from tests.support.killed import SWEEPS as INTERRUPTED
from tests.support.marks import few_of, slow
from tests.support.programs import RATES, blobs, classifier, quadratic, rates

SPACE = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-1), momentum=hpx.Uniform(0, 0.9))
NOISY = classifier(steps=12, eval_every=4)
HALVING = hpx.Halving(factor=2, min_steps=4)
SWEEPS = {
    "plain": hpx.Sweep(NOISY, SPACE, trials=6, replicates=2, width=3),
    "independent": hpx.Sweep(NOISY, SPACE, trials=5, replicates=2, width=3, randomness="independent"),
    "folds": hpx.Sweep(NOISY, SPACE, trials=3, folds=3, width=2),
    "halving": hpx.Sweep(NOISY, SPACE, trials=8, replicates=2, width=3, scheduler=HALVING),
    "diverging": hpx.Sweep(quadratic(60, 20), RATES, sampler=rates(0.1, 2.0, 1e6), width=2, replicates=2),
    **{name: INTERRUPTED[name] for name in ("groups", "population", "early stopping", "rounds")},
    "own luck": dataclasses.replace(INTERRUPTED["population"], randomness="independent", replicates=2),
}


FEW = ("plain", "halving", "diverging", "population", "early stopping")


@pytest.fixture(scope="module")
def results():
    found = {}

    def of(name):
        if name not in found:
            found[name] = SWEEPS[name].run(progress=False)
        return found[name]

    return of


@pytest.mark.parametrize("name", few_of(SWEEPS, FEW))
def test_every_bit_of_every_trial_agrees_and_no_segment_compiles(name, results):
    result = results(name)
    with compilations() as programs:
        again = [SWEEPS[name].replay(trial) for trial in result]
    assert [str(each) for each in again if not each.agrees] == []
    assert [each.trial for each in again] == list(range(len(result)))
    assert not any("_lanes" in program for program in programs)
    assert all(each.arrays > 0 for each, status in zip(again, result.statuses) if status != "diverged")


def test_those_above_have_all_that_makes_a_replay_hard(results):
    assert {"stopped", "complete"} <= set(results("halving").statuses)
    assert set(results("diverging").statuses) == {"complete", "diverged"}
    for name in ("population", "own luck"):
        descents = [trial.descent for trial in results(name)]
        assert max(map(len, descents)) > 2, "a chain of clones"
        assert len({id for descent in descents for id, *_ in descent}) > 2


def test_it_says_what_it_compared(results):
    """Six parameters, as many of momentum, and two of batch statistics, of two replicates."""
    replayed = SWEEPS["plain"].replay(results("plain")[4])
    assert replayed.agrees
    assert str(replayed) == (
        "trial 4: every bit agrees: 2 replicates × 3 evaluations of 4 metrics, 28 arrays of final state, "
        "complete at step 12"
    )
    # (w − 1)² grows 4e12-fold a step, and float32 ends at 3.4e38: the loss that step 5 begins with is beyond.
    lost = SWEEPS["diverging"].replay(results("diverging")[2])
    assert str(lost).endswith("2 replicates × 0 evaluations of 2 metrics, 0 arrays of final state, diverged at step 5")


@pytest.mark.parametrize(
    "changes",
    [
        slow({"devices": 1}),
        {"segment": 2},
        slow({"devices": 3, "width": 2}),
    ],
)
def test_devices_and_segments_are_those_of_the_sweep_now_and_the_width_that_of_the_result(changes, results):
    replayed = dataclasses.replace(SWEEPS["halving"], **changes).replay(results("halving")[1])
    assert str(replayed).startswith("trial 1: every bit agrees: 2 replicates")


@pytest.fixture
def recorded(tmp_path):
    sweep = hpx.Sweep(quadratic(20, 5), RATES, sampler=rates(0.1, 0.2, 0.3), replicates=2, width=2)
    sweep.run(tmp_path / "run", progress=False)
    return sweep, tmp_path / "run"


def tampered(directory, metric, evaluation, lane, change):
    database = sqlite3.connect(directory / "results.sqlite")
    where = "WHERE metric = ? AND segment = ?"
    (data,) = database.execute(f"SELECT data FROM curves {where}", (metric, evaluation)).fetchone()
    values = np.frombuffer(data, "<f4").copy()
    change(values.view("<u4"), lane)
    with database:
        database.execute(f"UPDATE curves SET data = ? {where}", (values.tobytes(), metric, evaluation))
    database.close()


def flip(bits, lane):
    bits[lane] ^= 1


def test_one_bit_of_a_curve_is_named(recorded):
    sweep, directory = recorded
    tampered(directory, "valid/loss", 2, 4, flip)  # lanes are trials 0, 1, 2 of replicate 0, then of replicate 1
    tampered(directory, "valid/loss", 3, 4, flip)
    result = hpx.load(directory)
    replayed = sweep.replay(result[1])
    assert not replayed.agrees
    (line,) = replayed.differences
    there = result.curves("valid/loss")[1, 1, 2]
    here = np.array(there).view("<u4") ^ 1
    assert line == (f"valid/loss at step 15, replicate 1: {there} there, {here.view('<f4')} here, the first of 2")
    assert str(replayed).startswith("trial 1: does not agree, of 2 replicates × 4 evaluations")
    assert sweep.replay(result[0]).agrees
    assert sweep.replay(result[2]).agrees


def test_one_bit_of_a_state_and_a_status_are_named(recorded):
    sweep, directory = recorded
    path = directory / "states" / "wave-0" / "0.npy"
    state = np.load(path)
    assert state.shape == (6, 3)
    state[2, 1] = np.nextafter(state[2, 1], 2, dtype=np.float32)
    np.save(path, state)
    database = sqlite3.connect(directory / "results.sqlite")
    with database:
        database.execute("UPDATE lanes SET step = 19 WHERE trial = 2 AND replicate = 1")
    database.close()
    assert sweep.replay(hpx.load(directory)[2]).differences == (
        "replicate 1: complete at step 19 there, complete at step 20 here",
        "state w, replicate 0: 1 of 3 numbers",
    )


def test_a_result_of_another_sweep_is_refused(recorded):
    sweep, directory = recorded
    result = hpx.load(directory)
    with compilations() as programs:
        with pytest.raises(hpx.InputError, match=r"Sweep.replay.trial = 0: must be a trial of a result"):
            sweep.replay(0)
        with pytest.raises(hpx.RunError, match=r"(?s)different sweep.*\n  seed: 0 there, 3 here\nReplay it with"):
            dataclasses.replace(sweep, seed=3).replay(result[0])
        with pytest.raises(hpx.RunError, match=r"(?s)different sweep.*\n  the program's code\nReplay"):
            dataclasses.replace(sweep, program=quadratic(20, 5, size=4)).replay(result[0])
    assert programs == []


def test_other_versions_and_devices_are_told_and_no_refusal(recorded):
    sweep, directory = recorded
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["versions"]["jax"] = "0.0.1"
    manifest["devices"]["kind"] = "abacus"
    manifest["sweep"]["code"] = "what another jax wrote it as"
    (directory / "manifest.json").write_text(json.dumps(manifest))
    replayed = sweep.replay(hpx.load(directory)[0])
    assert replayed.agrees
    assert replayed.notes[0].startswith("jax: 0.0.1 there, ")
    assert "devices: abacus there, cpu here, which may decide the last bits" in str(replayed)


def test_a_trial_that_still_runs_is_refused(tmp_path):
    sweep = hpx.Sweep(quadratic(20, 5), RATES, sampler=rates(0.1, 0.2))
    for event in sweep.events(tmp_path / "run"):
        if event.kind == "segment":
            break
    with pytest.raises(hpx.RunError, match="trial 1 is still running"):
        sweep.replay(hpx.load(tmp_path / "run")[1])


def accumulating(every):
    """A population whose steps are of several calls each."""
    program = hpx.supervised(
        model=nn.Dense(3),
        optimizer=lambda h: optax.sgd(h.learning_rate),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=blobs(),
        batch_size=12,
        microbatch=4,
        steps=8,
        eval_every=every,
    )
    points = hpx.Manual([{"learning_rate": 0.1 * i} for i in range(1, 6)])
    space = hpx.Space(learning_rate=hpx.Uniform(0, 1))
    return hpx.Sweep(program, space, sampler=points, scheduler=hpx.PBT(every=every), width=2)


@pytest.mark.slow
def test_decisions_amid_accumulated_gradients():
    """A decision after 4 calls, where 3 make a step: half of the next step's gradients are cloned too."""
    sweep = accumulating(4)
    result = sweep.run(progress=False)
    assert {clone.step for clone in result.lineage} >= {1, 2}
    assert all(sweep.replay(trial).agrees for trial in result)


@pytest.mark.slow
def test_two_decisions_within_a_step_are_refused():
    sweep = accumulating(1)
    result = sweep.run(progress=False)
    moved = result.lineage[-1].trial
    with pytest.raises(hpx.RunError, match="the scheduler decided 3 times at its step"):
        sweep.replay(result[moved])


class Swap(hpx.Scheduler):
    """At step 10 two trials clone each other's state, at 20 another clones one of them; at 30 one stops."""

    def decide(self, race):
        return [0] if race.step == 30 else []

    def replace(self, race):
        clones = {10: {0: (1, 0.3), 1: (0, 0.01)}, 20: {2: (0, 0.2)}}.get(race.step, {})
        return {trial: hpx.Clone(source, {"rate": rate}) for trial, (source, rate) in clones.items()}


def test_states_that_change_places():
    sweep = hpx.Sweep(quadratic(40, 5), RATES, sampler=rates(0.02, 0.03, 0.04), scheduler=Swap(), width=2)
    result = sweep.run(progress=False)
    assert result[0].status == "stopped"
    assert [(id, step) for id, step, _ in result[2].descent] == [(1, 0), (0, 10), (2, 20)]
    np.testing.assert_allclose(1 - result[2].restore()["w"], 0.94**10 * 0.4**10 * 0.6**20, rtol=1e-4, atol=1e-7)
    assert [str(again) for again in map(sweep.replay, result) if not again.agrees] == []
