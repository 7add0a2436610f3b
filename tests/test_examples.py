"""Axes of programs of one's own, as experiments/axes shows them: exploration in Q-learning, the width of a beam."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn
from helpers import compilations

import hpjax as hpx
from hpjax.keys import lane_key, purpose_key, step_key

FOLDER = Path(__file__).parent.parent / "experiments" / "axes"


def load(name):
    spec = importlib.util.spec_from_file_location(f"axes_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_exploration_differs_by_lane_and_each_walks_as_if_alone():
    """Against Q-learning in NumPy, which draws the same numbers by their keys."""
    example = load("q_learning")
    points = [{"learning_rate": 0.5, "epsilon": e, "decay": d} for e, d in ((0.0, 0.9), (0.5, 0.999), (1.0, 0.99))]
    program = dataclasses.replace(example.program, steps=200, eval_every=100)
    objective = hpx.maximize("valid/return")
    sweep = hpx.Sweep(
        program, example.space, sampler=hpx.Manual(points), width=4, devices=1, seed=3, objective=objective
    )
    with compilations() as programs:
        result = sweep.run(progress=False)
    assert sum("segment" in name for name in programs) == 1
    key = purpose_key(lane_key(3, 0), "step")
    draws = np.asarray(jax.vmap(lambda t: jax.random.uniform(step_key(key, t), (2,)))(np.arange(200)))
    tables = []
    for trial, point in enumerate(points):
        q, cell = np.zeros((example.CELLS, 2)), 2
        for t in range(200):
            explores = draws[t, 0] < point["epsilon"] * point["decay"] ** t
            action = int(draws[t, 1] < 0.5) if explores else int(np.argmax(q[cell]))
            after = min(max(cell + 2 * action - 1, 0), example.CELLS - 1)
            over = after in (0, example.CELLS - 1)
            reward = {0: example.SMALL, example.CELLS - 1: example.LARGE}.get(after, 0.0)
            target = reward + (0 if over else example.DISCOUNT * q[after].max())
            q[cell, action] += 0.5 * (target - q[cell, action])
            cell = 2 if over else after
        np.testing.assert_allclose(result[trial].restore()["q"], q, atol=1e-5)
        tables.append(q)
    assert not tables[0][3:].any(), "who never explores never leaves the left end"
    assert tables[2][3:].any()


def best_word(log_p, width, length):
    """Beam search with lists, as one would write it for one width."""
    beams = [(0.0, 0)]
    for _ in range(length):
        grown = [(score + log_p[letter, new], new) for score, letter in beams for new in range(len(log_p))]
        beams = sorted(grown, key=lambda beam: -beam[0])[:width]
    return beams[0][0]


def test_one_program_searches_with_many_beam_widths():
    example = load("beam_search")
    points = [{"learning_rate": 50.0, "width": width} for width in (1, 2, 3, 8)]
    sweep = hpx.Sweep(example.program, example.space, sampler=hpx.Manual(points), width=2)
    with compilations() as programs:
        result = sweep.run(progress=False)
    assert sum("segment" in name for name in programs) == 1
    log_p = np.asarray(jax.nn.log_softmax(result.best.restore()), np.float64)
    expected = [best_word(log_p, point["width"], example.LENGTH) for point in points]
    np.testing.assert_allclose(result.last("valid/found")[:, 0], expected, rtol=1e-5)
    assert len(set(np.round(expected, 6))) > 1
    assert len(np.unique(result.last("valid/loss"))) == 1, "one trained model"


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (2, 3, 4)])
def test_the_orthogonal_initializer_is_flax_s(shape):
    for seed in range(3):
        ours, flax = (init(jax.random.key(seed), shape) for init in (hpx.nn.orthogonal, nn.initializers.orthogonal()))
        np.testing.assert_allclose(ours, flax, atol=1e-5)


def test_programs_that_need_lapack_are_told_of():
    program = hpx.Program(
        lambda key, h: jax.numpy.linalg.qr(jax.random.normal(key, (3, 3)))[0],
        lambda key, state, batch, h: (state, {}),
        lambda key, state, split, h: {"loss": h.x * state.sum()},
        steps=1,
    )
    plan = hpx.Sweep(program, hpx.Space(x=1.0), sampler=hpx.Grid()).plan()
    assert any("decomposes matrices" in hint for hint in plan.hints)
    assert not any("decomposes" in hint for hint in load("q_learning").sweep.plan().hints)
