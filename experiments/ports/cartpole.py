"""CartPole-v1 in JAX: the equations of Barto, Sutton and Anderson (1983), steps of 0.02 s, 500 of them at most.

An episode that is over begins anew by itself, and `returned` is the return of the last one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TAU, LIMIT = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02, 500


class State(NamedTuple):
    obs: jax.Array  # position, velocity, angle, angular velocity
    time: jax.Array
    returned: jax.Array


def reset(key):
    return State(jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05), jnp.int32(0), jnp.float32(0))


def step(key, state, action):
    """Returns the next state, the reward and whether the episode is over, in which case the state is a new one's."""
    _, dx, angle, spin = state.obs
    mass, sin, cos = CART + POLE, jnp.sin(angle), jnp.cos(angle)
    push = (jnp.where(action == 1, FORCE, -FORCE) + POLE * HALF_LENGTH * spin**2 * sin) / mass
    torque = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE * cos**2 / mass))
    pull = push - POLE * HALF_LENGTH * torque * cos / mass
    obs, time = state.obs + TAU * jnp.stack([dx, pull, spin, torque]), state.time + 1
    over = (jnp.abs(obs[0]) > 2.4) | (jnp.abs(obs[2]) > jnp.deg2rad(12)) | (time >= LIMIT)
    fresh = reset(key)
    after = State(obs, time, state.returned)
    new = State(fresh.obs, fresh.time, time.astype(jnp.float32))
    return jax.tree.map(lambda a, b: jnp.where(over, a, b), new, after), jnp.float32(1), over
