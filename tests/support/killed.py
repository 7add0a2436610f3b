"""Sweeps to interrupt, and a process that trains one of them slowly: python -m tests.support.killed NAME DIRECTORY.

Where the environment names other processes it is one of several hosts, of two devices each.
"""

import dataclasses
import os
import signal
import sys
import time

import jax
import jax.numpy as jnp

import hpjax as hpx


def program(size=lambda h: 3, patience=None):
    """Noisy descent on (w − 1)², of 24 steps."""

    def init(key, h):
        return {"w": jnp.zeros(size(h)), "best": jnp.inf, "bad": jnp.int32(0)}

    def step(key, state, batch, h):
        w = state["w"] - h.rate * 2 * (state["w"] - 1 + 0.1 * jax.random.normal(key, state["w"].shape))
        return state | {"w": w}, {"loss": jnp.mean((w - 1) ** 2)}

    def evaluate(key, state, split, h):
        return {"loss": jnp.mean((state["w"] - 1) ** 2)}

    def react(state, metrics, h):
        better = metrics["valid/loss"] < state["best"]
        bad = jnp.where(better, 0, state["bad"] + 1)
        best = jnp.minimum(state["best"], metrics["valid/loss"])
        return state | {"best": best, "bad": bad}, bad >= (h.patience if patience else 99)

    return hpx.Program(init, step, evaluate, react=react, steps=24, eval_every=2)


RATES = hpx.Space(rate=hpx.LogUniform(1e-4, 1e3))
SIZES = hpx.Space(rate=hpx.LogUniform(1e-3, 3.0), size=hpx.Choice(1, 2, 3))
PATIENCE = hpx.Space(rate=hpx.LogUniform(1e-3, 0.9), patience=hpx.Int(1, 4))
POPULATION = hpx.Manual([{"rate": rate} for rate in (0.001, 0.01, 0.02, 0.03, 0.04, 500.0)])
GROUPS, ALONE = program(lambda h: h.size), program()
NOTED = dataclasses.replace(ALONE, artifacts=lambda key, state, split, h: {"w": state["w"], "rate": h.rate})
SWEEPS = {
    "groups": hpx.Sweep(GROUPS, SIZES, trials=12, width=2),
    "halving": hpx.Sweep(GROUPS, SIZES, trials=12, width=2, scheduler=hpx.Halving(factor=2, min_steps=4)),
    "population": hpx.Sweep(ALONE, RATES, sampler=POPULATION, width=2, scheduler=hpx.PBT(every=4)),
    "artifacts": hpx.Sweep(NOTED, RATES, sampler=POPULATION, width=2, scheduler=hpx.PBT(every=4), artifacts="best:2"),
    "early stopping": hpx.Sweep(program(patience=True), PATIENCE, trials=12, width=4, replicates=2),
    "rounds": hpx.Sweep(ALONE, RATES, trials=6, rounds=3, replicates=2, sampler=hpx.Bayes(initial=2), width=2),
}
# Those whose sizes share a padded program.
PADDED = {"groups", "halving"}

if __name__ == "__main__":
    name, directory = sys.argv[1:]
    # A shell has what it starts in the background ignore it, and so does all that is started there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "JAX_NUM_PROCESSES" in os.environ:
        jax.config.update("jax_num_cpu_devices", 2)
        address = os.environ["JAX_COORDINATOR_ADDRESS"]
        hpx.distributed.initialize(heartbeat_timeout_seconds=10, coordinator_bind_address=address)
    for event in SWEEPS[name].events(directory, checkpoint_seconds=0.0):
        print(event.kind, getattr(event, "group", -1), getattr(event, "step", 0), flush=True)
        time.sleep(0.05)
