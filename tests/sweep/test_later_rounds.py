"""Later rounds: groups and verdicts that only they bring; trials that stopped and run again."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.results.store.rows import Change
from hpjax.sweep.running.scores import Scores
from tests.support.compare import same_bits
from tests.support.programs import quadratic


class Sizes(hpx.Sampler):
    """The larger size in the second round at the earliest."""

    def propose(self, space, history, start, n, seed):
        return [{"rate": 0.01 * (1 + trial), "size": 3 if trial in (4, 7) else 2} for trial in range(start, start + n)]


def test_a_run_whose_second_round_brought_a_group_is_extended(tmp_path):
    program = quadratic(4, 2, size=lambda h: h.size)
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1), size=hpx.Choice(2, 3))
    sweep = hpx.Sweep(program, space, trials=6, rounds=(3, 3), sampler=Sizes(), width=2)
    sweep.run(tmp_path, progress=False)
    more = dataclasses.replace(sweep, trials=8, rounds=(3, 3, 2))
    found = more.run(tmp_path, progress=False, extend=True)
    assert found.groups.tolist() == [0, 0, 0, 0, 1, 0, 0, 1]
    assert same_bits(found.curves("valid/loss"), more.run(progress=False).curves("valid/loss"))


class Depths(hpx.Sampler):
    """Trials that repeat their step in the second round at the earliest, once or twice by turns."""

    def propose(self, space, history, start, n, seed):
        flat, deep = {"rate": 0.02, "kind": "flat"}, {"rate": 0.01, "kind": "deep"}
        return [flat if trial < 3 else deep | {"times": 1 + trial % 2} for trial in range(start, start + n)]


def test_what_a_later_round_finds_static_stays_static():
    """How often a step is repeated cannot be traced, which the first round, without such trials, did not see."""

    def step(key, w, batch, h):
        for _ in range(h.times if h.kind == "deep" else 1):
            w = w - h.rate * 2 * (w - 1)
        return w, {"loss": (w - 1) ** 2}

    program = hpx.Program(lambda key, h: jnp.zeros(()), step, lambda key, w, split, h: {"loss": (w - 1) ** 2}, steps=2)
    space = hpx.Space(rate=hpx.LogUniform(1e-3, 1)) & (
        hpx.Space(kind="flat") | hpx.Space(kind="deep", times=hpx.Int(1, 2))
    )
    sweep = hpx.Sweep(program, space, trials=9, rounds=3, sampler=Depths(), width=2)
    result = sweep.run(progress=False)
    assert result.groups.tolist() == [0, 0, 0, 1, 2, 1, 2, 1, 2]
    losses = [0.96**4 if t < 3 else 0.98 ** (4 * (1 + t % 2)) for t in range(9)]
    np.testing.assert_allclose(result.last("valid/loss")[:, 0], losses, rtol=1e-5)


@pytest.mark.parametrize("name", ["trials", "replicates", "devices", "segment"])
def test_only_rounds_widths_and_kernels_are_tuples(name):
    with pytest.raises(hpx.InputError, match=rf"Sweep\.{name} = \(2, 2\): must be a whole number"):
        hpx.Sweep(quadratic(), hpx.Space(rate=hpx.LogUniform(1e-3, 1)), **({"trials": 4} | {name: (2, 2)}))


def test_a_stopped_trial_that_runs_again_can_be_the_best():
    objective = hpx.minimize("valid/loss")
    scores = Scores.none(2, 1, racing=True)
    lanes = np.array([0, 1]), np.array([0, 0])
    scores = scores.with_evaluation(objective, lanes, np.array([5, 5]), {"valid/loss": np.array([0.1, 0.2])}, [0, 1])
    assert scores.best(objective) == (0, 0.1)
    scores = scores.with_changes([Change(0, 0, "stopped", 5)])
    assert scores.best(objective) == (1, 0.2)
    assert scores.with_changes([Change(0, 0, "running", 5)]).best(objective) == (0, 0.1)
