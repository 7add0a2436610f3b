"""Extension: a finished run with more trials or steps ends with the bits of one that had them from the beginning."""

import dataclasses

import numpy as np
import optax
import pytest

import hpjax as hpx
from tests.support.compare import same_bits
from tests.support.killed import SWEEPS
from tests.support.marks import few_of
from tests.support.programs import RATES, classifier, quadratic, rates

SPACE = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e9), momentum=hpx.Uniform(0.5, 0.9))


def short(steps=14, **changes):
    program = dataclasses.replace(LONG, steps=steps)
    return hpx.Sweep(program, SPACE, **({"trials": 6, "replicates": 2, "width": 2} | changes))


LONG = classifier(steps=28, eval_every=7)


def assert_same(a, b, trials=None):
    """Two results agree in every bit, or some trials of theirs."""
    trials = list(range(len(a))) if trials is None else trials
    assert (a.lane_status[trials] == b.lane_status[trials]).all()
    assert (a.lane_step[trials] == b.lane_step[trials]).all()
    for metric in ("step", *a.metrics):
        assert same_bits(a.curves(metric)[trials], b.curves(metric)[trials]), metric
    for trial in trials:
        for replicate in range(a.lane_status.shape[1]):
            if a.lane_status[trial, replicate] != "diverged":
                pairs = zip(a.leaves(trial, replicate), b.leaves(trial, replicate), strict=True)
                assert all(same_bits(x, y) for (_, x), (_, y) in pairs)


@pytest.fixture(scope="module")
def longer():
    return short(28).run(progress=False)


@pytest.mark.slow
def test_more_steps(longer, tmp_path):
    first = short().run(tmp_path, progress=False)
    assert first.test()
    found = short(28).run(tmp_path, progress=False, extend=True)
    assert {"diverged", "complete"} == set(found.statuses)
    assert_same(found, longer)
    assert found.tested == {}, "what was tested were other weights"
    assert short(28).replay(hpx.load(tmp_path).best).agrees
    assert list(short(28).events(tmp_path)) == [], "and it is finished"


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 5])
def test_an_extension_that_is_interrupted_goes_on(longer, after, tmp_path):
    short().run(tmp_path, progress=False)
    events = short(28).events(tmp_path, checkpoint_seconds=0.0, extend=True)
    for number, event in enumerate(events):
        assert number or event.kind == "resumed"
        if number == after:
            break
    events.close()
    # As the sweep that it is now, and no more as the one that it was.
    with pytest.raises(hpx.RunError, match="steps: 28 there, 14 here"):
        short().run(tmp_path, progress=False)
    assert_same(short(28).run(tmp_path, progress=False), longer)


@pytest.mark.parametrize("name", few_of(("groups", "halving", "rounds"), ("halving",)))
def test_more_trials_are_a_round_of_their_own(name, tmp_path):
    sweep = SWEEPS[name]
    before = sweep.run(tmp_path, progress=False)
    rounds = sweep.plan().rounds
    more = dataclasses.replace(sweep, trials=sum(rounds) + 8)
    found = more.run(tmp_path, progress=False, extend=True)
    whole = dataclasses.replace(more, rounds=(*rounds, 8)).run(progress=False)
    assert found.hparams == whole.hparams
    assert_same(found, whole)
    assert_same(found, before, list(range(sum(rounds))))
    assert found.rounds.tolist() == [r for r, size in enumerate((*rounds, 8)) for _ in range(size)]
    assert found.best.id == found.ranking[0]
    assert len(more.run(tmp_path, progress=False, extend=True)) == sum(rounds) + 8, "nothing more is to be done"


def test_trials_are_added_twice(tmp_path):
    sweep = hpx.Sweep(quadratic(10, 5), RATES, trials=2, width=2)
    for trials in (2, 4, 6):
        found = dataclasses.replace(sweep, trials=trials).run(tmp_path, progress=False, extend=True)
    assert found.rounds.tolist() == [0, 0, 1, 1, 2, 2]
    healthy = [trial for trial in found if trial.status == "complete"]
    assert healthy
    for trial in healthy:
        closed_form = 1 - (1 - 2 * np.float64(np.float32(trial.hparams["rate"]))) ** 10
        np.testing.assert_allclose(trial.restore()["w"], np.full(3, closed_form), rtol=1e-4)


def test_an_extended_run_is_what_its_own_file_says(tmp_path):
    """No rounds need be given: to run, replay and look at it again."""
    sweep = SWEEPS["groups"]
    sweep.run(tmp_path, progress=False)
    more = dataclasses.replace(sweep, trials=16)
    more.run(tmp_path, progress=False, extend=True)
    assert len(more.run(tmp_path, progress=False)) == 16
    assert list(more.events(tmp_path)) == []
    assert more.replay(hpx.load(tmp_path)[14]).agrees
    with pytest.raises(hpx.RunError, match="trials: 16 there, 13 here"):
        dataclasses.replace(sweep, trials=13).run(tmp_path, progress=False, extend=True)


@pytest.mark.slow
def test_trials_with_microbatches_of_several_batch_sizes(tmp_path):
    """Where calls of step differ between trials: no evaluation is lost."""
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 0.1), batch=hpx.Choice(8, 32))
    program = classifier(
        optimizer=lambda h: optax.sgd(h.learning_rate),
        batch_size=lambda h: h.batch,
        microbatch=8,
        steps=8,
        eval_every=4,
    )
    sweep = hpx.Sweep(program, space, trials=4, width=2)
    before = sweep.run(tmp_path, progress=False)
    more = dataclasses.replace(sweep, trials=8)
    found = more.run(tmp_path, progress=False, extend=True)
    for metric in ("step", *before.metrics):
        assert same_bits(found.curves(metric)[:4, :, : before.curves(metric).shape[-1]], before.curves(metric))
    assert_same(found, dataclasses.replace(more, rounds=(4, 4)).run(progress=False))


def test_shards_take_more_steps_and_no_more_trials(tmp_path):
    sweep = hpx.Sweep(quadratic(10, 5), RATES, trials=4, width=2, shard=(1, 2))
    sweep.run(tmp_path / "1", progress=False)
    with pytest.raises(hpx.RunError, match="a shard cannot have more trials"):
        dataclasses.replace(sweep, trials=8).run(tmp_path / "1", progress=False, extend=True)
    longer = dataclasses.replace(sweep, program=dataclasses.replace(sweep.program, steps=20))
    longer.run(tmp_path / "1", progress=False, extend=True)
    other = dataclasses.replace(longer, shard=(2, 2))
    other.run(tmp_path / "2", progress=False)
    merged = hpx.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "merged")
    whole = dataclasses.replace(longer, shard=None)
    assert_same(merged, whole.run(progress=False))
    assert list(whole.events(tmp_path / "merged")) == [], "it is finished"
    assert whole.replay(merged.best).agrees
    half = hpx.merge([tmp_path / "2"], tmp_path / "half")
    assert whole.replay(half.best).agrees


def test_an_extension_from_damaged_states_changes_nothing(tmp_path):
    sweep = hpx.Sweep(quadratic(10, 5), RATES, sampler=rates(0.1, 0.2), width=2)
    sweep.run(tmp_path, progress=False)
    np.save(tmp_path / "states" / "wave-0" / "0.npy", np.zeros((2, 5), np.float32))
    longer = dataclasses.replace(sweep, program=dataclasses.replace(sweep.program, steps=20))
    with pytest.raises(hpx.RunError, match=r"final states of wave 0 .* is float32 \(2, 5\).*Restore them"):
        longer.run(tmp_path, progress=False, extend=True)
    assert len(sweep.run(tmp_path, progress=False)) == 2, "it is what it was"


REFUSED = {
    "fewer steps": (lambda s: {"program": dataclasses.replace(s.program, steps=5)}, "these are fewer"),
    "both": (
        lambda s: {"program": dataclasses.replace(s.program, steps=20), "sampler": rates(0.1, 0.2, 0.3)},
        "a different sweep",
    ),
    "another space": (lambda s: {"space": hpx.Space(rate=hpx.Uniform(0, 0.5))}, "space.alternative 0.rate"),
    "another seed": (lambda s: {"seed": 1}, "seed: 0 there, 1 here"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what, tmp_path):
    sweep = hpx.Sweep(quadratic(10, 5), RATES, sampler=rates(0.1, 0.2), width=2)
    sweep.run(tmp_path, progress=False)
    change, message = REFUSED[what]
    with pytest.raises(hpx.RunError, match=message):
        dataclasses.replace(sweep, **change(sweep)).run(tmp_path, progress=False, extend=True)
    assert len(sweep.run(tmp_path, progress=False)) == 2, "it is what it was"


ADD = r"\nTo add to it: sweep.run\(directory, extend=True\), or hpjax run --extend\.\nChoose another"


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"trials": 5}, r"\n  trials: 4 there, 5 here\n  rounds: \[4\] there, \[5\] here"),
        ({"steps": 20}, r"\n  steps: 10 there, 20 here"),
    ],
    ids=("trials", "steps"),
)
def test_who_did_not_ask_to_extend_is_told_how(change, lines, tmp_path):
    sweep = hpx.Sweep(quadratic(10, 5), RATES, trials=4, width=2)
    sweep.run(tmp_path, progress=False)
    steps = change.pop("steps", 10)
    more = dataclasses.replace(sweep, program=dataclasses.replace(sweep.program, steps=steps), **change)
    with pytest.raises(hpx.RunError, match=rf"What differs:{lines}{ADD}"):
        more.run(tmp_path, progress=False)
    more.run(tmp_path, progress=False, extend=True)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"trials": 3}, r"\n  trials: 4 there, 3 here\n  rounds: \[4\] there, \[3\] here"),
        ({"trials": 5, "seed": 1}, r"\n  trials: 4 there, 5 here\n  rounds: .*\n  seed: 0 there, 1 here"),
        ({"seed": 1}, r"\n  seed: 0 there, 1 here"),
        ({"space": hpx.Space(rate=hpx.Uniform(0, 0.3))}, r"\n  space\.alternative 0\.rate: .*"),
    ],
    ids=("fewer trials", "another seed too", "another seed", "another space"),
)
def test_what_cannot_be_extended_is_told_without_a_digest_of_points(change, lines, tmp_path):
    sweep = hpx.Sweep(quadratic(10, 5), RATES, trials=4, width=2)
    sweep.run(tmp_path, progress=False)
    with pytest.raises(hpx.RunError, match=rf"What differs:{lines}\nChoose another"):
        dataclasses.replace(sweep, **change).run(tmp_path, progress=False)


def extended(directory, sweep, **changes):
    program = dataclasses.replace(sweep.program, steps=20)
    dataclasses.replace(sweep, program=program, **changes).run(directory, progress=False, extend=True)


def test_steps_that_a_longer_run_would_not_have_taken_so(tmp_path):
    uneven = hpx.Sweep(quadratic(10, 4), RATES, trials=2, width=2)
    uneven.run(tmp_path / "uneven", progress=False)
    with pytest.raises(hpx.RunError, match="it ended with an evaluation that a longer run does not make"):
        extended(tmp_path / "uneven", uneven)
    raced = hpx.Sweep(quadratic(10, 5), RATES, trials=4, scheduler=hpx.Halving(factor=2, min_steps=5), width=2)
    raced.run(tmp_path / "raced", progress=False)
    with pytest.raises(hpx.RunError, match="its scheduler decided by the number of steps that it knew"):
        extended(tmp_path / "raced", raced)
    unfinished = hpx.Sweep(quadratic(10, 5), RATES, trials=2, width=2)
    for _ in unfinished.events(tmp_path / "unfinished"):
        break
    with pytest.raises(hpx.RunError, match="is not finished, and only a finished one can be extended"):
        extended(tmp_path / "unfinished", unfinished)


@pytest.mark.slow
def test_early_stopping_took_what_more_steps_would_begin_with(tmp_path):
    """A complete trial has the parameters of its best evaluation, and not those of its last step any more."""
    sweep = dataclasses.replace(
        short(), program=classifier(steps=14, eval_every=7, early_stopping=hpx.EarlyStopping(patience=2))
    )
    sweep.run(tmp_path, progress=False)
    longer = classifier(steps=28, eval_every=7, early_stopping=hpx.EarlyStopping(patience=2))
    with pytest.raises(hpx.RunError, match="changed the states of complete trials, as early stopping does"):
        dataclasses.replace(sweep, program=longer).run(tmp_path, progress=False, extend=True)
