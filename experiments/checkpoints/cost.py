"""What checkpoints cost: the same sweep with many of them and with none, alternating; a large state on purpose."""

import argparse
import statistics
import tempfile
import time

import flax.linen as nn
import jax
import numpy as np
import optax

import hpjax as hpx
from hpjax.checkpoint import Checkpoints

INTERVAL = 60.0


class MLP(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(self.width)(nn.relu(nn.Dense(self.width)(x)))))


def sweep_of(trials: int, width: int, steps: int) -> hpx.Sweep:
    program = hpx.supervised(
        model=MLP(width),
        optimizer=lambda h: optax.adam(h.learning_rate),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=hpx.data.digits(),
        batch_size=64,
        steps=steps,
        eval_every=10,
    )
    return hpx.Sweep(program, hpx.Space(learning_rate=hpx.LogUniform(1e-4, 1e-2)), trials=trials, seed=0)


def seconds(sweep: hpx.Sweep, every: float) -> tuple[float, int]:
    """What the segments of a run in a directory took, with all between them, and how many checkpoints were written."""
    written, save = [], Checkpoints.save
    Checkpoints.save = lambda self, cut, took: written.append(save(self, cut, took))
    with tempfile.TemporaryDirectory() as directory:
        begun = None
        for event in sweep.events(directory, checkpoint_seconds=every):
            begun = begun or (time.perf_counter() if event.kind == "segment" else None)
        took = time.perf_counter() - begun
    Checkpoints.save = save
    return took, len(written)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--width", type=int, default=256, help="Units of the hidden layers.")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every", type=float, default=8.0, help="Seconds between checkpoints where there are many.")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 2)
    sweep = sweep_of(arguments.trials, arguments.width, arguments.steps)
    size = sweep.plan().shapes[0].lane_bytes * arguments.trials
    print(f"{arguments.trials} lanes of {size / arguments.trials / 2**20:.2f} MiB, {size / 2**20:,.0f} MiB in all")
    costs = []
    for _ in range(arguments.repeats):
        without, _ = seconds(sweep, 1e9)
        with_them, count = seconds(sweep, arguments.every)
        costs.append((with_them - without) / max(count, 1))
        print(f"{without:.1f} s without, {with_them:.1f} s with {count}: {costs[-1]:+.2f} s each", flush=True)
    cost = statistics.median(costs)
    low, high = np.min(costs), np.max(costs)
    print(f"a checkpoint costs {cost:.2f} s ({low:.2f} … {high:.2f}): {cost / INTERVAL:.1%} of the run at one a minute")


if __name__ == "__main__":
    main()
