"""What a checkpoint costs: the seconds that devices wait for it, and those of a core that writing it takes."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import flax.linen as nn
import jax
import optax

import hpjax as hpx
from hpjax.results.store.checkpoints import Checkpoints

INTERVAL = 60.0


class MLP(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(self.width)(nn.relu(nn.Dense(self.width)(x)))))


def sweep_of(trials: int, width: int) -> hpx.Sweep:
    program = hpx.supervised(
        model=MLP(width),
        optimizer=lambda h: optax.adam(h.learning_rate),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=hpx.data.digits(),
        batch_size=64,
        steps=20,
        eval_every=2,
    )
    return hpx.Sweep(program, hpx.Space(learning_rate=hpx.LogUniform(1e-4, 1e-2)), trials=trials, seed=0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--width", type=int, default=256, help="Units of the hidden layers.")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 2)
    sweep = sweep_of(arguments.trials, arguments.width)
    size = sweep.plan().shapes[0].lane_bytes * arguments.trials
    print(f"{arguments.trials} lanes of {size / arguments.trials / 2**20:.2f} MiB, {size / 2**20:,.0f} MiB in all")

    made, written, save = [], [], Checkpoints.save

    def timed(self: Checkpoints, cut: object, took: float) -> None:
        """Writes alone, with all of the machine's cores idle but for it: nothing else's time is counted."""
        self.wait()
        begun = time.process_time()
        save(self, cut, took)
        self.wait()
        made.append(took)
        written.append(time.process_time() - begun)

    Checkpoints.save = timed
    with tempfile.TemporaryDirectory() as directory:
        for _ in sweep.events(Path(directory) / "run", checkpoint_seconds=0.0):
            pass
    wait, core = statistics.median(made), statistics.median(written)
    print(f"median of {len(made)}: devices wait {wait:.2f} s, and writing takes {core:.2f} s of one core beside them")
    print(f"at one a minute at most {(wait + core) / INTERVAL:.1%} of the run")


if __name__ == "__main__":
    main()
