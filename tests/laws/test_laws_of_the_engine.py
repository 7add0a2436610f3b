"""Laws 3, 4, 7 and 8, counted: compilations, chunk iterations, bytes."""

from contextlib import nullcontext

import jax
import numpy as np
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.engine.lane import HEALTHY
from tests.support.compare import same_bits
from tests.support.counting import OF_A_GROUP, compilations
from tests.support.lanes import lanes_of
from tests.support.programs import RATES, SPACE, blobs, classifier, quadratic, rates


class Halve(hpx.Scheduler):
    """Stops the worse half at every evaluation."""

    def decide(self, race):
        return race.ranked(race.live)[max(len(race.live) // 2, 1) :]


def sweep(trials, scheduler=None):
    sampler = rates(*np.geomspace(1e-3, 0.4, trials))
    return hpx.Sweep(quadratic(60, 5), RATES, sampler=sampler, width=4, scheduler=scheduler)


# Law 3


def test_ten_and_a_thousand_trials_compile_one_program():
    for trials in (10, 1000):
        with compilations() as programs:
            result = sweep(trials).run(progress=False)
        assert sorted(programs) == OF_A_GROUP
        assert len(result) == trials


def test_a_setting_of_jax_that_changes_programs_compiles_them_anew():
    mine = hpx.Sweep(quadratic(2, 2), RATES, trials=2, devices=1)
    precise = jax.default_matmul_precision("highest")
    for setting, least in ((nullcontext(), 1), (precise, 1), (nullcontext(), 0), (precise, 0)):
        with setting, compilations() as programs:
            mine.run(progress=False)
        assert min(len(programs), 1) == least


def test_survivors_from_a_thousand_to_one_compile_nothing_new():
    with compilations() as programs:
        result = sweep(1000, Halve()).run(progress=False)
    assert sorted(programs) == sorted([*OF_A_GROUP, "jit(move)"]), "which takes the survivors to the front"
    assert (result.statuses == "complete").sum() == 1
    assert sorted(np.unique(result.lane_step[result.lane_status == "stopped"])) == list(range(5, 50, 5))


def test_new_values_of_one_program_compile_nothing():
    program = quadratic(60, 5)
    first, second = (
        hpx.Sweep(program, RATES, sampler=rates(*np.linspace(low, low + 0.1, 12)), seed=seed)
        for low, seed in ((0.01, 0), (0.2, 5))
    )
    first.run(progress=False)
    with compilations() as programs:
        second.run(progress=False)
    assert programs == []


def test_one_program_a_group():
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1e-1), size=hpx.Choice(2, 3, static=True))
    groups = hpx.Sweep(quadratic(2, 2, size=lambda h: h.size), space, trials=6)
    with compilations() as programs:
        groups.run(progress=False)
    assert sorted(programs) == sorted(OF_A_GROUP * 2)
    assert len(groups.plan().groups) == 2


def test_sweeping_a_program_again_compiles_nothing_not_even_the_move():
    program, sampler = quadratic(20, 5), rates(*np.linspace(0.01, 0.4, 16))
    for number, expected in enumerate((sorted([*OF_A_GROUP, "jit(move)"]), [], [])):
        with compilations() as programs:
            hpx.Sweep(program, RATES, sampler=sampler, width=2, scheduler=Halve(), seed=number).run(progress=False)
        assert sorted(programs) == expected


def test_another_kind_of_number_is_another_program():
    program = quadratic(4, 2)
    for domain in (hpx.Uniform(0, 0.5), hpx.Int(0, 1)):
        result = hpx.Sweep(program, hpx.Space(rate=domain), sampler=hpx.Manual([{"rate": 0}])).run(progress=False)
        assert result.best.metrics["valid/loss"] == 1.0


# Law 4


def test_one_of_64_chunks_alive_is_one_64th_of_the_work():
    lanes, _ = lanes_of(quadratic(), count=256, width=4)
    assert lanes.advance(1, False).iterations == 64
    lanes.retire([lane for lane in range(256) if lane not in (3, 77, 150)])
    report = lanes.advance(2, True)
    assert report.iterations == 1
    assert report.lanes.tolist() == [3, 77, 150]


def test_a_dead_chunk_is_not_computed_whatever_the_devices():
    """One lane of four stops, on two devices: the other device would otherwise go on computing its empty chunk."""
    for stopped in range(4):
        lanes, _ = lanes_of(quadratic(), count=4, width=1, devices=2)
        assert lanes.advance(3, False).iterations == 4
        lanes.retire([stopped])
        report = lanes.advance(6, False)
        assert report.iterations == 3
        assert report.step.tolist() == [6, 6, 6]
        np.testing.assert_allclose(lanes.gathered().state[0][report.lanes], 1 - 0.8**6, rtol=1e-5)
        np.testing.assert_allclose(lanes.gathered().state[0][stopped], 1 - 0.8**3, rtol=1e-5)


def test_survivors_are_balanced_over_devices_and_keep_their_replicates_apart():
    lanes, _ = lanes_of(quadratic(), count=64, width=4, devices=4, replicates=2)
    assert lanes.advance(1, False).iterations == 32
    lanes.retire([lane for lane in range(128) if lane % 64 >= 8])  # 8 of each replicate stay
    assert lanes.advance(2, False).iterations == 4
    assert lanes._layout.live_chunks.tolist() == [1, 1, 1, 1]


def test_a_retired_lane_keeps_its_state_whatever_its_neighbours_do():
    lanes, _ = lanes_of(quadratic(), count=12, width=4)
    lanes.advance(3, False)
    before = lanes.gathered().state[0]
    lanes.retire([1, 2, 7, 9, 10, 11])
    lanes.advance(8, False)
    after = lanes.gathered().state[0]
    gone = [1, 2, 7, 9, 10, 11]
    assert same_bits(before[gone], after[gone])
    closed_form = 1 - (1 - 2 * np.float64(np.float32(0.1))) ** 8
    np.testing.assert_allclose(after[[0, 3, 4, 5, 6, 8]], closed_form, rtol=1e-6)


# Law 7


def test_a_diverged_lane_is_recorded_with_its_step_and_harms_no_one():
    good = [0.1, 0.2, 0.3, 0.05, 0.15]
    with_bad = hpx.Sweep(quadratic(60, 20), RATES, sampler=rates(0.1, 0.2, 1e6, 0.3, 0.05, 0.15), width=8).run(
        progress=False
    )
    without = hpx.Sweep(quadratic(60, 20), RATES, sampler=rates(0.1, 0.2, 0.25, 0.3, 0.05, 0.15), width=8).run(
        progress=False
    )
    # |w − 1| grows 2e6-fold a step, and the loss is its square: what float32 can hold ends within four steps.
    w, step = np.float32(0), 0
    with np.errstate(over="ignore", invalid="ignore"):
        while np.isfinite(np.float32(w - 1) ** 2):
            w, step = np.float32(w - np.float32(1e6) * 2 * (w - 1)), step + 1
            loss = np.float32(w - 1) ** 2
            if not np.isfinite(loss):
                break
    assert with_bad[2].status == "diverged"
    assert with_bad[2].step == step + 1
    others = [0, 1, 3, 4, 5]
    assert same_bits(with_bad.curves("valid/loss")[others], without.curves("valid/loss")[others])
    assert all(same_bits(with_bad.leaves(t)[0][1], without.leaves(t)[0][1]) for t in others)
    assert 2 not in with_bad.ranking
    assert len(with_bad.ranking) == len(good)
    assert np.isnan(with_bad.curves("valid/loss")[2]).all()
    with pytest.raises(hpx.RunError, match="diverged at step"):
        with_bad[2].restore()


def test_best_over_only_diverged_trials_says_so():
    result = hpx.Sweep(quadratic(60, 20), RATES, sampler=rates(1e5, 1e6)).run(progress=False)
    assert result.ranking == []
    with pytest.raises(hpx.RunError, match="all 2 diverged"):
        _ = result.best


def test_a_value_that_is_not_finite_at_evaluation_only_also_diverges():
    import jax.numpy as jnp

    program = hpx.Program(
        lambda key, h: jnp.zeros(()),
        lambda key, s, batch, h: (s + h.rate, {"loss": s}),
        lambda key, s, split, h: {"loss": jnp.where(s > 1, jnp.inf, s)},
        steps=6,
        eval_every=2,
    )
    result = hpx.Sweep(program, RATES, sampler=rates(0.1, 0.3)).run(progress=False)
    assert result.lane_status[:, 0].tolist() == ["complete", "diverged"]
    assert result.lane_step[:, 0].tolist() == [6, 4]


def test_a_group_without_numbers_trains():
    import jax.numpy as jnp

    program = hpx.Program(
        lambda key, h: jnp.zeros(2),
        lambda key, w, batch, h: (w + (1 if h.kind == "x" else 2), {"loss": w.sum()}),
        lambda key, w, split, h: {"loss": w.sum()},
        steps=3,
    )
    space = hpx.Space(kind=hpx.Choice("x", "y"))
    for randomness in ("shared", "independent"):
        result = hpx.Sweep(program, space, sampler=hpx.Grid(), replicates=3, randomness=randomness).run(progress=False)
        assert result.last("valid/loss").tolist() == [[6.0] * 3, [12.0] * 3]


def test_independent_lanes_of_many_replicates_share_chunks():
    plan = hpx.Sweep(quadratic(), RATES, trials=1, replicates=64, randomness="independent", devices=2).plan()
    assert [(each.width, each.chunks) for each in plan.arrangements] == [(8, 4)]
    assert any(
        "replicates outnumber" in hint for hint in hpx.Sweep(quadratic(), RATES, trials=1, replicates=2).plan().hints
    )


# Law 8


def test_data_is_not_copied_per_lane():
    data = blobs(examples=20_000, features=40)
    size = sum(a.nbytes for a in jax.tree.leaves((data.train, data.valid)))
    program = classifier(model=nn.Dense(3), data=data, eval_batch_size=100)

    def used(count):
        lanes, compiled = lanes_of(program, count, width=16, space=SPACE)
        state = sum(x.nbytes for x in jax.tree.leaves((lanes._lanes, lanes._inputs)))
        found = [each.compiled.memory_analysis() for each in (compiled.advance, compiled.evaluate)]
        return sum(each.temp_size_in_bytes + each.argument_size_in_bytes - state for each in found)

    few, many = used(16), used(512)
    assert size <= few < 1.5 * size, "the data is an argument, and no chunk copies it"
    assert many < few + size // 10


def test_devices_hold_one_copy_of_the_data_each():
    data = blobs(examples=4000, features=30)
    program = classifier(model=nn.Dense(3), data=data, steps=2, eval_every=2)
    before = {id(a) for a in jax.live_arrays()}
    space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-1), momentum=hpx.Uniform(0, 1))
    for event in hpx.Sweep(program, space, trials=512, width=8, devices=2).events():
        if event.kind == "segment":
            shapes = [a.shape for a in jax.live_arrays() if id(a) not in before]
            assert shapes.count(data.train.x.shape) == 1
            assert not any(s[-2:] == data.train.x.shape[-2:] and len(s) > 2 for s in shapes)


def test_no_collective_in_the_segment():
    _, compiled = lanes_of(quadratic(), count=64, width=4, devices=4)
    for each in (compiled.start, compiled.advance, compiled.evaluate):
        text = each.compiled.as_text()
        for word in ("all-gather", "all-reduce", "collective-permute", "all-to-all", "reduce-scatter"):
            assert word not in text


def test_state_is_donated():
    lanes, compiled = lanes_of(quadratic(), count=64, width=4)
    carried = sum(x.nbytes for x in jax.tree.leaves(lanes._lanes))
    for each in (compiled.start, compiled.advance, compiled.evaluate):
        assert each.compiled.memory_analysis().alias_size_in_bytes >= carried
    assert HEALTHY == -1
