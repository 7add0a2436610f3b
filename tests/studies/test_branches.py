"""Studies of branches, on losses whose critical batch size is known, and against plain Optax loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from click.testing import CliRunner
from flax import linen as nn
from matplotlib.figure import Figure

import hpjax as hpx
from hpjax import InputError, RunError
from hpjax.frontends.cli import main
from hpjax.studies import Branches, BranchesResult

SIZES, STARTS, SEEDS = (4, 8, 16, 32, 64, 128), (64, 256, 1024), 3
SLOPE, TOLERANCE = 0.1, 0.05


def kinked(best=lambda h: jnp.sqrt(1.0 * h.start), lost_above=np.inf):
    """A loss that is flat up to a batch size, and grows by ``SLOPE`` an octave from there; seeds differ by a level."""

    def evaluate(key, state, split, h):
        loss = 1.0 + h.start_seed + SLOPE * jnp.maximum(jnp.log2(h.batch_size / best(h)), 0)
        return {"loss": jnp.where(h.batch_size > lost_above, jnp.nan, loss)}

    return hpx.Program(lambda key, h: jnp.zeros(()), lambda key, s, batch, h: (s, {"loss": 1.0}), evaluate, steps=1)


def answer_of(program, seeds=SEEDS, sizes=SIZES):
    space = hpx.Space(batch_size=hpx.Choice(*sizes), start=hpx.Choice(*STARTS), start_seed=hpx.Choice(*range(seeds)))
    return BranchesResult.read(hpx.Sweep(program, space, sampler=hpx.Grid()).run(progress=False), TOLERANCE)


def test_the_critical_batch_size_is_where_the_loss_passes_the_tolerance():
    """Half an octave above the kink, which is at the square root of the examples seen."""
    answer = answer_of(kinked())
    assert [point.examples for point in answer.points] == list(STARTS)
    for point in answer.points:
        wanted = point.examples**0.5 * 2 ** (TOLERANCE / SLOPE)
        np.testing.assert_allclose(point.critical, [wanted] * 3, rtol=1e-3)
        np.testing.assert_allclose(point.by_seed, wanted, rtol=1e-3)
        assert point.edge is None
    assert answer.law.exponent.value == pytest.approx(0.5, abs=1e-3)
    assert answer.law.coefficient.value == pytest.approx(2**0.5, rel=1e-3)
    assert answer.doubts == ()
    assert "+0.000" in str(answer)
    assert answer.table()["critical"].tolist() == [point.critical.value for point in answer.points]


def test_intervals_are_those_of_all_resamples_of_the_seeds():
    """Kinks at 8, 16 and 32: of 27 resamples the least and the greatest are of one seed, drawn three times."""
    answer = answer_of(kinked(best=lambda h: 8.0 * 2.0**h.start_seed))
    for point in answer.points:
        np.testing.assert_allclose(point.by_seed, [2**3.5, 2**4.5, 2**5.5], rtol=1e-3)
        assert point.critical.low == pytest.approx(2**3.5, rel=1e-3)
        assert point.critical.high == pytest.approx(2**5.5, rel=1e-3)
        # The mean excess is 0, 0.1/3 at 16 and 0.1 at 32: 0.05 is a quarter of the way from 16 to 32.
        assert point.critical.value == pytest.approx(16 * 2**0.25, rel=1e-3)


def test_where_no_batch_size_is_too_large_the_answer_has_no_upper_end():
    answer = answer_of(kinked(best=lambda h: 1e6 + h.start))
    for point in answer.points:
        assert point.critical == (128, 128, np.inf)
        assert point.edge == "highest"
    assert all("Give larger ones" in doubt for doubt in answer.doubts[:3])
    assert "≥ 128" in str(answer)


def test_where_the_second_batch_size_is_too_large_the_answer_says_so():
    answer = answer_of(kinked(best=lambda h: 4.0), seeds=2)
    assert [point.edge for point in answer.points] == ["lowest"] * 3
    assert answer.points[0].critical.value == pytest.approx(4 * 2**0.5, rel=1e-3)
    assert any("Give smaller ones" in doubt for doubt in answer.doubts)
    assert "intervals are those of 2 seeds" in answer.doubts[-1]


def test_branches_that_diverged_are_worse_than_any_tolerance():
    answer = answer_of(kinked(best=lambda h: 1e6, lost_above=32))
    for point in answer.points:
        assert point.critical.value == 32
        assert np.isinf(point.excess[4:]).all()
    assert "diverged with batches of 64, 128" in answer.doubts[0]


def test_a_seed_whose_smallest_batch_diverged_is_left_out_of_all_starts():
    """Of seed 1 the branch with batches of 4 diverged at one start: nothing is left to compare its others with."""

    def evaluate(key, state, split, h):
        loss = 1.0 + h.start_seed + SLOPE * jnp.maximum(jnp.log2(h.batch_size / jnp.sqrt(1.0 * h.start)), 0)
        return {"loss": jnp.where((h.batch_size == 4) & (h.start_seed == 1) & (h.start == 64), jnp.nan, loss)}

    answer = answer_of(dataclasses.replace(kinked(), evaluate=evaluate))
    assert answer.lost == (1,)
    assert [point.by_seed.shape for point in answer.points] == [(2,)] * 3
    for point in answer.points:
        assert point.critical.value == pytest.approx(point.examples**0.5 * 2 ** (TOLERANCE / SLOPE), rel=1e-3)
    assert "seeds 1 are left out" in answer.doubts[0]
    assert isinstance(answer.plot(), Figure)


def test_a_start_before_the_first_step_has_no_place_in_the_law():
    space = hpx.Space(batch_size=hpx.Choice(*SIZES), start=hpx.Choice(0, 64, 256), start_seed=hpx.Choice(0, 1, 2))
    program = kinked(best=lambda h: jnp.sqrt(jnp.maximum(1.0 * h.start, 64)))
    answer = BranchesResult.read(hpx.Sweep(program, space, sampler=hpx.Grid()).run(progress=False), TOLERANCE)
    assert not answer.has_law
    assert "as x" not in str(answer)
    assert isinstance(answer.plot(), Figure)


def test_a_law_of_points_at_an_end_is_doubted():
    answer = answer_of(kinked(best=lambda h: jnp.where(h.start == 1024, 1e6, jnp.sqrt(1.0 * h.start))))
    assert [point.edge for point in answer.points] == [None, None, "highest"]
    assert any("may have another power" in doubt for doubt in answer.doubts)


@pytest.mark.parametrize("width", ["single", "double"])
def test_its_picture_shows_the_numbers(width):
    answer = answer_of(kinked())
    figure = answer.plot(width=width)
    assert isinstance(figure, Figure)
    lines = figure.axes[0].get_lines()
    assert lines[0].get_ydata()[-1] == pytest.approx(SLOPE * 4, rel=1e-3)  # 64 examples: 8 to 128 is four octaves


def test_other_results_are_refused():
    grid = hpx.Sweep(kinked(), hpx.Space(batch_size=4, start=1, start_seed=0), trials=1).run(progress=False)
    with pytest.raises(InputError, match="must be two or more"):
        BranchesResult.read(grid, 0.1)
    plain = hpx.Sweep(kinked(best=lambda h: h.batch_size * 1.0), hpx.Space(batch_size=4, start_seed=0), trials=1)
    with pytest.raises(InputError, match=r"start.*must be a hyperparameter"):
        BranchesResult.read(plain.run(progress=False), 0.1)


# Equal examples, so that batches of all sizes have the same gradient.
X, Y = np.tile(np.float32([[1.0, -2.0]]), (64, 1)), np.full(64, 3.0, np.float32)
BATCH, RATE, LENGTHS, EXAMPLES = 4, 0.05, (5, 10, 20), 32


def training(**settings):
    settings = {
        "batch_size": lambda h: h.batch_size,
        "steps": lambda h: h.steps,
        "model": nn.Sequential([nn.Dense(1), lambda z: z[:, 0]]),
        "optimizer": lambda h: optax.adam(optax.linear_schedule(h.learning_rate, 0.0, 100)),
        "data": hpx.data.from_arrays(X, Y, valid=(X, Y), test=(X, Y)),
    } | settings
    return hpx.supervised(loss=hpx.metrics.squared_error, **settings)


def based(program=None, **changes):
    space = hpx.Space(**{"learning_rate": RATE, "batch_size": BATCH, "steps": hpx.Choice(*LENGTHS)} | changes)
    return hpx.Sweep(program or training(), space, sampler=hpx.Grid(), replicates=2).run(progress=False)


@pytest.fixture(scope="module")
def base():
    return based()


def study_of(base, **changes):
    starts = [base[i] for i in range(len(LENGTHS))]
    return Branches(
        **{"program": training(), "starts": starts, "batch_sizes": [4, 8, 16], "examples": EXAMPLES, "tolerance": 0.5}
        | changes
    )


def plain(params, steps, size):
    """The loss after steps at the rate of the base, and a branch of another batch size, by Optax alone."""

    def loss(p):
        return jnp.mean((X @ p["kernel"][:, 0] + p["bias"][0] - Y) ** 2)

    def go(params, state, rate, count):
        optimizer = optax.adam(optax.linear_schedule(rate, 0.0, 100))
        state = optimizer.init(params) if state is None else state
        for _ in range(count):
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    begun = go(params, None, RATE, steps)
    return float(loss(go(*begun, RATE * (size / BATCH) ** 0.5, EXAMPLES // size)[0]))


def test_branches_go_on_from_each_seed_with_scaled_rates_in_one_program(base, tmp_path):
    study = study_of(base)
    assert len(study.plan().groups) == 1
    answer = study.run(tmp_path / "run", progress=False)
    (starts, seeds, sizes), trials = answer.result.grid("start", "start_seed", "batch_size")
    assert (starts, seeds, sizes) == ([20, 40, 80], [0, 1], [4, 8, 16])
    for replicate in seeds:
        key = hpx.keys.purpose_key(hpx.keys.lane_key(0, replicate), "init")
        point = {"learning_rate": RATE, "batch_size": BATCH, "steps": 5}
        params = training(batch_size=BATCH).init(key, type("h", (), point)()).params["layers_0"]
        for i, steps in enumerate(LENGTHS):
            for j, size in enumerate(sizes):
                found = answer.result.last("valid/loss")[trials[i, replicate, j], 0]
                assert found == pytest.approx(plain(params, steps, size), rel=1e-3)
    assert str(BranchesResult.load(tmp_path / "run")) == str(answer)
    shown = CliRunner().invoke(main, ["show", str(tmp_path / "run")])
    assert "critical batch size" in shown.output
    drawn = CliRunner().invoke(main, ["plot", str(tmp_path / "run")])
    assert (tmp_path / "run" / "branches.png").exists(), drawn.output
    # Other states are another study.
    with pytest.raises(RunError, match="holds a different sweep"):
        study_of(based(learning_rate=0.04)).run(tmp_path / "run", progress=False)


def test_each_seed_has_an_order_of_the_examples_of_its_own_which_its_batch_sizes_share(base):
    """Of equal states, branches of one batch size differ between seeds and starts by the order of the examples."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 2)).astype("float32"), rng.normal(size=64).astype("float32")
    own = dataclasses.replace(study_of(base), program=_on(hpx.data.from_arrays(x, y, valid=(x, y), test=(x, y))))
    draws, program = {}, own.sweep.program
    key = hpx.keys.purpose_key(hpx.keys.lane_key(own.seed, 0), "batch")
    for start in (20, 40):
        for seed in (0, 1):
            for size in (4, 8):
                h = type("h", (dict,), {"__getattr__": dict.__getitem__})(
                    start=start, start_seed=seed, batch_size=size, learning_rate=0.05
                )
                calls = [program.batch(key, jnp.int32(call), program.data.train, h).x for call in range(4)]
                draws[start, seed, size] = np.concatenate(calls)
    for start in (20, 40):
        for seed in (0, 1):
            np.testing.assert_array_equal(draws[start, seed, 4], draws[start, seed, 8])
    seen = [draws[start, seed, 4] for start in (20, 40) for seed in (0, 1)]
    assert all(not np.array_equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_bad_input_is_one_error(base):
    for changes, message in (
        ({"starts": []}, "must be a list of trials"),
        ({"starts": [base[0], base[0]]}, "must have trained for different numbers of steps"),
        ({"starts": [base[0], based()[1]]}, "must be of one result"),
        ({"batch_sizes": [8]}, "must be 2 or more, to compare them"),
        ({"batch_sizes": [8, 65]}, "must be at most 64"),
        ({"examples": 8}, "examples = 8"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"seed": 0}, "is that of the starts"),
        ({"program": training(keep="best")}, "must be without early_stopping"),
        (
            {"program": hpx.Program(lambda k, h: 0.0, lambda *a: a, lambda *a: {}, steps=1)},
            "must take batches of arrays",
        ),
    ):
        with pytest.raises(InputError, match=message):
            study_of(base, **changes)
    best = based(training(keep="best"))
    with pytest.raises(InputError, match="kept its best parameters"):
        study_of(best).plan()
    ramps = training(batch_size=lambda h: lambda seen: 4 * h.batch_size**0, microbatch=4)
    with pytest.raises(InputError, match="with batches whose size stays as it is"):
        study_of(base, program=ramps).plan()
    ending = training(optimizer=lambda h: optax.adam(optax.linear_schedule(h.learning_rate, 0.0, h.steps)))
    with pytest.raises(InputError, match="says how long the starts train"):
        study_of(base, program=ending).plan()
    two = based(other=hpx.Choice(1, 2), steps=hpx.Choice(5, 10))
    with pytest.raises(InputError, match="must differ in one hyperparameter"):
        study_of(two, starts=[two[0], two[3]])
    with pytest.raises(InputError, match=r"batch_size.*is never read"):
        study_of(base, program=training(batch_size=8)).plan()
    other = dataclasses.replace(study_of(base), program=_wider())
    with pytest.raises(InputError, match=r"Branches.starts.*must have the shape"):
        other.plan()


def _wider():
    return training(model=nn.Sequential([nn.Dense(2), lambda z: z[:, 0]]))


def _on(data):
    return training(data=data)
