"""What decides whether the best learning rate stays: the experiment with one thing changed, at three widths.

python experiments/transfer/variants.py [NAME ...] [--data FOLDER] [--out FOLDER] [--smoke]

Without names it runs all of them.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from transfer import MLP, adam, program_of, study_of, training_data

import hpjax as hpx

WIDTHS = (32, 128, 256)


class Other(nn.Module):
    """The MLP with another activation, number of layers, initial weights, or with layer norms before activations."""

    width: int
    layers: int = 2
    activation: str = "relu"
    norm: bool = False
    weights: str = "lecun_normal"
    zeros: bool = True

    @nn.compact
    def __call__(self, x):
        for _ in range(self.layers):
            x = nn.Dense(self.width, kernel_init=getattr(nn.initializers, self.weights)())(x)
            x = getattr(nn, self.activation)(nn.LayerNorm()(x) if self.norm else x)
        return nn.Dense(10, kernel_init=nn.initializers.zeros if self.zeros else nn.initializers.lecun_normal())(x)


def up_and_down(h, steps=400):
    """Adam whose rate rises for a tenth of the steps and falls to nothing in the others."""
    rise = steps // 10
    return optax.adam(lambda step: h.learning_rate * jnp.minimum((step + 1) / rise, (steps - step) / (steps - rise)))


# Name to the batch size, the number of steps, the model and the optimizer.
VARIANTS = {
    "batch_100": (100, 400, MLP, adam),
    "batch_100_short": (100, 40, MLP, adam),
    "batch_500": (500, 200, MLP, adam),
    "batch_500_short": (500, 80, MLP, adam),
    "batch_1000": (1000, 100, MLP, adam),
    "batch_1000_short": (1000, 40, MLP, adam),
    "batch_1000_long": (1000, 200, MLP, adam),
    "layer_norm": (100, 400, partial(Other, norm=True), adam),
    "tanh": (100, 400, partial(Other, activation="tanh"), adam),
    "three_layers": (100, 400, partial(Other, layers=3), adam),
    "he": (100, 400, partial(Other, weights="he_normal"), adam),
    "random_last_layer": (100, 400, partial(Other, zeros=False), adam),
    "up_and_down": (100, 400, MLP, up_and_down),
    "b1_0": (100, 400, MLP, lambda h: optax.adam(h.learning_rate, b1=0.0)),
    "b2_0.95": (100, 400, MLP, lambda h: optax.adam(h.learning_rate, b2=0.95)),
    "eps_1e-5": (100, 400, MLP, lambda h: optax.adam(h.learning_rate, eps=1e-5)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--data", type=Path, help="folder of mnist1d.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer-variants"))
    parser.add_argument("--smoke", action="store_true", help="one of them, two widths, few steps")
    given = parser.parse_args()
    data = training_data(given.data)
    names, widths = (["batch_100"], WIDTHS[:2]) if given.smoke else (given.names or list(VARIANTS), WIDTHS)
    for name in names:
        batch, steps, model, optimizer = VARIANTS[name]
        program = program_of(data, model, optimizer, batch, 20 if given.smoke else steps)
        rates = hpx.LogUniform(2**-9, 2**-2, num=8)
        answer = study_of(program, widths, rates, replicates=3).run(given.out / name, progress=False)
        for drift in answer.drifts:
            low, high = drift.octaves.low, drift.octaves.high
            print(f"{name:18} {drift.parametrization:9} {drift.octaves.value:+.2f} ({low:+.2f} to {high:+.2f})")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
