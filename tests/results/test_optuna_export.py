"""What Optuna reads in the journal of a sweep: values, domains as declared, and names."""

import warnings

import numpy as np
import optuna
import pytest
from click.testing import CliRunner
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import hpjax as hpx
from hpjax.frontends.cli import main
from tests.support.programs import quadratic

SPACE = hpx.Space(
    rate=hpx.LogUniform(1e-3, 10),
    width=hpx.LogInt(2, 64),
    depth=hpx.Int(0, 9),
    shift=hpx.Uniform(-1, 2),
    momentum=hpx.ReverseLogUniform(0.5, 0.99),
    kind=hpx.Choice("a", "b", "1"),
    units=hpx.Choice(8, 16, 0.5),
    flag=hpx.Choice(True, False),
    maybe=hpx.Choice(None, 3),
    layers=hpx.Choice((8,), (8, 8)),
    seed=7,
)


def point(**changes):
    usual = {"rate": 0.1, "width": 4, "depth": 1, "shift": 1.0, "momentum": 0.9, "kind": "a", "units": 8, "flag": True}
    return usual | {"maybe": None, "layers": (8,), "seed": 7} | changes


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    points = [point(rate=rate, depth=depth) for rate, depth in ((0.1, 1), (0.01, 2), (0.002, 3), (0.3, 4))]
    sweep = hpx.Sweep(quadratic(20, 5), SPACE, sampler=hpx.Manual(points), scheduler=hpx.Halving(2, 5), seed=3)
    return sweep.run(tmp_path_factory.mktemp("optuna") / "run", progress=False)


def load(path, name="hpjax"):
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


@pytest.fixture(scope="module")
def study(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "study.log"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result.to_optuna(path, "mine")
    assert [each.name for each in path.parent.iterdir()] == ["study.log"], "neither a lock nor a part stays"
    return load(path, "mine")


def test_pruned_trials_keep_their_last_value(result, study):
    states = [trial.state.name for trial in study.trials]
    assert sorted(states) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    for trial in study.trials:
        rate, steps = trial.params["rate"], max(trial.intermediate_values)
        assert steps == (20 if trial.state.name == "COMPLETE" else result[trial.number].step)
        assert trial.value == pytest.approx((1 - 2 * rate) ** (2 * steps), rel=1e-3)
        assert trial.value == pytest.approx(result.table()["valid/loss"][trial.number])


def test_domains_are_those_that_were_declared(study):
    for trial in study.trials:
        assert trial.distributions == {
            "rate": FloatDistribution(1e-3, 10, log=True),
            "width": IntDistribution(2, 64, log=True),
            "depth": IntDistribution(0, 9),
            "shift": FloatDistribution(-1, 2),
            "momentum": FloatDistribution(0.5, 0.99),
            "kind": CategoricalDistribution(("a", "b", "1")),
            "units": CategoricalDistribution((8, 16, 0.5)),
            "flag": CategoricalDistribution((True, False)),
            "maybe": CategoricalDistribution((None, 3)),
            "layers": CategoricalDistribution(("(8,)", "(8, 8)")),
            "seed": CategoricalDistribution((7,)),
        }


def test_names_and_attributes(study):
    assert (study.study_name, study.metric_names) == ("mine", ["valid/loss"])
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.user_attrs["seed"] == 3
    assert study.user_attrs["scheduler"].startswith("Halving(")
    assert study.trials[0].user_attrs.keys() == {"train/loss", "valid/loss"}


def test_optuna_goes_on_from_it(study):
    study.sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=1)
    trial = study.ask(study.trials[0].distributions)
    assert 1e-3 <= trial.params["rate"] <= 10
    study.tell(trial, 0.5)


def test_alternatives_share_a_domain_that_holds_both(tmp_path):
    space = hpx.Space(rate=hpx.Uniform(0.1, 0.2), kind="a") | hpx.Space(rate=hpx.Uniform(0.15, 0.4), kind="b")
    points = [{"rate": 0.2, "kind": "a"}, {"rate": 0.3, "kind": "b"}]
    hpx.Sweep(quadratic(2, 2), space, sampler=hpx.Manual(points)).run(progress=False).to_optuna(tmp_path / "a.log")
    for trial in load(tmp_path / "a.log").trials:
        assert trial.distributions["rate"] == FloatDistribution(0.1, 0.4)
        assert trial.distributions["kind"] == CategoricalDistribution(("a", "b"))


def test_a_journal_is_whole_or_as_it_was(result, tmp_path, monkeypatch):
    path = tmp_path / "study.log"
    result.to_optuna(path, "first")
    before = path.read_bytes()
    with pytest.raises(hpx.InputError, match=r"is a study in .*study\.log already"):
        result.to_optuna(path, "first")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(optuna.study.Study, "add_trial", interrupted)
        with pytest.raises(KeyboardInterrupt):
            result.to_optuna(path, "second")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["study.log"]
    result.to_optuna(path, "second")
    assert path.read_bytes().startswith(before)
    assert len(load(path, "first").trials) == len(load(path, "second").trials) == 4


def test_the_command_line_names_the_study(result, tmp_path):
    directory, out = str(result._store.directory), str(tmp_path / "a.log")
    done = CliRunner().invoke(main, ["export", directory, "--optuna", "--name", "named", "--out", out])
    assert done.exit_code == 0, done.output
    np.testing.assert_equal(len(load(out, "named").trials), 4)
    done = CliRunner().invoke(main, ["export", directory, "--name", "named", "--out", out])
    assert (done.exit_code, "--name = 'named': needs --optuna" in done.output) == (2, True)
