"""A plain Flax + Optax loop that trains one trial alone; it uses nothing of hpjax but its keys and batch indices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from scipy.special import log_softmax

from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.data.batches import batch_indices

SEED = 7
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


@functools.cache
def drawn(replicate, examples, batch_size, steps):
    """Of each step the indices of its batch, and the data of its key."""
    key, t = lane_key(SEED, replicate), jnp.arange(steps)
    indices = jax.vmap(lambda t: batch_indices(purpose_key(key, "batch"), t, examples, batch_size))(t)
    keys = jax.vmap(lambda t: jax.random.key_data(step_key(purpose_key(key, "step"), t)))(t)
    return np.asarray(indices), np.asarray(keys)


def train_alone(
    data,
    *,
    model,
    optimizer,
    loss=cross_entropy,
    steps=12,
    batch_size=16,
    eval_every=4,
    penalty=None,
    augment=None,
    average=None,
    params=None,
    after_evaluation=None,
    final=lambda params: params,
    replicate=0,
    read=lambda outputs: outputs,
    shuffle=True,
):
    """Parameters and validation losses of one trial; without ``shuffle`` the examples come in their order.

    ``after_evaluation(losses, params, state)`` is called with all validation losses so far; it gives the optimizer's
    state, and True where training ends. ``final`` gives what is returned of the last parameters.
    """
    key = lane_key(SEED, replicate)
    x, y = (jax.tree.map(jnp.asarray, part) for part in (data.train.x, data.train.y))
    one = jax.tree.map(lambda a: jnp.zeros((1, *a.shape[1:]), a.dtype), data.valid.x)
    variables = model.init(purpose_key(key, "init"), one)
    stats = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"] if params is None else params
    opt_state, mean = optimizer.init(params), params

    @jax.jit
    def step(params, stats, opt_state, mean, index, noise):
        noise = jax.random.wrap_key_data(noise)
        batch = (x[index], y[index])
        if augment is not None:
            batch = augment(jax.random.fold_in(noise, 2), *batch)

        def objective(params):
            outputs, updated = model.apply(
                {"params": params, **stats}, batch[0], train=True, rngs={"dropout": noise}, mutable=list(stats)
            )
            total = loss(read(outputs), batch[1]).mean()
            return total + (0 if penalty is None else penalty(params)), updated

        grads, updated = jax.grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        mean = params if average is None else optax.incremental_update(params, mean, 1 - average)
        return params, {**stats, **updated}, opt_state, mean

    @jax.jit
    def valid(params, stats):
        outputs = model.apply({"params": params, **stats}, data.valid.x, train=False)
        return loss(read(outputs), data.valid.y).mean()

    indices, noise = drawn(replicate, len(jax.tree.leaves(x)[0]), batch_size, steps)
    if not shuffle:
        indices = np.arange(steps * batch_size).reshape(steps, batch_size)
    losses = []
    for t in range(steps):
        params, stats, opt_state, mean = step(params, stats, opt_state, mean, indices[t], noise[t])
        if (t + 1) % eval_every == 0 or t + 1 == steps:
            losses.append(float(valid(mean, stats)))
            if after_evaluation is not None:
                opt_state, over = after_evaluation(losses, mean, opt_state)
                if over:
                    break
    return jax.tree.map(np.asarray, final(params)), losses


class FromNnx:
    """An NNX model of ``build(rngs)`` behind Linen's two functions."""

    def __init__(self, build):
        self.build = build

    def init(self, key, x):
        return {"params": nnx.to_pure_dict(nnx.state(self.build(nnx.Rngs(key)), nnx.Param))}

    def apply(self, variables, x, train=False, rngs=None, mutable=None):
        model = self.build(nnx.Rngs(0))
        nnx.update(model, variables["params"])
        (model.train if train else model.eval)()
        if rngs is not None:
            nnx.reseed(model, default=rngs["dropout"])
        return model(x) if mutable is None else (model(x), {})


def learn_alone(data, *, example, learning_rate, epsilon, decay, replicate, steps=200, eval_every=100):
    """Q-learning in NumPy, with the numbers of each step's key: the last state, and the returns of greedy walks."""
    key = purpose_key(lane_key(SEED, replicate), "step")
    draws = np.asarray(jax.vmap(lambda t: jax.random.uniform(step_key(key, t), (2,)))(jnp.arange(steps)))
    q, cell, returns = np.zeros((example.CELLS, 2)), 2, []
    ends = {0: example.SMALL, example.CELLS - 1: example.LARGE}
    for t in range(steps):
        explores = draws[t, 0] < epsilon * decay**t
        action = int(draws[t, 1] < 0.5) if explores else int(np.argmax(q[cell]))
        after = cell + 2 * action - 1
        target = ends[after] if after in ends else example.DISCOUNT * q[after].max()
        q[cell, action] += learning_rate * (target - q[cell, action])
        cell = 2 if after in ends else after
        if (t + 1) % eval_every == 0:
            returns.append(walked(q, ends, example))
    return {"cell": cell, "q": q, "steps": steps}, returns


def walked(q, ends, example):
    cell = 2
    for t in range(2 * example.CELLS):
        cell += 2 * int(np.argmax(q[cell])) - 1
        if cell in ends:
            return example.DISCOUNT**t * ends[cell]
    return 0.0


def search_alone(data, *, example, learning_rate, width, replicate, steps=200, eval_every=50):
    """A bigram model by gradient descent in closed form, and beam search with lists."""
    pairs, letters = example.program.data.train, example.LETTERS
    counts = np.zeros((letters, letters))
    np.add.at(counts, tuple(pairs.T), 1)
    table, found = np.zeros((letters, letters)), []
    for t in range(steps):
        log_p = log_softmax(table, axis=1)
        table -= learning_rate * (np.exp(log_p) * counts.sum(1, keepdims=True) - counts) / len(pairs)
        if (t + 1) % eval_every == 0:
            found.append(best_word(log_softmax(table, axis=1), width, example.LENGTH))
    return table, found


def best_word(log_p, width, length):
    beams = [(0.0, 0)]
    for _ in range(length):
        grown = [(score + log_p[letter, new], new) for score, letter in beams for new in range(len(log_p))]
        beams = sorted(grown, key=lambda beam: -beam[0])[:width]
    return beams[0][0]
