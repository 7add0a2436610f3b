"""The parts of purejaxrl's PPO: network, steps of the environments, advantages, loss, and steps of the optimizer."""

from typing import NamedTuple

import cartpole
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import orthogonal


class ActorCritic(nn.Module):
    @nn.compact
    def __call__(self, obs):
        def mlp(out, scale):
            x = nn.tanh(nn.Dense(64, kernel_init=orthogonal(2**0.5))(obs))
            x = nn.tanh(nn.Dense(64, kernel_init=orthogonal(2**0.5))(x))
            return nn.Dense(out, kernel_init=orthogonal(scale))(x)

        return nn.log_softmax(mlp(2, 0.01)), mlp(1, 1.0)[..., 0]


class Transition(NamedTuple):
    obs: jax.Array
    action: jax.Array
    log_p: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    returned: jax.Array


def play(carry, _):
    """Steps all environments once."""
    state, env, rng = carry
    rng, choice, again = jax.random.split(rng, 3)
    log_p, value = state.apply_fn(state.params, env.obs)
    action = jax.random.categorical(choice, log_p)
    after, reward, done = jax.vmap(cartpole.step)(jax.random.split(again, len(action)), env, action)
    return (state, after, rng), Transition(env.obs, action, of(action, log_p), value, reward, done, after.returned)


def advantages(traj, last_value, c):
    def back(carry, t):
        gae, following = carry
        delta = t.reward + c["GAMMA"] * following * (1 - t.done) - t.value
        gae = delta + c["GAMMA"] * c["LAMBDA"] * (1 - t.done) * gae
        return (gae, t.value), gae

    return jax.lax.scan(back, (jnp.zeros_like(last_value), last_value), traj, reverse=True)[1]


def loss(params, traj, gae, apply_fn, c):
    (log_p, value), eps = apply_fn(params, traj.obs), c["CLIP"]
    ratio, target = jnp.exp(of(traj.action, log_p) - traj.log_p), gae + traj.value
    scaled = (gae - gae.mean()) / (gae.std() + 1e-8)
    actor = -jnp.minimum(ratio * scaled, ratio.clip(1 - eps, 1 + eps) * scaled).mean()
    near = traj.value + (value - traj.value).clip(-eps, eps)
    critic = 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2).mean()
    entropy = -(jnp.exp(log_p) * log_p).sum(-1).mean()
    return actor + c["VALUE"] * critic - c["ENTROPY"] * entropy


def learn(state, traj, gae, c):
    """Takes a step of the optimizer on one minibatch."""
    return state.apply_gradients(grads=jax.grad(loss)(state.params, traj, gae, state.apply_fn, c))


def of(action, log_p):
    return jnp.take_along_axis(log_p, action[..., None], axis=-1)[..., 0]
