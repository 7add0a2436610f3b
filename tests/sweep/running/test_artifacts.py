"""Artifacts of chosen trials at evaluations, against closed forms; the training does not know of them."""

import dataclasses
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key, step_key
from tests.support.compare import same_bits
from tests.support.counting import compilations
from tests.support.interrupted import abandon
from tests.support.killed import SWEEPS
from tests.support.programs import RATES, quadratic, rates

# The weights are 1 − (1 − 2·rate)ᵗ after t steps. The trial that is nearest to the goal after 5 steps is past it after
# 10, where another one is the best.
GOAL = 0.3
VALUES = (0.01, 0.9, 0.2, 0.3, 0.03, 5e5, 0.02)


def noted(key, state, split, h):
    """What tells the lane, its evaluation and its hyperparameters apart."""
    return {
        "w": state["w"],
        "noise": jax.random.normal(key, (2,)),
        "of": {"rate": h.rate, "half": state["w"].astype(jnp.bfloat16)},
    }


PLAIN = dataclasses.replace(
    quadratic(), evaluate=lambda key, state, split, h: {"loss": (state["w"].mean() - GOAL) ** 2}
)
NOTED = dataclasses.replace(PLAIN, artifacts=noted)


def sweep(program=NOTED, **changes):
    return hpx.Sweep(program, RATES, sampler=rates(*VALUES), **({"width": 2, "seed": 3} | changes))


def files(directory):
    """Every artifact of a run directory: its path and its bytes."""
    found = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*.npz")}
    assert found
    assert not list(directory.rglob("*.part"))
    return found


def arrays_of(result):
    """What a result has of all trials, by trial, name and step, as bytes."""
    return {
        (trial.id, name, step, i): (array.dtype, array.shape, array.tobytes())
        for trial in result
        for name, found in trial.artifacts.items()
        for i, (step, array) in enumerate(found)
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with artifacts, and its directory."""
    directory = tmp_path_factory.mktemp("artifacts") / "run"
    return sweep().run(directory, progress=False), directory


def closed(rate, step):
    return 1 - (1 - 2 * np.float64(rate)) ** step


def test_the_best_of_each_evaluation_have_artifacts_by_default(run):
    result, directory = run
    for read in (result, hpx.load(directory)):
        for step in (5, 10):
            finite = [trial for trial, rate in enumerate(VALUES) if rate < 1]
            best = sorted(finite, key=lambda trial: (closed(VALUES[trial], step) - GOAL) ** 2)[:4]
            have = {trial.id for trial in read if step in [at for at, _ in trial.artifacts.get("w", [])]}
            assert have == {*best}
        for trial in read:
            for step, w in trial.artifacts.get("w", []):
                np.testing.assert_allclose(w, np.full(3, closed(VALUES[trial.id], step)), rtol=1e-5)


def test_they_are_of_the_state_after_the_evaluation_and_of_a_key_of_their_own(run):
    result, _ = run
    best = result.best
    assert list(best.artifacts) == ["noise", "of/half", "of/rate", "w"]
    step, w = best.artifacts["w"][-1]
    assert step == 10
    assert same_bits(w, best.restore()["w"])
    for step, noise in best.artifacts["noise"]:
        key = step_key(purpose_key(lane_key(3, 0), "artifacts"), step)
        assert same_bits(noise, jax.random.normal(key, (2,)))
    assert same_bits(best.artifacts["of/rate"][0][1], np.float32(best.hparams["rate"]))
    assert same_bits(best.artifacts["of/half"][-1][1], np.asarray(jnp.asarray(w, jnp.bfloat16), np.float32))


def test_numpy_reads_the_files(run):
    result, directory = run
    with np.load(directory / "artifacts" / f"trial-{result.best.id}" / "evaluation-1-step-10.npz") as found:
        assert same_bits(found["w"], result.best.restore()["w"])


def test_training_keeps_every_bit_and_compiles_as_often():
    # Programs of their own, since what was compiled for a program is kept.
    plain, noted_too = dataclasses.replace(PLAIN), dataclasses.replace(NOTED)
    with compilations() as without:
        expected = sweep(plain).run(progress=False)
    with compilations() as names:
        found = sweep(noted_too, artifacts="all").run(progress=False)
    for name in {*without}:
        assert names.count(name) == without.count(name)
    assert names.count("jit(artifacts)") == 1, "the artifacts of a group are one program"
    for metric in ("step", *expected.metrics):
        assert same_bits(found.curves(metric), expected.curves(metric))
    for trial in expected.ranking:
        assert same_bits(found[trial].restore()["w"], expected[trial].restore()["w"])
    assert expected.best.artifacts == {}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("all", [0, 1, 2, 3, 4, 6]), ([0, 5, 6], [0, 6]), ("0,5,6", [0, 6]), ("best:1", [4, 6]), ([], [])],
)
def test_trials_are_chosen(chosen, expected):
    """Trial 5 diverges at once."""
    result = sweep(artifacts=chosen).run(progress=False)
    assert [trial.id for trial in result if trial.artifacts] == expected


@pytest.mark.parametrize("chosen", ["best", "best:0", "some", [7], [-1], [0.5], 3])
def test_what_cannot_be_chosen_is_refused_before_anything_compiles(chosen):
    with pytest.raises(hpx.InputError, match=r"Sweep.artifacts = .*artifacts="):
        sweep(artifacts=chosen).plan()


def test_a_program_without_artifacts_has_none_to_choose():
    with pytest.raises(hpx.InputError, match="needs a program with artifacts"):
        sweep(PLAIN, artifacts="all")


@pytest.mark.parametrize("changes", [{"width": 7, "devices": 1, "segment": 2}, {"spread": "pmap"}, {"devices": 2}])
def test_where_a_lane_stands_changes_nothing(run, changes):
    found, expected = arrays_of(sweep(**changes).run(progress=False)), arrays_of(run[0])
    assert found.keys() == expected.keys()
    for key in found:
        if "width" not in changes:
            assert found[key] == expected[key]


def test_only_the_first_replicate_has_artifacts_and_all_of_them_rank():
    noisy = dataclasses.replace(
        NOTED,
        init=lambda key, h: {"w": jax.random.normal(key, (3,))},
    )
    result = sweep(noisy, replicates=2, artifacts="best:2").run(progress=False)
    last = {trial.id for trial in result if trial.artifacts and trial.artifacts["w"][-1][0] == 10}
    assert last == {*result.ranking[:2]}
    for trial in result.top(2):
        assert same_bits(trial.artifacts["w"][-1][1], trial.restore(0)["w"])


KINDS = ["halving", "population"]


def with_artifacts(name):
    program = SWEEPS[name].program
    return dataclasses.replace(
        program, artifacts=lambda key, state, split, h: {"w": state["w"], "rate": h.rate, "best": state["best"]}
    )


@pytest.fixture(scope="module", params=KINDS)
def raced(request, tmp_path_factory):
    """A sweep with a scheduler, its program with artifacts, its result, and its directory."""
    name, directory = request.param, tmp_path_factory.mktemp("raced") / "run"
    program = with_artifacts(name)
    return name, program, dataclasses.replace(SWEEPS[name], program=program).run(directory, progress=False), directory


def test_under_a_scheduler_only_live_trials_have_artifacts_with_what_they_trained_by(raced):
    _, _, result, _ = raced
    assert sum(len(trial.artifacts.get("w", [])) for trial in result) > 24
    for trial in result:
        steps = result.curves("step")[trial.id, 0]
        own = [t for t in result.lineage if t.trial == trial.id]
        for step, rate in trial.artifacts.get("rate", []):
            assert step in steps
            by = next((t.hparams for t in reversed(own) if t.step < step), result.first_hparams[trial.id])
            assert same_bits(rate, np.float32(by["rate"]))
        for step, best in trial.artifacts.get("best", []):
            until = result.curves("valid/loss")[trial.id, 0][steps <= step]
            # A clone has the best value of its source, too.
            assert float(best) <= until.min() if own else same_bits(best, until.min().astype(np.float32))


def test_a_run_that_goes_on_has_the_same_files_once(raced, tmp_path):
    name, program, result, directory = raced
    expected = files(directory)
    for after in (7, 16):
        abandon(name, tmp_path / str(after), after, program=program)
        for _ in dataclasses.replace(SWEEPS[name], program=program).events(tmp_path / str(after)):
            pass
        assert files(tmp_path / str(after)) == expected
    assert arrays_of(hpx.load(directory)) == arrays_of(result)


def evaluations(directory):
    """The numbers of the evaluations of which a directory has artifacts."""
    return {int(path.name.split("-")[1]) for path in directory.rglob("*.npz")}


def test_what_was_made_after_the_checkpoint_is_forgotten(tmp_path):
    """The run goes on from an older checkpoint and makes none itself: what is left had been made by then."""
    longer = dataclasses.replace(NOTED, steps=30)
    events = sweep(longer, artifacts="all").events(tmp_path, checkpoint_seconds=0.0)
    for event in events:
        if event.kind == "segment" and event.step == 20:
            break
    events.close()
    assert evaluations(tmp_path) == {0, 1, 2}
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    sweep(longer, artifacts=[]).run(tmp_path, progress=False)
    assert evaluations(tmp_path) == {0, 1}


def test_a_run_that_begins_anew_has_none_of_the_old_ones(tmp_path):
    for _, _ in zip(range(4), sweep(artifacts="all").events(tmp_path, checkpoint_seconds=1e9), strict=False):
        pass
    assert evaluations(tmp_path) == {0}
    sweep(artifacts=[]).run(tmp_path, progress=False)
    assert evaluations(tmp_path) == set()


def test_a_replay_makes_none(run):
    result, directory = run
    before = files(directory)
    assert sweep().replay(result.best).agrees
    assert files(directory) == before


def test_shards_bring_theirs_along(tmp_path):
    whole = sweep(artifacts="all").run(progress=False)
    for number in (1, 2):
        sweep(artifacts="all", shard=(number, 2)).run(tmp_path / str(number), progress=False)
    merged = hpx.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "merged")
    assert arrays_of(merged) == arrays_of(whole)


def test_a_longer_run_has_those_of_a_run_that_was_extended(tmp_path):
    sweep().run(tmp_path / "run", progress=False)
    longer = dataclasses.replace(NOTED, steps=20)
    extended = sweep(longer).run(tmp_path / "run", progress=False, extend=True)
    assert arrays_of(extended) == arrays_of(sweep(longer).run(progress=False))
    assert {step for trial in extended for step, _ in trial.artifacts.get("w", [])} == {5, 10, 15, 20}


def fails(key, state, split, h):
    raise ValueError("no such thing")


def gives_no_dict(key, state, split, h):
    return state["w"]


def gives_a_function(key, state, split, h):
    return {"w": state["w"], "f": {"g": jnp.tanh}}


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (fails, "artifacts=fails failed: ValueError: no such thing (test_artifacts.py:"),
        (gives_no_dict, "must return a dict of name to array"),
        (gives_a_function, "Program.artifacts['f']['g'] = "),
    ],
)
def test_a_function_that_fails_is_told_once_and_ends_nothing(run, function, why):
    failing = sweep(dataclasses.replace(NOTED, artifacts=function))
    (hint,) = [hint for hint in failing.plan().hints if "artifacts" in hint]
    assert why in hint
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = failing.run(progress=False)
    (warning,) = [each for each in told if "artifacts" in str(each.message)]
    assert why in str(warning.message)
    assert same_bits(result.curves("valid/loss"), run[0].curves("valid/loss"))
    assert all(trial.artifacts == {} for trial in result)


def test_a_failure_on_the_host_names_the_line_of_the_user(run):
    def missing(w):
        raise LookupError("no such thing")

    def calls_back(key, state, split, h):
        jax.debug.callback(missing, state["w"])
        return {"w": state["w"]}

    with pytest.warns(RuntimeWarning) as told:
        sweep(dataclasses.replace(NOTED, artifacts=calls_back)).run(progress=False)
    (told,) = {str(each.message) for each in told if "artifacts" in str(each.message)}
    assert told.startswith(
        "artifacts=calls_back failed: a function that the program of group 0 calls on the host fails"
    )
    assert "test_artifacts.py:" in told
    assert "LookupError: no such thing. Group 0 keeps no artifacts" in told


def test_a_disk_that_is_full_ends_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hpjax.results.store.artifacts.ZipFile", full)
    with pytest.warns(RuntimeWarning, match="artifacts cannot be written: .*No space left"):
        result = sweep().run(tmp_path / "run", progress=False)
    assert result.best.artifacts == {}


def test_what_a_complete_trial_keeps_is_in_its_last_artifacts():
    """``finish`` and ``react`` have had their say."""
    program = dataclasses.replace(
        PLAIN,
        react=lambda state, metrics, h: ({"w": state["w"] + 1}, False),
        finish=lambda state, h: {"w": state["w"] * 2},
        artifacts=noted,
    )
    result = sweep(program, artifacts="all").run(progress=False)
    for trial in result.top():
        step, w = trial.artifacts["w"][-1]
        assert (step, same_bits(w, trial.restore()["w"])) == (10, True)
