"""How many steps does each batch size need, with SGD, momentum and Adam, each tuned for every batch size?

python experiments/batch_scaling/sweep.py [--data FOLDER] [--out FOLDER] [--smoke]

FOLDER of --data holds mnist1d.npz; without it the digits of scikit-learn are read. Interrupted, it goes on.
"""

import argparse
from pathlib import Path

import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx

HIDDEN = 64
PROBE, PART = 64, 8  # batch size and microbatch of the runs that measure the gradient noise

MOMENTUM = hpx.Space(momentum=hpx.ReverseLogUniform(0.5, 0.98))
OPTIMIZERS = {
    "sgd": (lambda h: optax.sgd(h.learning_rate), hpx.Space(learning_rate=hpx.LogUniform(3e-3, 3))),
    "momentum": (
        lambda h: optax.sgd(h.learning_rate, h.momentum),
        hpx.Space(learning_rate=hpx.LogUniform(1e-3, 3)) & MOMENTUM,
    ),
    "adam": (lambda h: optax.adam(h.learning_rate), hpx.Space(learning_rate=hpx.LogUniform(3e-4, 0.3))),
}


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(HIDDEN)(x)))


def program(optimizer, data, **changes):
    """The training; evaluated every 64 examples, or every step of larger batches."""
    settings = {
        "batch_size": lambda h: h.batch_size,
        "eval_every": lambda h: max(1, 64 // h.batch_size),
        "steps": lambda h: max(8_192 // h.batch_size, 192),
    }
    return hpx.supervised(
        model=MLP(),
        optimizer=optimizer,
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=data,
        **(settings | changes),
    )


def noise(optimizer, data, point, target):
    """B_simple of the best trial, averaged from the start to the target."""
    watched = program(
        optimizer,
        data,
        batch_size=PROBE,
        microbatch=PART,
        monitor=["gradient_noise"],
        steps=int(point.steps),
        eval_every=int(point.steps) * PROBE // PART,
    )
    hparams = {name: value for name, value in point.hparams.items() if name != "batch_size"}
    result = hpx.Sweep(watched, hpx.Space(**hparams), trials=1, replicates=8).run(progress=False)
    found = hpx.studies.noise_scale(result)
    return hpx.studies.NoiseScale(found.signal.mean(), found.trace.mean()).simple


def draw(studies, path):
    """Steps above, best learning rates below; a column an optimizer."""
    import matplotlib.pyplot as plt

    from hpjax import plot

    with plt.rc_context(plot.STYLE):
        figure, panels = plt.subplots(2, len(studies), figsize=(3.4 * len(studies), 5.6), layout="constrained")
        for (name, study), (above, below) in zip(studies.items(), panels.reshape(2, -1).T, strict=True):
            plot.draw_scaling(study, above).set_title(name)
            plot.draw_rates(study, below, momentum="momentum" if "momentum" in study.result.names else None)
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of mnist1d.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/batch_scaling"), help="where runs and figure go")
    parser.add_argument("--smoke", action="store_true", help="Adam only, few trials of few batch sizes")
    given = parser.parse_args()
    hpx.setup()
    data = hpx.data.from_npz(given.data / "mnist1d.npz") if given.data else hpx.data.digits()
    target = 1.0 if given.data else 0.15
    sizes = [16, 64, 1024] if given.smoke else [2**k for k in range(11)]
    studies = {}
    for name in ["adam"] if given.smoke else OPTIMIZERS:
        optimizer, space = OPTIMIZERS[name]
        study = hpx.studies.batch_scaling(
            program(optimizer, data),
            space,
            sizes,
            target=target,
            trials=4 if given.smoke else 64,
            directory=given.out / name,
        )
        studies[name] = study
        print(f"\n{name}: {study}")
        probe = next((point for point in study.points if point.batch_size == PROBE), None)
        if probe is not None:
            print(f"B_simple {noise(optimizer, data, probe, target):.4g} at B = {PROBE}, averaged up to the target")
        if len(study.points) >= 3:
            log_sizes, log_steps = np.log([(point.batch_size, point.steps) for point in study.points]).T
            for what, part in (("smallest", slice(4)), ("largest", slice(-4, None))):
                slope = np.polyfit(log_sizes[part], log_steps[part], 1)[0]
                print(f"slope over the four {what} batch sizes {slope:.2f}")
    draw(studies, given.out / "batch_scaling.png")
    print(given.out / "batch_scaling.png")


if __name__ == "__main__":
    main()
