"""How accurate training in bfloat16 is beside float32: 64 trials in pairs, which differ in the dtype alone.

python experiments/benchmarks/precision.py [--data FOLDER]

The folder holds mnist1d.npz; without it MNIST-1D is left out. Two minutes on two cores.
"""

import argparse
from pathlib import Path

import numpy as np
import optax
import table
from flax import linen as nn

import hpjax as hpx

SPACE = hpx.Space(learning_rate=hpx.LogUniform(1e-2, 0.3), momentum=hpx.Uniform(0.5, 0.95))
HEADER = ("data", "pairs", "accuracy in float32", "in bfloat16", "difference, in points", "its standard error")


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x)))


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x[..., None]
        for features in (16, 32):
            x = nn.max_pool(nn.relu(nn.Conv(features, (5,))(x)), (2,), (2,))
        return MLP()(x.reshape(*x.shape[:-2], -1))


def accuracies(data, model, steps, dtype):
    """Returns the accuracy of each trial on the validation split, NaN of one that diverged."""
    program = hpx.supervised(
        model=model,
        optimizer=lambda h: optax.sgd(h.learning_rate, h.momentum),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        metrics={"accuracy": hpx.metrics.accuracy},
        data=data,
        batch_size=64,
        steps=steps,
        compute_dtype=dtype,
    )
    return hpx.Sweep(program, SPACE, trials=64).run(progress=False).last("valid/accuracy")[:, 0]


def row(name, data, model, steps):
    """Trains in both dtypes; returns a row of the table, of the pairs in which neither diverged."""
    wide, narrow = (accuracies(data, model, steps, dtype) for dtype in ("float32", "bfloat16"))
    both = np.isfinite(wide) & np.isfinite(narrow)
    difference = 100 * (narrow - wide)[both]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    means = (f"{each[both].mean():.2%}" for each in (wide, narrow))
    return name, str(both.sum()), *means, f"{difference.mean():+.2f}", f"{error:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of mnist1d.npz")
    given = parser.parse_args()
    hpx.setup()
    rows = [row("digits, an MLP", hpx.data.digits(), MLP(), 500)]
    if given.data is None:
        print("MNIST-1D is left out: give --data, the folder of mnist1d.npz")
    else:
        rows.append(row("MNIST-1D, a CNN", hpx.data.from_npz(given.data / "mnist1d.npz"), CNN(), 1_000))
    print(table.markdown(rows, HEADER))


if __name__ == "__main__":
    main()
