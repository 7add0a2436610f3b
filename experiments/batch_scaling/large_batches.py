"""Do batches of up to 16,384 examples, which eight devices share, need as many steps as on one device?

python experiments/batch_scaling/large_batches.py [--out FOLDER] [--smoke]

Devices of a CPU stand for eight accelerators. The same command continues an interrupted run.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np
import optax
from flax import linen as nn
from scipy.ndimage import gaussian_filter1d

import hpjax as hpx

DEVICES, TRAIN, VALID = 8, 32_768, 2_048
# The ten digits of MNIST-1D as curves of twelve points.
DIGITS = """
5 6 6.5 6.75 7 7 7 7 6.75 6.5 6 5        5 3 3 3.4 3.8 4.2 4.6 5 5.4 5.8 5 5
5 6 6.5 6.5 6 5.25 4.75 4 3.5 3.5 4 5    5 6 6.5 6.5 6 5 5 6 6.5 6.5 6 5
5 4.4 3.8 3.2 2.6 2.6 5 5 5 5 5 5        5 3 3 3 3 5 6 6.5 6.5 6 4.5 5
5 4 3.5 3.25 3 3 3 3 3.25 3.5 4 5        5 7 7 6.6 6.2 5.8 5.4 5 4.6 4.2 5 5
5 4 3.5 3.5 4 5 5 4 3.5 3.5 4 5          5 4 3.5 3.5 4 5 5 5 5 4.7 4.3 5
"""


def interpolated(curves, at):
    """Returns curves, (examples, points), at real numbers of points, (examples, n) or (1, n)."""
    left = np.minimum(at.astype(int), curves.shape[1] - 2)
    rows, share = np.arange(len(curves))[:, None], at - left
    return (1 - share) * curves[rows, left] + share * curves[rows, left + 1]


def mnist1d(examples, rng):
    """Returns examples of MNIST-1D, x float32 (examples, 40) and y int32 (examples,), drawn as its authors do.

    S. Greydanus and D. Kobak, "Scaling Down Deep Learning with MNIST-1D", ICML 2024, arXiv 2011.14439.
    """
    digits = np.array(DIGITS.split(), float).reshape(10, 12)
    digits = (digits - digits.mean(1, keepdims=True)) / digits.std(1, keepdims=True)
    digits = (digits - digits[:, :1]) / 6
    y = rng.integers(10, size=examples)

    def uniform(width):
        return width * (rng.random((examples, 1)) - 0.5)

    # Of the 72 points the digit takes 12 to 18, the more the fewer zeros follow it.
    at = np.linspace(0, 1, 72) * (11 + rng.integers(36, 61, size=(examples, 1)))
    x = interpolated(np.pad(digits, ((0, 0), (0, 60)))[y], at) * (1 + uniform(0.4))
    moved = (np.arange(72) - rng.integers(48, size=(examples, 1))) % 72
    x, at = (np.take_along_axis(each, moved, axis=1) for each in (x, at))
    x = np.where(at < 12, x, gaussian_filter1d(0.25 * rng.normal(size=x.shape), 2))
    x = x + 0.02 * rng.normal(size=x.shape) - uniform(0.75) * np.linspace(-0.5, 0.5, 72)
    x = interpolated(x, np.linspace(0, 71, 40)[None])
    return ((x - x.mean()) / x.std()).astype(np.float32), y.astype(np.int32)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x)))


def question(data, smoke):
    """Returns the study, in which eight devices share each lane."""
    program = hpx.supervised(
        model=MLP(),
        optimizer=lambda h: optax.sgd(h.learning_rate, 0.9),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=data,
        batch_size=lambda h: h.batch_size,
        eval_every=lambda h: max(1, 1_024 // h.batch_size),
        steps=lambda h: max(65_536 // h.batch_size, 128),
    )
    space = hpx.Space(learning_rate=hpx.LogUniform(0.01, 1))
    return hpx.studies.BatchScaling(
        program,
        space,
        [1_024, 16_384] if smoke else [4**k for k in range(2, 8)],
        target=1.5 if smoke else 1.0,
        trials=2 if smoke else 8,
        devices=DEVICES,
        devices_per_lane=DEVICES,
    )


def compare(one, eight):
    """Prints for each batch size the steps, with their intervals, and how many trials ended at the same step."""
    print("\nbatch size: steps on one device and on eight; trials that ended at the same step")
    sizes = np.array([h["batch_size"] for h in one.result.hparams])
    same = (one.result.lane_step == eight.result.lane_step)[:, 0]
    for a, b in zip(one.points, eight.points, strict=True):
        steps = [f"{point.steps:,} ({point.interval[0]:,.0f} to {point.interval[1]:,.0f})" for point in (a, b)]
        own = same[sizes == a.batch_size]
        print(f"{a.batch_size:,}: {', '.join(steps)}; {own.sum()} of {len(own)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/large_batches"), help="where runs go")
    parser.add_argument("--smoke", action="store_true", help="few trials of two batch sizes")
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)
    hpx.setup()
    x, y = mnist1d(TRAIN + VALID, np.random.default_rng(0))
    data = hpx.data.from_arrays(x[:TRAIN], y[:TRAIN], valid=(x[TRAIN:], y[TRAIN:]), test=None, name="MNIST-1D")
    study, answers = question(data, given.smoke), []
    for devices in (1, DEVICES):
        sweep = dataclasses.replace(study.sweep, devices=devices, devices_per_lane=devices)
        answers.append(study.read(sweep.run(given.out / f"devices-{devices}")))
        print(f"\ndevices a lane: {devices}, {answers[-1]}")
    compare(*answers)


if __name__ == "__main__":
    main()
