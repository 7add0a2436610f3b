"""A plain Flax + Optax loop that trains one trial alone; it uses nothing of hpjax but its keys and batch indices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hpjax.data import batch_indices
from hpjax.keys import lane_key, purpose_key, step_key

SEED = 7
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


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
    replicate=0,
    read=lambda outputs: outputs,
):
    """Parameters and validation losses of one trial.

    ``after_evaluation(losses, params, state)`` is called with all validation losses so far; it gives the optimizer's
    state, and True where training ends.
    """
    key = lane_key(SEED, replicate)
    x, y = (jax.tree.map(jnp.asarray, part) for part in (data.train.x, data.train.y))
    variables = model.init(purpose_key(key, "init"), jax.tree.map(lambda a: jnp.zeros((1, *a.shape[1:]), a.dtype), x))
    stats = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"] if params is None else params
    opt_state, mean = optimizer.init(params), params

    @jax.jit
    def step(params, stats, opt_state, mean, t):
        index = batch_indices(purpose_key(key, "batch"), t, len(jax.tree.leaves(x)[0]), batch_size)
        noise = step_key(purpose_key(key, "step"), t)
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

    losses = []
    for t in range(steps):
        params, stats, opt_state, mean = step(params, stats, opt_state, mean, t)
        if (t + 1) % eval_every == 0 or t + 1 == steps:
            losses.append(float(valid(mean, stats)))
            if after_evaluation is not None:
                opt_state, over = after_evaluation(losses, mean, opt_state)
                if over:
                    break
    return jax.tree.map(np.asarray, params), losses
