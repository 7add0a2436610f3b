"""A script that sweeps, and prints which programs JAX compiled: python -m tests.support.cached METRIC."""

import sys

import jax

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
COMPILED, KEPT = [], "/jax/compilation_cache/cache_hits"
hits = []
jax.monitoring.register_event_listener(lambda event, **more: hits.append(event) if event == KEPT else None)
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **more: (
        COMPILED.append(more.get("fun_name")) if event == "/jax/core/compile/backend_compile_duration" else None
    )
)
print(jax.numpy.arange(3).sum())  # JAX is in use before the sweep

import jax.numpy as jnp  # noqa: E402

import hpjax as hpx  # noqa: E402

METRICS = {"squared": lambda w: (w - 1) ** 2, "absolute": lambda w: jnp.abs(w - 1)}

if __name__ == "__main__":
    measure = METRICS[sys.argv[1]]
    program = hpx.Program(
        lambda key, h: jnp.zeros(()),
        lambda key, w, batch, h: (w - h.rate * (w - 1), {}),
        lambda key, w, split, h: {"loss": measure(w)},
        steps=4,
    )
    sweep = hpx.Sweep(program, hpx.Space(rate=hpx.Choice(0.1, 0.2)), sampler=hpx.Grid(), width=2)
    print(str(sweep.plan()).splitlines()[3])
    COMPILED.clear()
    hits.clear()
    found = sweep.run(progress=False)
    print(len(COMPILED) - len(hits), "compiled")
    print(found.last("valid/loss").tolist())
