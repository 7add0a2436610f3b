"""Artifacts of supervised programs against a plain Flax model that is applied to the restored state."""

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key, step_key
from tests.support.compare import same_bits
from tests.support.programs import SPACE, Net, blobs, classifier

DATA = blobs()


def everything(params, stats, x, y, outputs, key, h):
    return {
        "outputs": outputs,
        "kernel": params["Dense_0"]["kernel"],
        "mean": stats["batch_stats"]["BatchNorm_0"]["mean"],
        "x": x,
        "y": y,
        "noise": jax.random.normal(key, (2,)),
        "rate": h.learning_rate,
    }


def trained(artifacts=everything, changes=None, **settings):
    program = classifier(**{"data": DATA, "artifacts": artifacts} | (changes or {}))
    settings = {"trials": 2, "artifacts": "all"} | settings
    return hpx.Sweep(program, hpx.Space(learning_rate=0.1, momentum=hpx.Uniform(0.1, 0.9)), **settings).run(
        progress=False
    )


def last(trial):
    return {name: found[-1][1] for name, found in trial.artifacts.items()}


@pytest.fixture(scope="module")
def trial():
    return trained().best


def test_they_are_those_of_a_plain_evaluation(trial):
    found, state = last(trial), trial.restore()
    plain = Net().apply({"params": state["params"], **state["stats"]}, DATA.valid.x, train=False)
    np.testing.assert_allclose(found["outputs"], plain, rtol=1e-5, atol=1e-6)
    assert same_bits(found["kernel"], state["params"]["Dense_0"]["kernel"])
    assert same_bits(found["mean"], state["stats"]["batch_stats"]["BatchNorm_0"]["mean"])
    assert same_bits(found["x"], DATA.valid.x)
    assert same_bits(found["y"], DATA.valid.y)
    assert found["rate"] == np.float32(0.1)
    assert [step for step, _ in trial.artifacts["outputs"]] == [7, 14, 21]


def test_the_loss_of_the_outputs_is_the_loss_that_was_reported(trial):
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(outputs, DATA.valid.y).mean()
        for _, outputs in trial.artifacts["outputs"]
    ]
    np.testing.assert_allclose(losses, trial.curve("valid/loss")[0], rtol=1e-5)


def test_the_key_is_that_of_the_evaluation(trial):
    for step, noise in trial.artifacts["noise"]:
        key = jax.random.fold_in(step_key(purpose_key(lane_key(0, 0), "artifacts"), step), 0)
        assert same_bits(noise, jax.random.normal(key, (2,)))


def test_outputs_are_of_all_examples_whatever_is_computed_at_once(trial):
    found = last(trained(lambda outputs: {"outputs": outputs}, {"eval_batch_size": 4})[trial.id])
    np.testing.assert_allclose(found["outputs"], last(trial)["outputs"], rtol=1e-5, atol=1e-6)


def test_with_folds_they_are_of_the_first_one():
    result = trained(lambda y, outputs: {"y": y, "outputs": outputs}, folds=4)
    found, examples = last(result.best), len(DATA.train.y) + len(DATA.valid.y)
    assert len(found["outputs"]) == len(found["y"]) == -(-examples // 4)
    losses = optax.softmax_cross_entropy_with_integer_labels(found["outputs"], found["y"])
    np.testing.assert_allclose(losses.mean(), result.best.curve("valid/loss")[0, -1], rtol=1e-5)


def test_several_sets_come_by_name():
    valid = {"clean": DATA.valid, "shifted": hpx.data.Examples(DATA.valid.x + 1, DATA.valid.y)}
    result = trained(
        lambda x, outputs: {"x": x, "outputs": outputs},
        {"data": hpx.Data(DATA.train, valid)},
        objective=hpx.minimize("valid/clean/loss"),
    )
    found = last(result.best)
    assert sorted(found) == ["outputs/clean", "outputs/shifted", "x/clean", "x/shifted"]
    assert same_bits(found["x/shifted"], DATA.valid.x + 1)


def test_they_are_of_the_parameters_that_evaluations_use():
    result = trained(lambda params: {"kernel": params["Dense_0"]["kernel"]}, {"average": 0.9})
    state = result.best.restore()
    assert same_bits(last(result.best)["kernel"], state["average"]["Dense_0"]["kernel"])
    assert not same_bits(state["average"]["Dense_0"]["kernel"], state["params"]["Dense_0"]["kernel"])


def test_frozen_parameters_are_among_the_parameters():
    model = Net()
    given = model.init(jax.random.key(0), DATA.valid.x, train=False)
    changes = {"init_from": given, "frozen": "Dense_0/*"}
    result = trained(lambda params, outputs: {"kernel": params["Dense_0"]["kernel"], "outputs": outputs}, changes)
    found, state = last(result.best), result.best.restore()
    assert same_bits(found["kernel"], given["params"]["Dense_0"]["kernel"])
    plain = model.apply({"params": state["params"], **state["stats"]}, DATA.valid.x, train=False)
    np.testing.assert_allclose(found["outputs"], plain, rtol=1e-5, atol=1e-6)


def test_convolutions_are_those_of_training():
    class Conv(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.max_pool(nn.relu(nn.Conv(2, (3, 3))(x)), (2, 2), (2, 2))
            return nn.Dense(3)(x.reshape(len(x), -1))

    x = np.random.default_rng(0).normal(size=(40, 4, 4, 1)).astype(np.float32)
    data = hpx.data.from_arrays(x, np.arange(40) % 3)
    result = trained(lambda outputs: {"outputs": outputs}, {"model": Conv(), "data": data, "steps": 2, "eval_every": 2})
    plain = Conv().apply({"params": result.best.restore()["params"]}, data.valid.x)
    np.testing.assert_allclose(last(result.best)["outputs"], plain, rtol=1e-5, atol=1e-6)


def test_microbatches_change_nothing():
    changes = {"batch_size": 16, "microbatch": 8}
    result = trained(lambda outputs: {"outputs": outputs}, changes)
    assert len(result.best.artifacts["outputs"]) == len(result.best.curve("valid/loss")[0])


@pytest.mark.parametrize("given", ["samples", lambda image: {"image": image}, lambda x, /: {"x": x}])
def test_what_takes_something_else_is_refused(given):
    allowed = "must be a function that takes some of params, stats, x, y, outputs, key, h by these names"
    with pytest.raises(hpx.InputError, match=f"supervised.artifacts = .*{allowed}"):
        classifier(artifacts=given)


def test_defaults_and_further_keywords_stay_the_functions_own():
    result = trained(lambda y, scale=2, **more: {"y": y * scale, "more": len(more)})
    assert same_bits(last(result.best)["y"], DATA.valid.y * 2)
    assert last(result.best)["more"] == 0


def test_the_program_says_which_function_failed():
    def broken(outputs):
        return {"first": outputs[0, 0, 0]}

    program = classifier(artifacts=broken)
    (hint,) = [hint for hint in hpx.Sweep(program, SPACE, trials=2).plan().hints if "artifacts" in hint]
    assert hint.startswith("artifacts=broken failed: IndexError")
    assert "test_artifacts.py" in hint
