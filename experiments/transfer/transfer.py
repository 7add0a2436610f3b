"""Does the best learning rate of a wide model stay that of a narrow one? With μP, and without.

python experiments/transfer/transfer.py [--steps 40] [--data FOLDER] [--out FOLDER] [--smoke]

The folder holds mnist1d.npz; without it the digits of scikit-learn are learned.
"""

import argparse
from pathlib import Path

import jax
import optax
from flax import linen as nn

import hpjax as hpx

BASE, WIDTHS = 32, (32, 64, 128, 256, 512)


class MLP(nn.Module):
    """Two hidden layers; the last one begins at zeros, so that no narrow model begins with a random function."""

    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width)(x))
        x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(10, kernel_init=nn.initializers.zeros)(x)


def adam(h):
    return optax.adam(h.learning_rate)


def program_of(data, model=MLP, optimizer=adam, batch_size=1000, steps=40):
    return hpx.supervised(
        model=lambda h: model(h.width),
        optimizer=optimizer,
        mup=lambda h: hpx.mup.MuP({"width": BASE}, enabled=h.mup),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=data,
        batch_size=batch_size,
        steps=steps,
    )


def study_of(program, widths=WIDTHS, rates=hpx.LogUniform(2**-10, 2**-2, num=13), replicates=5):
    space = hpx.Space(learning_rate=rates)
    return hpx.studies.Transfer(program, space, widths, replicates=replicates)


def training_data(folder):
    """Data that is evaluated on all training examples: on others the loss tells how far each width overfits, too."""
    data = hpx.data.digits() if folder is None else hpx.data.from_npz(folder / "mnist1d.npz")
    return hpx.Data(data.train, data.train, name=data.name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of mnist1d.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--smoke", action="store_true", help="two widths, few steps")
    given = parser.parse_args()
    data = training_data(given.data)
    if given.smoke:
        rates = hpx.LogUniform(2**-10, 2**-2, num=5)
        study = study_of(program_of(data, batch_size=100, steps=20), (32, 64), rates, replicates=3)
    else:
        study = study_of(program_of(data, steps=given.steps))
    answer = study.run(given.out / data.name)
    print(answer)
    answer.plot(given.out / f"{data.name}.png")
    print(given.out / f"{data.name}.png")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
