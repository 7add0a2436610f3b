"""What tuning a step by hand gains on a CPU: the MLP of the table written in several ways, in turns with the plainest.

python experiments/benchmarks/variants.py [NAME ...] [--rounds 9]

prints for each how many times as fast as the plainest it is: a ratio of medians, and the range of the rounds'. All
train the same lanes on the same batches, a device a core, and come to the same losses up to rounding.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import mlp
import numpy as np
import optax
import table
from jax import lax
from jax.sharding import PartitionSpec as P
from worker import cores
from workload import points

TRIALS, WIDTH, STEPS = 64, 8, mlp.sweep.steps
SIZES = ((64, mlp.HIDDEN), (mlp.HIDDEN, mlp.HIDDEN), (mlp.HIDDEN, 10))


def weights(lanes: int):
    """Returns kernels (in, out) and biases (out,), the same in each lane: (lanes, ...)."""
    keys = jax.random.split(jax.random.key(0), len(SIZES))
    drawn = [(jax.random.normal(k, (n, m)) / np.sqrt(n), jnp.zeros(m)) for k, (n, m) in zip(keys, SIZES, strict=True)]
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (lanes, *a.shape)), drawn)


def cross_entropy(outputs, y):
    labels = jnp.broadcast_to(y, outputs.shape[:-1])
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean(-1)


def updated(h, params, momentum, grads):
    """Returns what a step of SGD with momentum and weight decay makes of arrays whose lanes lie as in ``h``."""
    momentum = jax.tree.map(lambda p, m, g: h["momentum"] * m + g + h["weight_decay"] * p, params, momentum, grads)
    return jax.tree.map(lambda p, m: p - h["learning_rate"] * m, params, momentum), momentum


def plain():
    """Writes the step as vmap, grad and Optax make it."""

    def loss(params, x, y):
        for kernel, bias in params[:-1]:
            x = jax.nn.relu(x @ kernel + bias)
        return cross_entropy(x @ params[-1][0] + params[-1][1], y)

    def step(h, params, state, x, y):
        def of_lane(h, params, state):
            value, grads = jax.value_and_grad(loss)(params, x, y)
            updates, state = mlp.optimizer(h).update(grads, state, params)
            return optax.apply_updates(params, updates), state, value

        return jax.vmap(of_lane)(h, params, state)

    def begin(h, params):
        return params, jax.vmap(lambda h, p: mlp.optimizer(h).init(p))(h, params)

    return begin, step


def written_out(transposed: bool = False):
    """Writes gradients out, and updates each weight where its gradient is made; kernels perhaps stored as (out, in)."""
    forward, back, outer = (
        ("lbi,loi->lbo", "lbo,loi->lbi", "lbo,lbi->loi")
        if transposed
        else ("lbi,lio->lbo", "lbo,lio->lbi", "lbi,lbo->lio")
    )

    def begin(h, params):
        params = [(jnp.swapaxes(kernel, 1, 2) if transposed else kernel, bias) for kernel, bias in params]
        return params, jax.tree.map(jnp.zeros_like, params)

    def step(h, params, momentum, x, y):
        lanes = len(h["momentum"])
        inputs = [jnp.broadcast_to(x, (lanes, *x.shape))]
        for kernel, bias in params[:-1]:
            inputs.append(jax.nn.relu(jnp.einsum(forward, inputs[-1], kernel) + bias[:, None]))
        outputs = jnp.einsum(forward, inputs[-1], params[-1][0]) + params[-1][1][:, None]
        value, found = cross_entropy(outputs, y), [None] * len(params)
        error = (jax.nn.softmax(outputs) - jax.nn.one_hot(y, outputs.shape[-1])) / len(y)
        for i in reversed(range(len(params))):
            kernel, bias = params[i]
            operands = (error, inputs[i]) if transposed else (inputs[i], error)
            grads = jnp.einsum(outer, *operands), error.sum(1)
            below = jnp.einsum(back, error, kernel) * (inputs[i] > 0) if i else None
            of = [jax.tree.map(lambda v, a=a: v.reshape(-1, *(1,) * (a.ndim - 1)), h) for a in (kernel, bias)]
            pairs = [updated(o, p, m, g) for o, p, m, g in zip(of, (kernel, bias), momentum[i], grads, strict=True)]
            found[i], error = tuple(zip(*pairs, strict=True)), below
        return [params for params, _ in found], [momentum for _, momentum in found], value

    return begin, step


def wide_first_layer():
    """Stores the first kernel as (in, lanes × out): all lanes have the same batch, so each of its products is one."""

    def begin(h, params):
        params = [(jnp.swapaxes(params[0][0], 0, 1), params[0][1]), *params[1:]]
        return params, jax.tree.map(jnp.zeros_like, params)

    def loss(params, x, y):
        kernel, bias = params[0]
        n, lanes, m = kernel.shape
        x = (x @ kernel.reshape(n, lanes * m)).reshape(len(x), lanes, m)
        x = jnp.swapaxes(jax.nn.relu(x + bias), 0, 1)
        x = jax.nn.relu(x @ params[1][0] + params[1][1][:, None])
        value = cross_entropy(x @ params[2][0] + params[2][1][:, None], y)
        return value.sum(), value

    def step(h, params, momentum, x, y):
        (_, value), grads = jax.value_and_grad(loss, has_aux=True)(params, x, y)
        first = jax.tree.map(lambda v: v[None, :, None], h)
        of_first = updated(first, params[0][0], momentum[0][0], grads[0][0])
        rest = [
            updated(jax.tree.map(lambda v, p=p: v.reshape(-1, *(1,) * (p.ndim - 1)), h), p, m, g)
            for p, m, g in zip(*(jax.tree.leaves(tree)[1:] for tree in (params, momentum, grads)), strict=True)
        ]
        structure = jax.tree.structure(params)
        return *(jax.tree.unflatten(structure, each) for each in zip(of_first, *rest, strict=True)), value

    return begin, step


VARIANTS: dict[str, tuple[Callable, int]] = {
    "as vmap, grad and Optax make it, 8 lanes at once": (plain, 8),
    "4 lanes at once": (plain, 4),
    "16 lanes at once": (plain, 16),
    "gradients and updates written out": (written_out, 8),
    "the same, kernels stored transposed": (partial(written_out, transposed=True), 8),
    "the first layer as one wide product": (wide_first_layer, 8),
}


def compiled(make: Callable, width: int) -> Callable[[], np.ndarray]:
    """Returns a function that trains all lanes, in chunks of ``width`` on each device, and gives their losses."""
    begin, step = make()
    arrays = mlp.sweep.arrays(TRIALS)
    h = {name: jnp.asarray(values) for name, values in points(arrays).items()}
    x, y = jnp.asarray(arrays["x"]), jnp.asarray(arrays["y"])
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("lanes",))

    def chunk(h, x, y):
        def body(carry, key):
            at = jax.random.randint(key, (mlp.sweep.batch,), 0, len(x))
            *carry, value = step(h, *carry, x[at], y[at])
            return tuple(carry), value

        keys = jax.random.split(jax.random.key(1), STEPS)
        return lax.scan(body, begin(h, weights(width)), keys)[1][-10:].mean(0)

    def device(h, x, y):
        return lax.map(lambda h: chunk(h, x, y), jax.tree.map(lambda v: v.reshape(-1, width), h)).reshape(-1)

    specs = (P("lanes"), P(), P())
    run = jax.jit(jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=P("lanes"), check_vma=False))
    return lambda: np.asarray(run(h, x, y))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="; ".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", cores())
    first, *others = VARIANTS
    runs = {name: compiled(*VARIANTS[name]) for name in (first, *(given.names or others))}
    losses = {name: run() for name, run in runs.items()}
    for name, found in losses.items():  # at high learning rates rounding grows, so not of all lanes
        assert np.median(np.abs(found / losses[first] - 1)) < 1e-4, name
    laps: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            laps[name].append(time.perf_counter() - begun)
    rows = []
    for name in runs:
        every = [base / own for base, own in zip(laps[first], laps[name], strict=True)]
        ratio = statistics.median(laps[first]) / statistics.median(laps[name])
        rows.append((name, f"{ratio:.2f}×", f"{min(every):.2f}×…{max(every):.2f}×"))
    print(table.markdown(rows, ("the step of the MLP", "speed", "of any round")))


if __name__ == "__main__":
    main()
