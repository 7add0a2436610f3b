"""A host of two on which alone a group fails: python -m tests.support.broken HOW DIRECTORY."""

import os
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import hpjax as hpx
from hpjax.engine.device_lanes import DeviceLanes
from hpjax.sweep.planning import programs as groups
from tests.support.failing import FULL, Failing
from tests.support.killed import SWEEPS

BROKEN = 2  # the kind whose group fails


def called_back(kind, step):
    if os.environ.get("BROKEN") == "callback" and int(kind) == BROKEN and step > 10:
        raise LookupError("broken")
    return np.float32(0)


def program():
    """Descent on (w − 1)² of 20 steps, w after t steps being 1 − (1 − rate)^t; kinds differ in their programs."""

    def step(key, state, batch, h):
        w, t = state
        noise = jax.pure_callback(
            called_back, jax.ShapeDtypeStruct((), jnp.float32), h.kind, t, vmap_method="sequential"
        )
        return (w + noise - h.rate * (w - 1), t + 1), {}

    def evaluate(key, state, split, h):
        return {"loss": (state[0] - 1) ** 2}

    return hpx.Program(lambda key, h: (jnp.zeros(()), jnp.int32(0)), step, evaluate, steps=20, eval_every=5)


SPACE = hpx.Space(rate=hpx.LogUniform(0.01, 0.5), kind=hpx.Choice(1, 2, 3, static=True))
POINTS = [{"rate": 0.01 * (i + 1), "kind": 1 + i % 3} for i in range(24)]
SWEEP = hpx.Sweep(program(), SPACE, sampler=hpx.Manual(POINTS), width=2)


def break_memory():
    """Has that group run out of memory on this host at the width 2, once it trains."""
    dispatch = DeviceLanes.dispatch

    def short(self, stop, *rest):
        if stop > 5 and self.config.width > 1 and self.table.trial[0] % 3 == BROKEN - 1:
            raise FULL
        dispatch(self, stop, *rest)

    DeviceLanes.dispatch = short


def break_compiler():
    """Has this host fail to compile that group."""
    compiling = groups.compiling

    def failing(config, h, *rest):
        if h.kind != BROKEN:
            return compiling(config, h, *rest)
        return Failing(NotImplementedError("no such primitive"))

    groups.compiling = failing


def break_padding():
    """Has this host fail to compile the padded program of another sweep."""
    compiling, own = groups.compiling, PADDED.program

    def failing(config, *rest):
        return compiling(config, *rest) if config.program is own else Failing(NotImplementedError("no such fusion"))

    groups.compiling = failing


PADDED = SWEEPS["groups"]
BREAK = {"callback": lambda: None, "memory": break_memory, "compiler": break_compiler, "padding": break_padding}

if __name__ == "__main__":
    how, directory = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 2)
    address = os.environ["JAX_COORDINATOR_ADDRESS"]
    hpx.distributed.initialize(heartbeat_timeout_seconds=10, coordinator_bind_address=address)
    warnings.simplefilter("ignore")
    if jax.process_index() == 1:
        os.environ["BROKEN"] = how
        BREAK[how]()
    for event in (PADDED if how == "padding" else SWEEP).events(directory):
        print(event.kind, getattr(event, "group", -1), getattr(event, "step", 0), flush=True)
