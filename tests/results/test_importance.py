"""Importances of hyperparameters: Optuna's own numbers, and shares of a variance that is known."""

import jax.numpy as jnp
import numpy as np
import optuna
import pytest

import hpjax as hpx
from hpjax.results.importance import ALTERNATIVE

optuna.logging.set_verbosity(optuna.logging.WARNING)


def program(loss):
    """A program without training, whose loss is a function of the key and of h."""

    def evaluate(key, s, d, h):
        return {"loss": loss(key, h), "gain": -loss(key, h)}

    return hpx.Program(lambda key, h: jnp.zeros(()), lambda key, s, b, h: (s, {}), evaluate, steps=1)


SPACE = hpx.Space(a=hpx.Uniform(0, 1), b=hpx.Uniform(0, 1), c=hpx.LogUniform(1e-3, 1), fixed=3.0)


@pytest.fixture(scope="module")
def linear():
    made = program(lambda key, h: 2 * h.a + h.b + 0 * h.c * h.fixed)
    return hpx.Sweep(made, SPACE, trials=128, sampler=hpx.Random(), devices=1).run(progress=False)


def by_name(found):
    return {each.name: each.value for each in found}


def test_they_are_those_of_optuna(linear, tmp_path):
    linear.to_optuna(tmp_path / "study.log")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log")))
    study = optuna.load_study(study_name="hpjax", storage=storage)
    names = ["a", "b", "c"]
    for method, evaluator in (
        ("ped-anova", optuna.importance.PedAnovaImportanceEvaluator()),
        ("fanova", optuna.importance.FanovaImportanceEvaluator(seed=0)),
    ):
        wanted = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
        found = linear.importance(method=method, resamples=0)
        assert by_name(found) == pytest.approx(wanted, rel=1e-9)
        assert [each.name for each in found] == ["a", "b", "c"]
        assert sum(each.value for each in found) == pytest.approx(1)
        assert np.isnan(found[0].low)


def test_shares_of_a_variance_are_found(linear):
    # The variances of 2a and b are 4/12 and 1/12.
    found = by_name(linear.importance(method="fanova", resamples=0))
    assert found == pytest.approx({"a": 0.8, "b": 0.2, "c": 0.0}, abs=0.06)
    assert by_name(linear.importance("valid/gain", "fanova", resamples=0)) == pytest.approx(found, abs=1e-6)
    best = by_name(linear.importance(hpx.maximize("valid/gain"), resamples=0))
    assert best == pytest.approx(by_name(linear.importance(resamples=0)), abs=1e-6)
    worst = by_name(linear.importance(hpx.minimize("valid/gain"), resamples=0))
    assert worst != pytest.approx(best, abs=0.01), "the best tenth is another one"


def test_intervals_grow_with_the_noise_of_replicates():
    def noisy(scale):
        import jax

        made = program(lambda key, h: h.a + h.b + scale * jax.random.normal(key))
        space = hpx.Space(a=hpx.Uniform(0, 1), b=hpx.Uniform(0, 0.3))
        sweep = hpx.Sweep(made, space, 192, replicates=2, randomness="independent", sampler=hpx.Random(), devices=1)
        return sweep.run(progress=False).importance()[0]

    quiet, loud = noisy(0.0), noisy(2.0)
    assert quiet.low <= quiet.value <= quiet.high
    assert loud.high - loud.low > 1.5 * (quiet.high - quiet.low)


def test_which_alternative_has_a_share_and_each_hyperparameter_that_of_its_own():
    """Of one alternative the loss is x + 3, of the other y, both with values from 0 to 1."""
    space = (hpx.Space(x=hpx.Uniform(0, 1)) & hpx.Space(z=hpx.Uniform(0, 1))) | hpx.Space(y=hpx.Uniform(0, 1))
    made = program(lambda key, h: h.x + 3.0 + 0 * h.z if "x" in h else h.y)
    result = hpx.Sweep(made, space, trials=128, sampler=hpx.Random(), devices=1).run(progress=False)
    found = by_name(result.importance(method="fanova", resamples=0))
    has = np.array(["x" in hparams for hparams in result.hparams])
    loss = result.last("valid/loss")[:, 0]
    within = {"x": has.mean() * loss[has].var(), "y": (~has).mean() * loss[~has].var()}
    assert found[ALTERNATIVE] == pytest.approx(1 - sum(within.values()) / loss.var(), abs=1e-6)
    assert found["y"] == pytest.approx(within["y"] / loss.var(), abs=1e-6), "alone in its alternative"
    assert found["x"] + found["z"] == pytest.approx(within["x"] / loss.var(), abs=1e-6)
    assert found["z"] < 0.05 * found["x"]
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"metric": "valid/los"}, r"importance\.metric = 'valid/los'.*Did you mean 'valid/loss'"),
        ({"metric": "valid/gain"}, r"must say which of its values are best.*hpx\.minimize\(.valid/gain.\)"),
        ({"method": "anova"}, r"importance\.method = 'anova'"),
        ({"resamples": -1}, r"importance\.resamples = -1"),
    ],
)
def test_what_cannot_be_asked_is_named(linear, asked, named):
    with pytest.raises(hpx.InputError, match=named):
        linear.importance(**asked)


@pytest.mark.parametrize("space", [hpx.Space(a=0.5, b=0.5), hpx.Space(a=hpx.Uniform(0, 1), b=0.5)])
def test_too_little_to_say_is_told(space):
    made = program(lambda key, h: h.a + h.b)
    trials = 16 if space.dimensions == () else 7
    result = hpx.Sweep(made, space, trials=trials, devices=1).run(progress=False)
    with pytest.raises(hpx.InputError, match="must have 8 or more complete trials, and a hyperparameter that varies"):
        result.importance()


def test_a_choice_and_a_constant_loss_have_shares():
    space = hpx.Space(kind=hpx.Choice("p", "q", "r"), a=hpx.Uniform(0, 1))
    flat = hpx.Sweep(program(lambda key, h: 0 * h.a), space, trials=12, devices=1).run(progress=False)
    assert by_name(flat.importance()) == {"kind": 0.0, "a": 0.0}
    kinds = hpx.Sweep(program(lambda key, h: {"p": 0.0, "q": 1.0, "r": 2.0}[h.kind] + 0 * h.a), space, trials=48)
    assert by_name(kinds.run(progress=False).importance(method="fanova", resamples=0))["kind"] > 0.95
