"""Settings of JAX: those that decide bits are of the run, and those that would end it are off while it computes."""

import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.core.errors import InputError, RunError
from hpjax.core.fallback import warn_once
from hpjax.engine import settings
from hpjax.engine.settings import DECIDING, SWITCHES, deciding_settings, switched_on


@contextmanager
def setting(name, value):
    """``jax.config`` with another value, as a user sets it."""
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def sweep():
    """Of gradient descent on (w - 1)², which ends at 0 with the rate 0.1 and diverges with 50; and of a random walk."""

    def step(key, state, batch, h):
        w, walk = state
        return (w - h.rate * 2 * (w - 1), walk + jax.random.normal(key, (2, 3)).sum()), {}

    def evaluate(key, state, split, h):
        return {"loss": (state[0] - 1) ** 2, "walk": state[1]}

    program = hpx.Program(
        lambda key, h: (jnp.zeros(()), jnp.zeros(())),
        step,
        evaluate,
        steps=60,
        eval_every=10,
        data=hpx.Data(np.zeros(1), np.zeros(1), np.zeros(1)),
        predict=lambda state, x, h: x * state[0],
    )
    return hpx.Sweep(program, hpx.Space(rate=hpx.Choice(0.1, 50.0)), sampler=hpx.Grid())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("settings") / "run"
    return directory, sweep().run(directory, progress=False)


ON = {name: "disallow" if name.startswith("transfer") else True for name in SWITCHES}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_of_jax_ends_no_sweep(name, finished):
    """One lane diverges, and the other has the bits that it has without the switch."""
    _, result = finished
    given = sweep()
    with setting(f"jax_{name}", ON[name]):
        with pytest.warns(RuntimeWarning, match=f"jax_{name}: off while the sweep traces") as told:
            found = given.run(progress=False)
        assert sum("off while the sweep" in str(each.message) for each in told) == 1
        assert any(f"jax_{name}" in hint for hint in given.plan().hints)
        assert getattr(jax.config, f"jax_{name}") == ON[name]
        assert found.test() == result.test()
        np.testing.assert_array_equal(found.best.predict(np.ones(2)), result.best.predict(np.ones(2)))
    assert found.statuses.tolist() == ["complete", "diverged"]
    assert found.curves("valid/walk").tobytes() == result.curves("valid/walk").tobytes()


def test_strict_promotion_of_dtypes_changes_nothing():
    """Nothing of hpjax's own adds a float to an integer, in training, in evaluations or in the search."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    program = hpx.supervised(
        model=nn.Dense(3),
        optimizer=lambda h: optax.sgd(h.rate),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=hpx.data.from_arrays(x, np.arange(40) % 3),
        metrics={"accuracy": hpx.metrics.accuracy},
        split_metrics={"f1": hpx.metrics.f1},
        weights=lambda y: y.astype(np.float32) + 1,
        monitor=["gradient_norm", "update_ratio"],
        penalty=lambda params, h: hpx.losses.l2(params),
        batch_size=8,
        eval_batch_size=4,
        steps=4,
    )
    space = hpx.Space(rate=hpx.LogUniform(0.01, 1.0))
    search = hpx.Sweep(program, space, trials=4, rounds=2, sampler=hpx.Bayes(initial=2), folds=3)
    plain = search.run(progress=False)
    with setting("jax_numpy_dtype_promotion", "strict"):
        strict = search.run(progress=False)
    assert strict.hparams == plain.hparams
    for name in plain.metrics:
        assert strict.curves(name).tobytes() == plain.curves(name).tobytes()


def test_a_switch_is_as_it_was_between_events():
    with setting("jax_debug_nans", True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for event in sweep().events():
            assert switched_on() == ["jax_debug_nans"]
            if event.kind == "segment":
                break
    assert switched_on() == []
    assert not [hint for hint in sweep().plan().hints if "off while" in hint]


def test_what_cannot_be_switched_off_is_refused_before_a_compile():
    with setting("jax_error_checking_behavior_nan", "raise"), pytest.raises(InputError) as refused:
        sweep().plan()
    assert 'jax.config.update("jax_error_checking_behavior_nan", "ignore")' in str(refused.value)


OTHERWISE = {
    "jax_threefry_partitionable": False,
    "jax_default_matmul_precision": "highest",
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_random_seed_offset": 7,
}


# The older order of counters is drawn more slowly, as tests/core/test_threefry.py has it.
slower = pytest.mark.filterwarnings("ignore:threefry")


@slower
@pytest.mark.parametrize("name", OTHERWISE)
def test_a_run_does_not_go_on_under_another_setting(name, finished):
    """Not to its end, nor to be read as a run of this sweep, replayed, tested or for predictions."""
    directory, result = finished
    there = result.manifest.sweep.settings[name]
    typed = rf"jax.config.update\('{name}', {there!r}\)"
    with setting(name, OTHERWISE[name]):
        for use in (
            lambda: sweep().run(directory, progress=False),
            lambda: sweep().models(hpx.load(directory)),
            lambda: sweep().replay(result.best),
            lambda: result.best.predict(np.ones(2)),
        ):
            with pytest.raises(RunError, match=typed):
                use()
    assert len(sweep().run(directory, progress=False)) == 2


@slower
def test_an_interrupted_run_has_the_bits_of_one_setting(tmp_path):
    whole = sweep().run(progress=False).curves("valid/walk")
    with setting("jax_threefry_partitionable", False):
        other = sweep().run(progress=False).curves("valid/walk")
    assert whole.tobytes() != other.tobytes()
    events = sweep().events(tmp_path / "run", checkpoint_seconds=0)
    for _ in range(4):
        next(events)
    events.close()
    with setting("jax_threefry_partitionable", False), pytest.raises(RunError, match="jax_threefry_partitionable"):
        sweep().run(tmp_path / "run", progress=False)
    assert sweep().run(tmp_path / "run", progress=False).curves("valid/walk").tobytes() == whole.tobytes()


def test_the_manifest_has_the_settings_that_decide(finished):
    assert finished[1].manifest.sweep.settings == deciding_settings()
    assert deciding_settings().keys() == {*DECIDING}
    assert deciding_settings()["jax_numpy_dtype_promotion"] == "standard"


def test_a_setting_that_jax_has_no_more_is_told_once_and_stops_nothing(monkeypatch):
    class Config:
        def __getattr__(self, name):
            if name in ("jax_softmax_custom_jvp", "jax_debug_infs"):
                raise AttributeError(name)
            return getattr(jax.config, name)

    warn_once.cache_clear()
    monkeypatch.setattr(settings, "jax", SimpleNamespace(config=Config(), __version__="0.99"))
    with pytest.warns(RuntimeWarning, match=r"^jax_\w+: jax 0.99 has no such setting") as caught:
        found = [(deciding_settings(), switched_on()) for _ in range(2)]
    assert [str(each.message).split(":")[0] for each in caught] == ["jax_softmax_custom_jvp", "jax_debug_infs"]
    monkeypatch.undo()
    assert found == 2 * [(deciding_settings() | {"jax_softmax_custom_jvp": None}, [])]
