"""What a program does of its own after an evaluation, and optimizer steps of several calls."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from tests.support.compare import same_bits
from tests.support.counting import OF_A_GROUP, compilations
from tests.support.programs import quadratic

SPACE = hpx.Space(rate=hpx.Uniform(0, 1), patience=hpx.Int(1, 9))
POINTS = [{"rate": rate, "patience": patience} for rate, patience in ((0.1, 2), (0.2, 1), (0.3, 9), (0.05, 3))]


def halving(patience=lambda h: h.patience, **changes):
    """Gradient descent on (w − 1)² whose rate halves at each evaluation; ``patience`` of them end it."""

    def init(key, h):
        return {"w": jnp.zeros(()), "scale": jnp.ones(()), "seen": jnp.int32(0)}

    def step(key, state, batch, h):
        w = state["w"] - h.rate * state["scale"] * 2 * (state["w"] - 1)
        return {**state, "w": w}, {"loss": (w - 1) ** 2}

    def evaluate(key, state, split, h):
        return {"loss": (state["w"] - 1) ** 2}

    def react(state, metrics, h):
        assert set(metrics) == {"train/loss", "valid/loss"}
        seen = state["seen"] + 1
        return {**state, "scale": state["scale"] / 2, "seen": seen}, seen >= patience(h)

    return hpx.Program(init, step, evaluate, steps=12, eval_every=3, react=react, **changes)


def expected(rate, evaluations):
    """(1 − w) after each evaluation."""
    far = [(1 - 2 * rate / 2**k) ** 3 for k in range(evaluations)]
    return np.cumprod(far)


def test_a_program_reacts_to_each_evaluation_and_may_end_a_trial():
    sweep = hpx.Sweep(halving(), SPACE, sampler=hpx.Manual(POINTS), width=2, replicates=2)
    with compilations() as programs:
        result = sweep.run(progress=False)
    assert sorted(programs) == sorted([*OF_A_GROUP, "jit(move)"])
    assert (result.lane_status == "complete").all()
    assert result.lane_step[:, 0].tolist() == [6, 3, 12, 9]
    for trial, (point, evaluations) in enumerate(zip(POINTS, (2, 1, 4, 3), strict=True)):
        curve = result.curves("valid/loss")[trial, 0]
        np.testing.assert_allclose(curve[:evaluations], expected(point["rate"], evaluations) ** 2, rtol=1e-5)
        assert np.isnan(curve[evaluations:]).all()
        np.testing.assert_allclose(
            result[trial].restore()["w"], 1 - expected(point["rate"], evaluations)[-1], rtol=1e-5
        )
    finished = dataclasses.replace(
        sweep, program=dataclasses.replace(halving(), finish=lambda state, h: {**state, "seen": -state["seen"]})
    ).run(progress=False)
    assert [int(trial.restore()["seen"]) for trial in finished] == [-2, -1, -4, -3], "done, or at the last step: once"
    assert same_bits(finished.curves("train/loss"), result.curves("train/loss"))
    parts = dataclasses.replace(sweep, segment=1).run(progress=False)
    assert same_bits(parts.curves("train/loss"), result.curves("train/loss"))
    assert same_bits(parts.lane_step, result.lane_step)


@pytest.mark.parametrize(
    ("react", "message"),
    [
        (lambda state, metrics, h: state, "Program.react must return"),
        (lambda state, metrics, h: ({}, False), "Program.react changes the structure of the state"),
        (lambda state, metrics, h: (state, 1), r"must give done as a bool \(\), got int32\[\]"),
    ],
)
def test_a_reaction_of_another_kind_is_refused(react, message):
    with pytest.raises(hpx.ProgramError, match=message):
        hpx.Sweep(dataclasses.replace(quadratic(), react=react), SPACE, trials=2).plan()


def test_parameters_that_a_finish_spoils_are_no_result():
    spoilt = dataclasses.replace(
        quadratic(),
        finish=lambda state, h: {"w": jnp.where(h.rate > 0.15, jnp.nan, state["w"])},
        parameters=lambda state: state,
    )
    space = hpx.Space(rate=hpx.Uniform(0, 1))
    result = hpx.Sweep(spoilt, space, sampler=hpx.Manual([{"rate": 0.1}, {"rate": 0.2}])).run(progress=False)
    assert result.statuses.tolist() == ["complete", "diverged"]


def test_a_finish_of_another_kind_is_refused():
    with pytest.raises(hpx.ProgramError, match=r"Program.finish changes the structure of the state"):
        hpx.Sweep(dataclasses.replace(quadratic(), finish=lambda state, h: {}), SPACE, trials=2).plan()


def test_an_optimizer_step_may_take_several_calls():
    """Each trial sums its own number of gradients before it moves; steps are counted, not calls."""

    def init(key, h):
        return {"w": jnp.zeros(()), "sum": jnp.zeros(()), "count": jnp.int32(0)}

    def step(key, state, batch, h):
        total, count = state["sum"] + 2 * (state["w"] - 1), state["count"] + 1
        full = count == h.calls
        w = jnp.where(full, state["w"] - h.rate * total / h.calls, state["w"])
        return {"w": w, "sum": jnp.where(full, 0, total), "count": jnp.where(full, 0, count)}, {"loss": (w - 1) ** 2}

    program = hpx.Program(
        init,
        step,
        lambda key, state, split, h: {"loss": (state["w"] - 1) ** 2},
        steps=6,
        microsteps=lambda h: h.calls,
        eval_every=4,
    )
    space = hpx.Space(rate=hpx.Uniform(0, 1e30), calls=hpx.Int(1, 8))
    points = [{"rate": rate, "calls": calls} for rate, calls in ((0.1, 1), (0.1, 2), (0.2, 8), (1e20, 4))]
    sweep = hpx.Sweep(program, space, sampler=hpx.Manual(points))
    assert (sweep.plan().lane_steps, sweep.plan().steps) == (6 * 15, (6,) * 4)
    with compilations() as programs:
        result = sweep.run(progress=False)
    assert {*programs} <= {*OF_A_GROUP, "jit(move)"}
    assert result.lane_step[:3, 0].tolist() == [6, 6, 6]
    for trial, steps in enumerate(([4, 6], [2, 4, 6], [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6])):
        rate = points[trial]["rate"]
        assert result.curves("step")[trial, 0, : len(steps)].tolist() == steps
        values = result.curves("valid/loss")[trial, 0, : len(steps)]
        np.testing.assert_allclose(values, (1 - 2 * rate) ** (2 * np.array(steps)), rtol=1e-4)
    assert result.statuses[3] == "diverged"
    assert result.lane_step[3, 0] == 1, "the step whose fourth call gave an infinite loss"
