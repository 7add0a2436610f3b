"""Beam width, a hyperparameter of evaluate only: one trained model, many widths, in one program.

A bigram model of random walks over letters; the search looks for the likeliest word of a given length.

hpjax run experiments/axes/beam_search.py --dir runs/beam_search
"""

import jax
import jax.numpy as jnp
import numpy as np

import hpjax as hpx

LETTERS, LENGTH, WIDEST = 12, 8, 8


def pairs(count, seed=0):
    """Letters and their successors, drawn from a table of random odds."""
    rng = np.random.default_rng(seed)
    odds = rng.dirichlet(np.full(LETTERS, 0.3), LETTERS)
    first = rng.integers(0, LETTERS, count)
    return np.stack([first, [rng.choice(LETTERS, p=odds[letter]) for letter in first]], axis=1).astype(np.int32)


def init(key, h):
    return jnp.zeros((LETTERS, LETTERS))


def loss_of(table, batch):
    return -jax.nn.log_softmax(table)[batch[:, 0], batch[:, 1]].mean()


def step(key, table, batch, h):
    loss, slope = jax.value_and_grad(loss_of)(table, batch)
    return table - h.learning_rate * slope, {"loss": loss}


def beam_search(log_p, width):
    """The log-probability of the likeliest word that a beam of ``width``, at most WIDEST, finds from letter 0 on."""
    scores = jnp.where(jnp.arange(WIDEST) == 0, 0.0, -jnp.inf)
    letters = jnp.zeros(WIDEST, jnp.int32)

    def grow(_, beams):
        scores, letters = beams
        scores, best = jax.lax.top_k((scores[:, None] + log_p[letters]).reshape(-1), WIDEST)
        # Beams beyond the width are dropped, so that a wide program searches as a narrow one would.
        return jnp.where(jnp.arange(WIDEST) < width, scores, -jnp.inf), best % LETTERS

    return jax.lax.fori_loop(0, LENGTH, grow, (scores, letters))[0][0]


def evaluate(key, table, split, h):
    return {"loss": loss_of(table, split), "found": beam_search(jax.nn.log_softmax(table), h.width)}


everything = pairs(3_000)
program = hpx.Program(
    init, step, evaluate, hpx.Data(everything[:2_500], everything[2_500:], name="letters"), steps=200, eval_every=50
)

space = hpx.Space(learning_rate=hpx.Choice(20.0, 50.0), width=hpx.Int(1, WIDEST))

sweep = hpx.Sweep(program, space, trials=16, objective=hpx.maximize("valid/found"))
