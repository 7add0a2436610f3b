"""Law 7. NaN, infinities and errors are one lane's own: it is recorded with its step, its neighbours keep every bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from tests.support.compare import same_bits
from tests.support.counting import compilations
from tests.support.programs import blobs, classifier

WIDTH = 4
KINDS = ("fine", "loss", "gradient", "unread", "metric NaN", "metric Inf", "batch", "train metric", "unlucky")
# Ten numbers for each kind, so that a population that explores its good members moves none of them to another kind.
APART = 10
SPACE = hpx.Space(rate=hpx.Uniform(0, 1), bad=hpx.Int(0, APART * len(KINDS) - 1, traced=True))
START, STEPS, EVERY = 5, 12, 4
COLUMN = np.where(np.arange(20) == 8 + START, np.nan, 0).astype(np.float32)


def program(**changes):
    """Noisy descent on (w − 1)² that goes wrong from step START on, in the way of the lane's kind."""

    def is_(h, kind):
        return h.bad // APART == KINDS.index(kind)

    def init(key, h):
        return {
            "params": {"w": jnp.zeros(3), "unread": jnp.ones(2), "count": jnp.int32(0)},
            "step": jnp.int32(0),
            "luck": jax.random.uniform(key),
        }

    def step(key, state, batch, h):
        params, begun = state["params"], state["step"] >= START - 1

        def loss(w):
            # The derivative of a root is infinite at 0; where one is asked for.
            return ((w - 1) ** 2).mean() + jnp.sqrt(jnp.where(is_(h, "gradient") & begun, 0 * w.sum(), 1.0))

        gradient = jax.grad(loss)(params["w"]) + 0.1 * jax.random.normal(key, (3,))
        gradient += jnp.where(is_(h, "batch"), batch, 0)
        w = params["w"] - h.rate * gradient
        lost = is_(h, "loss") | is_(h, "unlucky") & (state["luck"] < 0.5)
        value = jnp.where(lost & begun, jnp.nan, ((w - 1) ** 2).mean())
        unread = jnp.where(is_(h, "unread") & begun, jnp.nan, params["unread"])
        other = jnp.where(is_(h, "train metric") & begun, jnp.inf, 1.0)
        params = {"w": w, "unread": unread, "count": params["count"] + 1}
        return state | {"params": params, "step": state["step"] + 1}, {"loss": value, "other": other}

    def evaluate(key, state, split, h):
        late = state["step"] >= START
        nan, inf = is_(h, "metric NaN") & late, is_(h, "metric Inf") & late
        loss = ((state["params"]["w"] - 1) ** 2).mean()
        return {"loss": loss, "other": jnp.where(nan, jnp.nan, jnp.where(inf, -jnp.inf, loss))}

    made = hpx.Program(
        init,
        step,
        evaluate,
        hpx.Data(COLUMN, COLUMN),
        lambda key, step, train, h: jnp.asarray(train)[step + 9],  # the NaN comes at step START
        steps=STEPS,
        eval_every=EVERY,
        parameters=lambda state: state["params"],
    )
    return dataclasses.replace(made, **changes)


PROGRAM = program()


def run(bad, made=PROGRAM, **changes):
    """Six trials, of which some are of these bad kinds by their ids."""
    points = [{"rate": 0.05 * (i + 1), "bad": APART * KINDS.index(bad.get(i, "fine"))} for i in range(6)]
    arguments = {"sampler": hpx.Manual(points), "width": WIDTH, "replicates": 2} | changes
    return hpx.Sweep(made, SPACE, **arguments).run(progress=False)


def untouched(found, expected, bad=()):
    """All trials but the bad ones have the bits of the other run."""
    others = [trial for trial in range(len(expected)) if trial not in bad]
    for metric in ("step", *expected.metrics):
        assert same_bits(found.curves(metric)[others], expected.curves(metric)[others])
    assert np.array_equal(found.lane_status[others], expected.lane_status[others])
    assert np.array_equal(found.lane_step[others], expected.lane_step[others])
    for trial in others:
        for replicate in np.flatnonzero(expected.lane_status[trial] != "diverged").tolist():
            leaves = [[leaf for _, leaf in result.leaves(trial, replicate)] for result in (found, expected)]
            assert all(map(same_bits, *leaves))


@pytest.fixture(scope="module")
def good():
    result = run({})
    assert (result.lane_status == "complete").all()
    return result


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("loss", START),
        ("train metric", START),
        ("gradient", START),  # its loss is of the weights after the step
        ("batch", START),
        # What only an evaluation sees is of the step at which it looks.
        ("unread", 2 * EVERY),
        ("metric NaN", 2 * EVERY),
        ("metric Inf", 2 * EVERY),
    ],
)
def test_a_bad_lane_is_recorded_with_its_step_and_its_neighbours_keep_every_bit(kind, step, good):
    found = run({2: kind})
    assert found.lane_status[2].tolist() == ["diverged", "diverged"]
    assert found.lane_step[2].tolist() == [step, step]
    untouched(found, good, bad=[2])
    assert found.ranking == [trial for trial in good.ranking if trial != 2]
    # What it measured while it was well stays.
    assert same_bits(found.curves("valid/loss")[2, :, 0], good.curves("valid/loss")[2, :, 0])
    assert np.isnan(found.curves("valid/loss")[2, :, 1:]).all()


def test_one_of_each_at_once(good):
    bad = {0: "batch", 1: "gradient", 3: "unread", 5: "metric Inf"}
    found = run(bad)
    assert found.lane_step[[0, 1, 3, 5], 0].tolist() == [START, START, 2 * EVERY, 2 * EVERY]
    untouched(found, good, bad=bad)


def test_the_last_step_counts_too():
    """A parameter that turns NaN after the last evaluation but one, and that no metric shows."""
    made = program(steps=START, eval_every=None)
    found = run({2: "unread"}, made)
    assert found.statuses.tolist() == ["complete"] * 2 + ["diverged"] + ["complete"] * 3
    assert found[2].step == START


def test_of_a_program_that_does_not_name_its_parameters_metrics_decide(good):
    """Its state may hold infinities on purpose."""
    plain = hpx.Program(
        PROGRAM.init, PROGRAM.step, PROGRAM.evaluate, PROGRAM.data, PROGRAM.batch, steps=STEPS, eval_every=EVERY
    )
    found = run({2: "unread"}, plain)
    assert (found.statuses == "complete").all()
    assert np.isnan(found[2].restore()["params"]["unread"]).all()
    untouched(found, good, bad=[2])


def test_all_lanes_bad():
    found = run(dict.fromkeys(range(6), "loss"))
    assert (found.lane_status == "diverged").all()
    assert (found.lane_step == START).all()
    with pytest.raises(hpx.RunError, match="all 6 diverged, the first at step 5"):
        _ = found.best


@pytest.mark.parametrize("kind", ["batch", "unread"])
def test_a_bad_lane_under_halving(kind):
    """It diverges at step 5 or 8, after the first decision and before the second: an enemy less, and no bits."""
    scheduler = hpx.Halving(factor=2, min_steps=EVERY)
    arguments = {"scheduler": scheduler, "segment": 2}
    expected = run({}, **arguments)
    winner = expected.best.id
    found = run({winner: kind}, **arguments)
    assert found[winner].status == "diverged"
    assert winner not in found.ranking
    # Those that the first decision stopped; behind it other trials go on in place of the one that is lost.
    first = np.flatnonzero(expected.lane_step[:, 0] == EVERY).tolist()
    assert len(first) == 3
    for trial in first:
        assert found.lane_step[trial].tolist() == [EVERY, EVERY]
        assert same_bits(found[trial].restore(1)["params"]["w"], expected[trial].restore(1)["params"]["w"])
    (second,) = [trial for trial in found.ranking if found[trial].step == STEPS]
    alone = run({})  # what survives has the bits that it has without a scheduler
    assert same_bits(found[second].restore()["params"]["w"], alone[second].restore()["params"]["w"])


def test_a_bad_member_of_a_population_begins_again_from_a_good_one():
    scheduler = hpx.PBT(every=EVERY, share=0.01)  # one at each decision
    expected = run({}, scheduler=scheduler)
    found = run({2: "batch"}, scheduler=scheduler)
    assert [clone.trial for clone in found.lineage if clone.step == 2 * EVERY][:1] == [2]
    assert np.isnan(found.curves("valid/loss")[2, :, 1]).all(), "the evaluation at which it was lost"
    others = [trial for trial in range(6) if trial not in {t.trial for r in (found, expected) for t in r.lineage}]
    assert len(others) == 3
    assert same_bits(found.curves("valid/loss")[others], expected.curves("valid/loss")[others])
    for trial in others:
        assert same_bits(found[trial].restore(1)["params"]["w"], expected[trial].restore(1)["params"]["w"])


def test_one_replicate_of_a_trial_is_bad():
    """The other replicates of the trial go on and keep their bits; the trial ranks no more."""
    lanes = [hpx.keys.purpose_key(hpx.keys.lane_key(0, replicate), "init") for replicate in range(4)]
    unlucky = np.array([float(jax.random.uniform(key)) < 0.5 for key in lanes])
    assert 0 < unlucky.sum() < 4
    expected, found = run({}, replicates=4), run({2: "unlucky"}, replicates=4)
    assert found.lane_status[2].tolist() == ["diverged" if bad else "complete" for bad in unlucky]
    assert found.lane_step[2].tolist() == [START if bad else STEPS for bad in unlucky]
    assert same_bits(found.curves("valid/loss")[2, ~unlucky], expected.curves("valid/loss")[2, ~unlucky])
    assert 2 not in found.ranking
    untouched(found, expected, bad=[2])


# Metrics of NumPy on the host.


MODEL = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-1), momentum=hpx.Uniform(0, 0.9))


def accuracy(outputs, y):
    assert isinstance(outputs, np.ndarray)
    return (outputs.argmax(-1) == y).astype(np.float64)


def test_a_metric_of_numpy_is_what_jax_computes():
    """On four devices, in training and in evaluation, of several parts and with folds."""
    metrics = {"own": hpx.metrics.on_host(accuracy), "accuracy": hpx.metrics.accuracy}
    made = classifier(model=nn.Dense(3), metrics=metrics, eval_batch_size=7)
    for changes in ({"replicates": 2}, {"folds": 2, "randomness": "independent"}):
        result = hpx.Sweep(made, MODEL, trials=5, width=2, **changes).run(progress=False)
        assert len(result.manifest.plan) > 0
        for split in ("train", "valid"):
            own = result.curves(f"{split}/own")
            assert not np.isnan(own).any()
            assert same_bits(own, result.curves(f"{split}/accuracy"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_large_batches_do_not_hang(dtype):
    """jax.pure_callback copies arguments of more than 100 KiB with threads that may all be waiting in a callback."""
    made = classifier(
        model=nn.Dense(2000, param_dtype=dtype, dtype=dtype),
        optimizer=lambda h: optax.sgd(h.learning_rate),
        metrics={"own": hpx.metrics.on_host(lambda outputs, y: np.float32(outputs).max(-1))},
        batch_size=54,
        steps=6,
        eval_every=6,
    )
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-1))
    result = hpx.Sweep(made, space, trials=16, width=2).run(progress=False)
    for replicate, outputs in enumerate(result[3].predict(blobs().valid.x)):
        assert result.last("valid/own")[3, replicate] == pytest.approx(np.float32(outputs).max(-1).mean(), rel=1e-2)


def fragile(outputs, y):
    if np.abs(outputs).max() > 50:
        raise ZeroDivisionError("too\nlarge")
    return np.float64(1.0)


def test_an_error_in_a_metric_is_one_lane_s_own_and_told_once():
    """On four devices; the one large learning rate makes outputs large, but finite at first."""
    made = classifier(
        model=nn.Dense(3), optimizer=lambda h: optax.sgd(h.learning_rate), metrics={"own": hpx.metrics.on_host(fragile)}
    )
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e3))
    rates = [0.01, 0.02, 0.03, 100.0, 0.04, 0.05, 200.0, 0.06]

    def trained(rates):
        sampler = hpx.Manual([{"learning_rate": rate} for rate in rates])
        return hpx.Sweep(made, space, sampler=sampler, width=2, devices=4, replicates=2).run(progress=False)

    with pytest.warns(RuntimeWarning) as caught:
        found = trained(rates)
    assert [str(warning.message) for warning in caught] == [
        "metric fragile fails: ZeroDivisionError: too\nlarge. Lanes in which it fails count as diverged."
    ]
    assert (caught[0].filename, caught[0].lineno) == (__file__, fragile.__code__.co_firstlineno + 2)
    assert np.flatnonzero(found.statuses == "diverged").tolist() == [3, 6]
    assert found.lane_step[[3, 6]].max() < 21
    expected = trained([0.1 if rate >= 100 else rate for rate in rates])
    assert (expected.statuses == "complete").all()
    untouched(found, expected, bad=[3, 6])


def test_a_metric_of_the_wrong_shape_is_told():
    metric = hpx.metrics.on_host(lambda outputs, y: np.zeros(3))
    with pytest.warns(RuntimeWarning, match=r"ValueError: it returned shape \[3\], and must return \[\] or \[2\]"):
        assert np.isnan(metric(jnp.zeros((2, 3)), jnp.zeros(2))).all()


# Errors while the program is traced, before anything compiles.


def picky(outputs, y):
    raise KeyError("in the user's code")


def shared(h):
    return {"own": picky} if h.kind == "bad" else {"own": hpx.metrics.accuracy}


def penalized(params, h):
    raise KeyError("in the user's code")


CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
KIND = MODEL & hpx.Space(kind=hpx.Choice("good", "bad"))


@pytest.mark.parametrize(
    ("changes", "space", "name"),
    [
        ({"metrics": {"own": picky}}, MODEL, "supervised.own"),
        ({"loss": picky}, MODEL, "supervised.loss"),
        ({"penalty": penalized}, MODEL, "supervised.penalty"),
        ({"augment": lambda key, batch, h: picky(batch, h)}, MODEL, "supervised.augment"),
        ({"metrics": shared}, KIND, "supervised.own"),
        (
            {"loss": lambda h: picky if h.kind == "bad" else optax.softmax_cross_entropy_with_integer_labels},
            KIND,
            "supervised.loss",
        ),
        ({"penalty": lambda params, h: penalized(params, h) if h.kind == "bad" else 0.0}, KIND, "supervised.penalty"),
        ({"augment": lambda key, batch, h: picky(batch, h) if h.kind == "bad" else batch}, KIND, "supervised.augment"),
    ],
)
def test_an_error_of_a_user_s_function_is_named_before_anything_compiles(changes, space, name):
    sweep = hpx.Sweep(classifier(model=nn.Dense(3), **changes), space, trials=8)
    with compilations() as programs, pytest.raises(hpx.ProgramError) as caught:
        sweep.run(progress=False)
    assert programs == []
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{name} fails:"
    assert lines[-2].startswith("  test_bad_members.py:")
    assert lines[-2].endswith(""": raise KeyError("in the user's code")""")
    assert lines[-1] == """  KeyError: "in the user's code\""""
    assert caught.value.__cause__ is None


# Errors of a user's own callback, while a segment runs.


class Switch:
    """Whether the callback below fails."""

    on = False


def watched(step):
    if Switch.on and step > 6:
        raise LookupError("no such step\nand more of it")
    return np.float32(0)


def called_back():
    def step(key, state, batch, h):
        state, metrics = PROGRAM.step(key, state, batch, h)
        seen = jax.pure_callback(
            watched, jax.ShapeDtypeStruct((), jnp.float32), state["step"], vmap_method="sequential"
        )
        return state, metrics | {"loss": metrics["loss"] + seen}

    return program(step=step)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_of_a_callback_of_the_user_s_own_is_told_and_the_run_goes_on_once_it_is_mended(tmp_path, caplog):
    made, points = called_back(), hpx.Manual([{"rate": 0.05 * (i + 1), "bad": 0} for i in range(6)])
    sweep = hpx.Sweep(made, SPACE, sampler=points, width=WIDTH, replicates=2)
    expected = sweep.run(progress=False)
    Switch.on = True
    with pytest.raises(hpx.RunError) as caught:
        sweep.run(tmp_path / "run", progress=False, checkpoint_seconds=0.0)
    Switch.on = False
    first, place, what = str(caught.value).splitlines()
    assert first == "a function that the program of group 0 calls on the host fails:"
    assert place.startswith("  test_bad_members.py:")
    assert place.endswith(': raise LookupError("no such step\\nand more of it")')
    assert what == "  LookupError: no such step"
    assert caught.value.__cause__ is None
    saved = hpx.load(tmp_path / "run")
    assert same_bits(saved.curves("valid/loss")[..., 0], expected.curves("valid/loss")[..., 0])
    events = [event.step for event in sweep.events(tmp_path / "run") if event.kind == "segment"]
    assert events == [8, 12], "what was saved stays"
    untouched(hpx.load(tmp_path / "run"), expected)
