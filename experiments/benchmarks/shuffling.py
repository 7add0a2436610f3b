"""Where the order of examples is best computed: in each step, as hpjax does, or of all steps of a segment before them.

python experiments/benchmarks/shuffling.py [--rounds 9]

prints for both, of 8 lanes of the MLP, CPU seconds to compile, and the time of the steps in turns; and kernels a step
on an H100, where the extra gpu-target is installed.
"""

import argparse
import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import mlp
import table
from jax import lax
from variants import WIDTH, plain, weights
from workload import points

SEGMENT = 100


def segment(before, h, carry, x, y, key, first, chunks):
    """Trains ``chunks`` chunks one after the other, a hundred steps from ``first`` on; all arguments are traced."""
    from hpjax.data import batch_indices

    _, step = plain()
    draw = partial(batch_indices, key, examples=len(x), batch_size=mlp.sweep.batch)

    def chunk(_, carry):
        # How many steps there are is known to the second way alone, whose array of indices needs a shape.
        drawn = jax.vmap(draw)(first + jnp.arange(SEGMENT)) if before else None

        def body(t, carry):
            at = drawn[t - first] if before else draw(t)
            return tuple(step(h, *carry, x[at], y[at])[:2])

        return lax.fori_loop(first, first + SEGMENT, body, carry)

    return lax.fori_loop(0, chunks, chunk, carry)


def arguments():
    arrays = mlp.sweep.arrays(WIDTH)
    h = {name: jnp.asarray(values) for name, values in points(arrays).items()}
    begin, _ = plain()
    x, y = jnp.asarray(arrays["x"]), jnp.asarray(arrays["y"])
    return h, begin(h, weights(WIDTH)), x, y, jax.random.key(0), jnp.int32(0), jnp.int32(1)


def kernels(before, given):
    """Returns how many kernels a step is on an H100; a dash where there is no compiler for it."""
    import hpjax as hpx
    from hpjax.engine.hlo import CompiledText
    from hpjax.engine.targets import described

    try:
        (device,) = described("h100", 1).devices
    except hpx.InputError as error:
        print(f"No kernels: {error}")
        return "—"
    place = jax.sharding.SingleDeviceSharding(device)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), given)
    compiled = jax.jit(partial(segment, before)).lower(*shapes).compile()
    return f"{CompiledText(compiled.as_text()).step.kernels:.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    given, ways = arguments(), {"in each step": False, "of all steps before": True}
    runs, compiling, laps = {}, {}, {name: [] for name in ways}
    for name, before in ways.items():
        taken = []
        for _ in range(3):
            jax.clear_caches()
            lowered = jax.jit(partial(segment, before)).lower(*given)
            begun = time.process_time()
            runs[name] = lowered.compile()
            taken.append(time.process_time() - begun)
        compiling[name] = statistics.median(taken)
        jax.block_until_ready(runs[name](*given))
    for _ in range(rounds):
        for name, run in runs.items():
            begun = time.perf_counter()
            for _ in range(10):
                found = run(*given)
            jax.block_until_ready(found)
            laps[name].append(time.perf_counter() - begun)
    usual = statistics.median(laps["in each step"])
    rows = [
        (name, f"{compiling[name]:.2f}", f"{usual / statistics.median(laps[name]):.2f}×", kernels(before, given))
        for name, before in ways.items()
    ]
    print(table.markdown(rows, ("the order is computed", "CPU seconds to compile", "speed", "kernels a step, H100")))


if __name__ == "__main__":
    main()
