"""Does the best learning rate of a deep residual network stay that of a shallow one? With CompleteP, and without.

python experiments/transfer/depths.py [--data FOLDER] [--out FOLDER] [--smoke]

The folder holds mnist1d.npz; without it the digits of scikit-learn are learned.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from transfer import adam, training_data

import hpjax as hpx

BASE, DEPTHS, WIDTH = 2, (2, 4, 8, 16), 64


class Residual(nn.Module):
    """Blocks of two layers, each of which adds to its input what it makes of it, times `branch`."""

    width: int
    depth: int
    branch: float

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width)(x)
        for _ in range(self.depth):
            y = nn.Dense(self.width)(nn.LayerNorm()(x))
            x += self.branch * nn.Dense(self.width)(nn.relu(y))
        return nn.Dense(10, kernel_init=nn.initializers.zeros)(nn.LayerNorm()(x))


def model_of(h):
    """CompleteP, where it is asked for; a branch is multiplied by 1 in the base model with it and without."""
    return Residual(h.width, h.depth, jnp.where(h.mup, hpx.mup.residual(h.depth, BASE), 1.0))


def study_of(data, depths=DEPTHS, width=WIDTH, steps=100, batch_size=1000):
    program = hpx.supervised(
        model=model_of,
        optimizer=adam,
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=data,
        batch_size=batch_size,
        steps=steps,
    )
    space = hpx.Space(learning_rate=hpx.LogUniform(2**-12, 2**-4, num=9))
    return hpx.studies.Transfer(program, space, [width], depths)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of mnist1d.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer-depths"))
    parser.add_argument("--smoke", action="store_true", help="two depths, few steps")
    given = parser.parse_args()
    data = training_data(given.data)
    study = study_of(data, (1, 2), 16, 10, 100) if given.smoke else study_of(data)
    answer = study.run(given.out / data.name)
    print(answer)
    answer.plot(given.out / f"{data.name}.png")
    print(given.out / f"{data.name}.png")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
