"""The states of lanes on the devices."""

import jax.numpy as jnp
import numpy as np

import hpjax as hpx
from hpjax.engine import sharding
from tests.support.compare import same_bits
from tests.support.lanes import lanes_of
from tests.support.programs import quadratic


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


def test_empty_slots_are_restored_to_a_state_that_a_lane_has():
    """A loop in a user's step is computed for them, too: with zeros, ``while y < 10: y *= 2`` would never end."""
    lanes, _ = lanes_of(quadratic(), count=3, width=2)
    lanes.advance(5, False)
    lanes.restore(lanes.snapshot(), lanes.live, begun=True)
    slots = np.asarray(lanes._lanes.state[0])
    assert slots.shape == (1, 2, 2, 3)
    np.testing.assert_allclose(slots[0, 0], 1 - 0.8**5, rtol=1e-6)
    assert same_bits(slots[0, 1, 1], slots[0, 0, 0])


def test_a_dead_lane_alone_in_its_chunk_takes_no_step():
    """Its chunk comes up as long as the host has not read that it is over."""
    lanes, _ = lanes_of(quadratic(), count=2, width=1)
    lanes.advance(3, False)
    alive = sharding.put(np.array([[[False], [True]]]), lanes._mesh, sharding.SPLIT)
    lanes._inputs = lanes._inputs._replace(alive=alive)
    assert lanes.advance(6, False).iterations == 1
    assert np.asarray(lanes._lanes.step).ravel().tolist() == [3, 6]
    found = np.asarray(lanes._lanes.state[0]).reshape(2, 3)
    np.testing.assert_allclose(found, [[1 - 0.8**3] * 3, [1 - 0.8**6] * 3], rtol=1e-6)
