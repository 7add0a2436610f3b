"""What the README shows runs as it stands, only smaller."""

import dataclasses
import re
from pathlib import Path

import pytest

import hpjax as hpx

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_first_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = BLOCKS[0].replace("trials=256", "trials=4").replace("steps=2_000, eval_every=100", "steps=4, eval_every=2")
    assert small.count("=4") == 2
    names = {}
    exec(small, names)
    assert isinstance(names["result"], hpx.Result)
    assert names["result"].curves("valid/loss").shape == (4, 1, 2)
    assert hpx.load("runs/digits").best.id == names["result"].best.id


def test_the_conditional_space():
    names = {"hpx": hpx}
    exec(BLOCKS[1], names)
    assert names["space"].names == ("learning_rate", "optimizer", "momentum", "b2")


def test_the_search():
    from tests.support.programs import quadratic

    names = {"hpx": hpx, "program": quadratic(800, 50), "space": hpx.Space(rate=hpx.LogUniform(1e-3, 0.4))}
    exec(BLOCKS[2].replace("trials=256, rounds=8", "trials=16, rounds=2"), names)
    result = names["sweep"].run(progress=False)
    assert sorted(result.lane_step[:8, 0].tolist()) == [100] * 6 + [400, 800]


def test_the_loop_of_optuna():
    import optuna

    from tests.support.programs import quadratic

    program = quadratic()

    def step(key, state, batch, h):
        return program.step(key, state, batch, hpx.Hparams({"rate": h.learning_rate}))

    space = hpx.Space(learning_rate=hpx.LogUniform(1e-4, 1))
    sweep = hpx.Sweep(dataclasses.replace(program, step=step), space, trials=1)
    names = {"hpx": hpx, "optuna": optuna, "sweep": sweep}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    exec(BLOCKS[3].replace("range(8)", "range(3)").replace("range(32)", "range(6)"), names)
    assert len(names["study"].trials) == 18
    rate = names["study"].best_params["learning_rate"]
    # As a distance from 1, of which float32 knows 1e-7.
    assert names["study"].best_value ** 0.5 == pytest.approx(abs(1 - 2 * rate) ** 10, rel=1e-3, abs=1e-6)


def test_the_estimator():
    import optax
    from flax import linen as nn
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    names = {"hpx": hpx, "optax": optax, "nn": nn, "X": X[:200] / 16, "y": y[:200]}
    exec(BLOCKS[4].replace("trials=32", "trials=2").replace("steps=500", "steps=50"), names)
    assert names["search"].score(names["X"], names["y"]) > 0.5


def test_the_job_array(tmp_path, monkeypatch):
    """With submitit's executor for this machine in place of Slurm's."""
    submitit = pytest.importorskip("submitit")
    (tmp_path / "sweep.py").write_text(
        "import hpjax as hpx\n"
        "program = hpx.Program(lambda key, h: 0.0, lambda key, w, batch, h: (w + h.rate, {}),"
        " lambda key, w, split, h: {'loss': (w - 1) ** 2}, steps=2)\n"
        "sweep = hpx.Sweep(program, hpx.Space(rate=hpx.LogUniform(0.01, 0.5)), trials=8)\n"
    )
    monkeypatch.chdir(tmp_path)

    class Here:
        """Runs jobs one after the other, in this process."""

        def __init__(self, folder, slurm_max_num_timeout):
            assert slurm_max_num_timeout > 0

        def update_parameters(self, timeout_min, gpus_per_node):
            assert timeout_min > 0

        def submit_array(self, jobs):
            return [Done(job()) for job in jobs]

    class Done:
        def __init__(self, value):
            self.result = lambda: value

    monkeypatch.setattr(submitit, "AutoExecutor", Here)
    exec(BLOCKS[6].replace("width=64", "width=2"), {})
    assert set(hpx.load("runs/a").statuses) == {"complete"}


def test_the_program_of_ones_own(tmp_path, monkeypatch):
    from tests.support.programs import RATES, quadratic

    monkeypatch.chdir(tmp_path)
    toy = quadratic()
    names = {"hpx": hpx, "init": toy.init, "step": toy.step, "evaluate": toy.evaluate, "space": RATES}
    exec(BLOCKS[7], names)
    assert hpx.load("runs/mine").statuses.shape == (64,)


@pytest.mark.slow
def test_the_study_of_the_batch_size(tmp_path, monkeypatch):
    import optax

    monkeypatch.chdir(tmp_path)
    first = BLOCKS[0][: BLOCKS[0].index("space =")]
    names = {"hpx": hpx, "optax": optax}
    exec(first, names)
    small = BLOCKS[5].replace("[16, 64, 256, 1024]", "[64, 256, 1024]").replace("trials=32", "trials=4")
    exec(small, names)
    assert names["study"].batch_sizes == (64, 256, 1024)
    assert len(names["study"].points) == 3
    assert (tmp_path / "scaling.png").exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([\w/.-]+)\)", README.read_text()))))
def test_links_lead_somewhere(link):
    assert (README.parent / link).exists()
