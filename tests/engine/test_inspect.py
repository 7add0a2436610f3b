"""``Program.inspect``: what an evaluation reports of the training split."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx

TRAIN, VALID = np.arange(8, dtype=np.float32), np.ones(4, np.float32)


def program(**changes):
    """A number that adds h.rate in each step; evaluations see how far it is from the training examples."""
    given = {
        "init": lambda key, h: jnp.zeros(()),
        "step": lambda key, w, batch, h: (w + h.rate, {"w": w}),
        "evaluate": lambda key, w, split, h: {"loss": jnp.square(w - split).mean()},
        "inspect": lambda key, w, train, h: {"loss": jnp.square(w - train).mean(), "drawn": jax.random.uniform(key)},
        "data": hpx.Data(TRAIN, VALID),
        "steps": 4,
        "eval_every": 2,
    }
    return hpx.Program(**given | changes)


def run(program, rates=(0.5, 1.0), **more):
    space = hpx.Space(rate=hpx.Uniform(0, 2))
    return hpx.Sweep(program, space, sampler=hpx.Manual([{"rate": r} for r in rates]), **more).run(progress=False)


def test_it_tells_of_the_state_at_the_evaluation():
    found = run(program())
    assert set(found.metrics) == {"train/w", "train/loss", "train/drawn", "valid/loss"}
    for trial, rate in enumerate((0.5, 1.0)):
        exact = [np.square(step * rate - TRAIN).mean() for step in (2, 4)]
        np.testing.assert_allclose(found.curves("train/loss")[trial, 0], exact, rtol=1e-6)
        # Means over steps are what they were.
        np.testing.assert_allclose(found.curves("train/w")[trial, 0], [0.5 * rate, 2.5 * rate], rtol=1e-6)
    inspect = hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "inspect")
    drawn = [float(jax.random.uniform(hpx.keys.step_key(inspect, step))) for step in (2, 4)]
    np.testing.assert_allclose(found.curves("train/drawn")[:, 0], [drawn, drawn], rtol=1e-6)


def test_the_reaction_sees_it_and_what_is_not_finite_ends_no_lane():
    # After two steps the losses are 11.5 and 7.5.
    ended = run(program(react=lambda w, metrics, h: (w, metrics["train/loss"] < 10.0)))
    assert list(ended.lane_step[:, 0]) == [4, 2]
    found = run(program(inspect=lambda key, w, train, h: {"x": jnp.log(1.5 - w)}))
    assert list(found.statuses) == ["complete", "complete"]
    assert np.isnan(found.curves("train/x")[1, 0]).all(), "its value is recorded as it is"


def test_with_folds_it_gets_the_pool():
    found = run(program(inspect=lambda key, w, train, h: {"sum": train.sum(), "fold": h.fold}), folds=3)
    np.testing.assert_allclose(found.curves("train/sum"), TRAIN.sum() + VALID.sum())
    np.testing.assert_allclose(found.curves("train/fold")[0, :, -1], [0, 1, 2])


def test_what_it_cannot_be_is_refused():
    with pytest.raises(hpx.InputError, match=r"Program.inspect = 3: must be a function. Write inspect=lambda key, s"):
        program(inspect=3)
    with pytest.raises(hpx.ProgramError, match=r"Program.inspect and Program.step both give 'w', as train/w. Rename"):
        run(program(inspect=lambda key, w, train, h: {"w": w}))
    with pytest.raises(
        hpx.ProgramError, match=r"Program.inspect' must be a scalar|of Program.inspect must be a scalar"
    ):
        run(program(inspect=lambda key, w, train, h: {"x": train}))
    streamed = dataclasses.replace(
        program(inspect=None), data=hpx.data.stream(lambda: iter([(TRAIN, TRAIN)]), valid=(TRAIN, TRAIN))
    )
    with pytest.raises(hpx.InputError, match=r"Program.inspect = .*: cannot be given with a stream"):
        dataclasses.replace(streamed, inspect=lambda key, w, train, h: {})
