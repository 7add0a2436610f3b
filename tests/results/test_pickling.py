"""Results cross the borders of processes: they pickle whatever functions their programs are made of."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.studies import BatchScalingResult

SPACE = hpx.Space(
    rate=hpx.Uniform(0.1, 0.4),
    flag=hpx.Choice(True, False),
    act=hpx.Choice(jax.nn.relu, lambda x: -x),
    batch_size=hpx.Choice(1, 2),
)


def program(scale):
    """A program of closures, with a typed key and a function in its state: nothing of it pickles."""
    return hpx.Program(
        lambda key, h: {"w": jnp.zeros(3), "key": key, "act": h.act},
        lambda key, s, b, h: (s | {"w": s["w"] + scale * h.rate}, {"loss": s["w"].mean()}),
        lambda key, s, d, h: {"loss": s["w"].mean()},
        hpx.Data(np.zeros(2), np.zeros(2), np.zeros(2)),
        steps=4,
        eval_every=2,
        predict=lambda s, x, h: s["act"](x) * s["w"][0],
    )


@pytest.fixture(scope="module", params=["memory", "directory"])
def trained(request, tmp_path_factory):
    sweep = hpx.Sweep(program(2.0), SPACE, trials=6, replicates=2)
    directory = tmp_path_factory.mktemp("pickled") / "run" if request.param == "directory" else None
    return sweep, sweep.run(directory, progress=False)


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


def test_a_result_pickles_with_its_trials(trained):
    _, result = trained
    result.test()
    again = pickled(result)
    assert (repr(again), again.ranking, again.hparams) == (repr(result), result.ranking, result.hparams)
    assert (again.manifest, again.compile_seconds, again.tested) == (
        result.manifest,
        result.compile_seconds,
        result.tested,
    )
    for name, column in result.table().items():
        np.testing.assert_array_equal(again.table()[name], column)
    for metric in ("step", *result.metrics):
        assert again.curves(metric).tobytes() == result.curves(metric).tobytes()
    for name, array in result.best.restore(1).items():
        np.testing.assert_array_equal(again.best.restore(1)[name], array)
    np.testing.assert_allclose(again.best.restore()["w"], 8 * again.best.hparams["rate"], rtol=1e-6)
    assert again.test() == result.test(), "what was tested before"
    assert repr(pickled(again)) == repr(copy.deepcopy(again)) == repr(result)


def test_the_copy_says_what_needs_the_program(trained):
    sweep, result = trained
    again = pickled(result)
    with pytest.raises(hpx.RunError, match=r"predict\(\) needs the program.* Or write sweep.models\(result\)"):
        again.best.predict(np.ones((1, 2)))
    x = np.linspace(-1, 1, 4).astype(np.float32)
    np.testing.assert_array_equal(sweep.models(again).predictor(1)(x), result[1].predict(x))
    np.testing.assert_array_equal(
        sweep.models(again).predictor(1)(x), result[1].predict(x), "and the first one still can"
    )


def test_a_trial_pickles(trained):
    _, result = trained
    again = pickled(result[3])
    assert repr(again) == repr(result[3])
    np.testing.assert_array_equal(again.restore()["w"], result[3].restore()["w"])


def test_a_plan_and_an_answer_pickle(trained):
    sweep, result = trained
    plan = sweep.plan()
    assert str(pickled(plan)) == str(plan)
    assert [point["act"] for point in pickled(plan).points] == [hparams["act"] for hparams in result.hparams]
    answer = BatchScalingResult.read(hpx.Sweep(program(-1.0), SPACE, trials=6).run(progress=False), target=-0.5)
    assert str(pickled(answer)) == str(answer)
    assert pickled(answer).points == answer.points


def test_without_its_directory_a_copy_has_all_but_the_states(trained, tmp_path):
    sweep, _ = trained
    result = hpx.Sweep(sweep.program, SPACE, trials=6, replicates=2).run(tmp_path / "run", progress=False)
    content = pickle.dumps(result)
    (tmp_path / "run").rename(tmp_path / "moved")
    again = pickle.loads(content)
    assert repr(again) == repr(result)
    with pytest.raises(
        hpx.RunError, match=f"state of trial {again.best.id} is missing: there is no .*/run/states/wave-"
    ):
        again.best.restore()


def _summary(result):
    return repr(result), result.best.restore()["w"]


def test_through_a_process_pool(trained):
    _, result = trained
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        text, w = pool.submit(_summary, result).result(timeout=120)
    assert text == repr(result)
    np.testing.assert_array_equal(w, result.best.restore()["w"])
