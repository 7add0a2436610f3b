"""What an expert writes in JAX without hpjax: one training function, run in every way that there is.

Shared randomness in all of them: the key is not batched, so that one gathered batch feeds all lanes.
"""

import time

from mlp import flops
from worker import Prepared, cores
from workload import points


def trainer(workload, steps=None):
    """Returns ``train(h, data)``, which gives the mean validation loss in the end, and the functions in it.

    With ``steps`` it makes only so many, and gives the mean training loss.
    """
    import jax
    import optax

    model, loss = workload.model(), optax.softmax_cross_entropy_with_integer_labels

    def start(h, data):
        params = model.init(jax.random.key(0), data[0][:1])
        return params, workload.optimizer(h).init(params)

    def step(carry, key, h, data):
        params, state = carry
        x, y = data[:2]
        batch = jax.random.randint(key, (workload.batch,), 0, len(x))
        x, y = x[batch], y[batch]
        value, grads = jax.value_and_grad(lambda params: loss(model.apply(params, x), y).mean())(params)
        updates, state = workload.optimizer(h).update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    def evaluate(params, data):
        return loss(model.apply(params, data[2]), data[3]).mean()

    def keys():
        return jax.random.split(jax.random.key(1), steps or workload.steps)

    def train(h, data):
        (params, _), losses = jax.lax.scan(lambda c, key: step(c, key, h, data), start(h, data), keys())
        return losses.mean() if steps else evaluate(params, data)

    return train, (start, step, evaluate, keys)


def given(arrays, trials=None):
    """Returns the hyperparameters of the first ``trials`` and the data, as arrays of JAX."""
    import jax.numpy as jnp

    h = {name: jnp.asarray(values[:trials]) for name, values in points(arrays).items()}
    return h, tuple(jnp.asarray(arrays[name]) for name in ("x", "y", "valid_x", "valid_y"))


def cut(workload, steps):
    """Returns which share of the work so many steps are, and a note that says so."""
    return (1.0, "") if steps is None else (steps / workload.steps, f"{steps} of {workload.steps} steps timed")


def on_host(losses):
    import numpy as np

    return np.asarray(losses).reshape(-1)


def together(workload, arrays, steps=None):
    """Returns ``jit(vmap(scan))``, and its arguments."""
    import jax

    train, _ = trainer(workload, steps)
    return jax.jit(jax.vmap(train, in_axes=(0, None))), given(arrays)


def vmapped(workload, arrays, steps=None):
    """Trains the whole sweep in one call."""
    import jax

    function, arguments = together(workload, arrays, steps)
    share, note = cut(workload, steps)

    def run():
        found = jax.block_until_ready(function(*arguments))
        return None if steps else on_host(found)

    return Prepared(run, share, note)


def _parts(arrays, trials):
    """Returns hyperparameters of some trials spread over all of them, the data, and what to say of it."""
    import jax
    import numpy as np

    h, data = given(arrays)
    total = len(next(iter(h.values())))
    chosen = np.linspace(0, total - 1, trials or total).astype(int)
    listed = [jax.tree.map(lambda x, i=i: x[i], h) for i in chosen]
    return (
        listed,
        data,
        {
            "share": len(listed) / total,
            "note": f"{len(listed)} of {total} trials timed" if trials else "",
            "chosen": chosen.tolist(),
        },
    )


def scanned(workload, arrays, trials=None):
    """Trains one trial after the other, each a jitted scan, compiled once."""
    import jax

    train, _ = trainer(workload)
    listed, data, about = _parts(arrays, trials)
    alone = jax.jit(train)

    def run():
        return on_host([jax.block_until_ready(alone(h, data)) for h in listed])

    return Prepared(run, **about)


def stepped(workload, arrays, trials=None):
    """Trains one trial after the other, each a jitted step in a loop of Python."""
    import jax

    _, (start, step, evaluate, keys) = trainer(workload)
    listed, data, about = _parts(arrays, trials)
    begin, move, look = jax.jit(start), jax.jit(step, donate_argnums=0), jax.jit(evaluate)
    drawn = list(keys())

    def alone(h):
        carry = begin(h, data)
        for key in drawn:
            carry, _ = move(carry, key, h, data)
        return jax.block_until_ready(look(carry[0], data))

    return Prepared(lambda: on_host([alone(h) for h in listed]), **about)


def by_hand(workload, arrays, widths=(4, 8, 16, 32)):
    """Trains as tuned for this machine: a device a core, on each chunks of the best width, no bookkeeping."""
    import jax
    import numpy as np
    from jax import lax
    from jax.sharding import PartitionSpec as P

    jax.config.update("jax_num_cpu_devices", cores())
    train, _ = trainer(workload)
    h, data = given(arrays)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("lanes",))

    def of(width):
        def device(h, data):
            chunks = jax.tree.map(lambda x: x.reshape(-1, width), h)
            return lax.map(lambda h: jax.vmap(train, in_axes=(0, None))(h, data), chunks)

        program = jax.jit(
            jax.shard_map(device, mesh=mesh, in_specs=(P("lanes"), P()), out_specs=P("lanes"), check_vma=False)
        )
        return lambda: on_host(jax.block_until_ready(program(h, data)))

    trials = len(next(iter(h.values())))
    return best_of({w: of(w) for w in widths if trials % (w * len(jax.devices())) == 0}, "width")


def best_of(runs, what):
    """Returns the fastest of several ways to run, by their second and third run."""
    first, best = {}, {}
    for name, run in runs.items():
        laps = []
        for _ in range(3):
            begun = time.perf_counter()
            run()
            laps.append(time.perf_counter() - begun)
        first[name], best[name] = laps[0], min(laps[1:])
    name = min(best, key=best.get)
    return Prepared(runs[name], note=f"{what} {name}, the best of {', '.join(map(str, runs))}", first=first[name])


def hyperoptax(workload, arrays):
    """Trains all trials at once in hyperoptax's RandomSearch; its points are its own, of the same ranges."""
    import jax
    from hyperoptax import LinearSpace, LogSpace, RandomSearch

    train, _ = trainer(workload)
    h, data = given(arrays)
    trials = len(next(iter(h.values())))
    space = {
        name: (LogSpace if name in workload.logarithmic else LinearSpace)(*limits)
        for name, limits in workload.ranges.items()
    }
    state, optimizer = RandomSearch.init(space, n_parallel=trials)
    # Compiled, it samples in no time, but compiles for a minute or two; not compiled, it takes a tenth of the run.
    optimizer.get_next_params = jax.jit(optimizer.get_next_params)
    # A lane's own key is not used: with batches of its own each lane would gather for itself, which is slower.
    alone = jax.jit(lambda key, h: train(h, data))

    def run():
        _, (_, results) = optimizer.optimize(state, jax.random.key(0), alone, n_iterations=1)
        return on_host(jax.block_until_ready(results[0]))

    return Prepared(run)


def matrix_products(workload, arrays, size=256):
    """Computes as much as the sweep in float32 products of square matrices, on all cores: the machine's rate."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import PartitionSpec as P

    jax.config.update("jax_num_cpu_devices", cores())
    trials = len(next(iter(points(arrays).values())))
    devices = len(jax.devices())
    products = round(flops() * workload.steps * trials / (2 * size**3 * devices))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("lanes",))

    def device(a):
        return jax.lax.fori_loop(0, products, lambda _, c: a[0] @ c, a[0])[None]

    program = jax.jit(jax.shard_map(device, mesh=mesh, in_specs=P("lanes"), out_specs=P("lanes"), check_vma=False))
    # Orthogonal, so that the products neither grow nor vanish.
    a = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(devices, size, size)))[0].astype(np.float32))

    def run():
        jax.block_until_ready(program(a))

    rate = 2 * size**3 * products * devices / 1e9
    return Prepared(run, note=f"{rate:.0f} GFLOP in products of {size}")
