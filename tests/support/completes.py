"""What a sweep that `plan` accepts must do."""

import jax
import numpy as np

import hpjax as hpx


def completes(sweep, like=None):
    """Plans a sweep and, if it is accepted, holds it to that: returns its result, or None and the refusal."""
    try:
        sweep.plan()
    except (hpx.InputError, hpx.ProgramError) as refusal:
        return None, str(refusal)
    result = sweep.run(progress=False)
    assert not {"failed", "running"} & set(result.statuses.tolist())
    best, program = result.best, sweep.program
    state = best.restore()
    if like is not None:
        whole = best.restore(like=like)
        assert jax.tree.structure(whole) == jax.tree.structure(like)
        assert same(state["w"], whole["w"])
    if program.data is not None and program.data.test is not None:
        assert all(np.isfinite(value) for value in result.test().values())
    assert sweep.replay(best).agrees
    return result, ""


def same(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
