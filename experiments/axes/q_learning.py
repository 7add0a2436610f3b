"""ε and its decay in tabular Q-learning, in a program of one's own: every lane walks and explores for itself.

A corridor of cells with a small reward at the left end and a large one at the right; who never explores stays left.
C. Watkins and P. Dayan, "Q-learning", 1992.

hpjax run experiments/axes/q_learning.py --dir runs/q_learning
"""

import jax
import jax.numpy as jnp

import hpjax as hpx

CELLS, DISCOUNT, SMALL, LARGE = 9, 0.95, 0.1, 1.0


def move(cell, action):
    """The next cell, the reward, and whether the walk is over; action 0 goes left, 1 right."""
    after = jnp.clip(cell + 2 * action - 1, 0, CELLS - 1)
    reward = jnp.where(after == CELLS - 1, LARGE, jnp.where(after == 0, SMALL, 0.0))
    return after, reward, (after == 0) | (after == CELLS - 1)


def init(key, h):
    return {"q": jnp.zeros((CELLS, 2)), "cell": jnp.int32(2), "steps": jnp.int32(0)}


def step(key, state, batch, h):
    q, cell = state["q"], state["cell"]
    epsilon = h.epsilon * h.decay ** state["steps"].astype(float)
    explore, where = jax.random.uniform(key, (2,))
    action = jnp.where(explore < epsilon, (where < 0.5).astype(jnp.int32), jnp.argmax(q[cell]).astype(jnp.int32))
    after, reward, over = move(cell, action)
    target = reward + DISCOUNT * jnp.where(over, 0, q[after].max())
    error = target - q[cell, action]
    state = {
        "q": q.at[cell, action].add(h.learning_rate * error),
        "cell": jnp.where(over, 2, after),
        "steps": state["steps"] + 1,
    }
    return state, {"error": jnp.abs(error), "reward": reward}


def evaluate(key, state, split, h):
    """The discounted return of the greedy walk."""

    def walk(t, carry):
        cell, total, over = carry
        after, reward, ends = move(cell, jnp.argmax(state["q"][cell]).astype(jnp.int32))
        return after, total + jnp.where(over, 0, DISCOUNT**t * reward), over | ends

    _, total, _ = jax.lax.fori_loop(0, 2 * CELLS, walk, (jnp.int32(2), jnp.zeros(()), jnp.array(False)))
    return {"return": total}


program = hpx.Program(init, step, evaluate, steps=3_000, eval_every=300)

space = hpx.Space(
    learning_rate=hpx.LogUniform(0.01, 1.0),
    epsilon=hpx.Uniform(0, 1),
    decay=hpx.ReverseLogUniform(0.9, 0.9999),
)

sweep = hpx.Sweep(program, space, trials=64, replicates=4, objective=hpx.maximize("valid/return"))
