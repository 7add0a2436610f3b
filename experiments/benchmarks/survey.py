"""What collapses under vmap: operations at 16 lanes and at one, forward and backward, inside a scan.

python experiments/benchmarks/survey.py [NAME ...]

prints, for each, the time of a lane among 16 over that of one lane alone: 1 where vmap costs nothing, below where it
helps. Medians of alternating runs.
"""

import statistics
import sys
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

LANES, STEPS, ROUNDS = 16, 50, 9
KEY = jax.random.key(0)
x, y = jax.random.normal(KEY, (64, 64)), jax.random.normal(jax.random.key(1), (64, 64))
labels = jnp.asarray(np.random.default_rng(0).integers(0, 64, 512), jnp.int32)
image = jax.random.normal(KEY, (16, 14, 14, 8))


def attention(x):
    return nn.dot_product_attention(*(x.reshape(2, 32, 4, 16),) * 3)


def batch_norm(x):
    mean, variance = x.mean(0), x.var(0)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5)


def updated(optimizer):
    """Returns a function that updates a matrix by an optimizer."""

    def update(w):
        updates, _ = optimizer.update(w, optimizer.init(w), w)
        return w + updates

    return update


# Each of one array, to be differentiated unless it is marked so.
OPERATIONS = {
    "dense": lambda x: x @ y,
    "softmax": jax.nn.softmax,
    "layer norm": lambda x: jax.nn.standardize(x),
    "batch norm": batch_norm,
    "attention": attention,
    "embedding": lambda x: x[labels],
    "gather": lambda x: jnp.take_along_axis(x, labels[:64, None], 1),
    "scatter": lambda x: jnp.zeros((64, 64)).at[labels[:64]].add(x),
    "segment sum": lambda x: jax.ops.segment_sum(x, labels[:64], 64),
    "cumsum": lambda x: jnp.cumsum(x, 0),
    "cumprod": lambda x: jnp.cumprod(1 + 0.01 * x, 0),
    "cummax": lambda x: jax.lax.cummax(x, 0),
    "sort": lambda x: jnp.sort(x, 0),
    "argsort": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 0), 0),
    "top k": lambda x: jax.lax.top_k(x, 8)[0],
    "cond": lambda x: jax.lax.cond(x[0, 0] > 0, jnp.tanh, lambda x: x @ y, x),
    "dropout": lambda x: jnp.where(jax.random.bernoulli(KEY, 0.9, x.shape), x, 0),
    "noise": lambda x: x + jax.random.normal(jax.random.fold_in(KEY, jnp.int32(x[0, 0])), x.shape),
    "SGD, momentum": updated(optax.sgd(0.1, 0.9)),
    "Adam": updated(optax.adam(0.1)),
    "global norm": updated(optax.clip_by_global_norm(1.0)),
    "convolution, as XLA has it": lambda x: jax.lax.conv_general_dilated(
        x[0, 0] * image, x[:9, :].reshape(3, 3, 8, 8), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "max pooling, as XLA has it": lambda x: nn.max_pool(x.reshape(1, 16, 16, 16), (2, 2), (2, 2)),
}
# Of integers, or with no gradient of interest.
FORWARD = {"SGD, momentum", "Adam", "global norm"}


def repeated(name, operation):
    """Returns a scan of steps of an operation, each of which depends on the one before."""

    def step(x, _):
        if name in FORWARD:
            return operation(x) * 0.999, None
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(operation(x))))(x)
        return x - 1e-3 * gradient, None

    return lambda x: jax.lax.scan(step, x, None, STEPS)[0]


def ratio(name):
    """Measures the time of a lane among many over that of one alone."""
    run = repeated(name, OPERATIONS[name])
    sides = ((jax.jit(run), x), (jax.jit(jax.vmap(run)), x + 0.01 * jax.random.normal(KEY, (LANES, *x.shape))))
    times = [[], []]
    for lap in range(ROUNDS + 1):
        for side, (function, given) in enumerate(sides):
            begun = time.perf_counter()
            jax.block_until_ready(function(given))
            if lap:  # the first compiles
                times[side].append(time.perf_counter() - begun)
    alone, many = map(statistics.median, times)
    return many / LANES / alone


def main():
    print("| operation | a lane among 16, over one alone |\n| --- | --- |")
    for name in sys.argv[1:] or OPERATIONS:
        print(f"| {name} | {ratio(name):.2f} |", flush=True)


if __name__ == "__main__":
    main()
