"""The states of lanes on the devices."""

import jax.numpy as jnp
import numpy as np

import hpjax as hpx


def test_arrays_without_elements_are_carried_moved_and_restored(tmp_path):
    def init(key, h):
        return {"w": jnp.zeros(()), "none": jnp.zeros((0, 3)), "nothing": jnp.zeros((0, 0))}

    program = hpx.Program(
        init,
        lambda key, state, batch, h: ({**state, "w": state["w"] + h.rate}, {}),
        lambda key, state, split, h: {"loss": (state["w"] - 1) ** 2},
        steps=4,
        eval_every=1,
    )
    space, scheduler = hpx.Space(rate=hpx.Uniform(0, 1)), hpx.Halving(factor=2, min_steps=1)
    sweep = hpx.Sweep(program, space, trials=4, scheduler=scheduler, width=1)
    best = sweep.run(tmp_path / "run", progress=False).best
    state = best.restore()
    assert {name: value.shape for name, value in state.items()} == {"w": (), "none": (0, 3), "nothing": (0, 0)}
    np.testing.assert_allclose(state["w"], 4 * best.hparams["rate"], rtol=1e-6)
