"""How many steps does each batch size need, with SGD, momentum and Adam, each tuned for every batch size?

python experiments/batch_scaling/sweep.py [--data FOLDER] [--out FOLDER] [--smoke]

FOLDER of --data holds mnist1d.npz; without it the digits of scikit-learn are read. The same command continues an
interrupted run.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx

HIDDEN = 64
PROBE, PART = 64, 8  # batch size and microbatch of the runs that measure the gradient noise

MOMENTUM = hpx.Space(momentum=hpx.ReverseLogUniform(0.5, 0.98))
OPTIMIZERS = {
    "sgd": (lambda h: optax.sgd(h.learning_rate), hpx.Space(learning_rate=hpx.LogUniform(3e-3, 10))),
    "momentum": (
        lambda h: optax.sgd(h.learning_rate, h.momentum),
        hpx.Space(learning_rate=hpx.LogUniform(3e-4, 3)) & MOMENTUM,
    ),
    "adam": (lambda h: optax.adam(h.learning_rate), hpx.Space(learning_rate=hpx.LogUniform(3e-4, 0.3))),
}


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(HIDDEN)(x)))


class Task(NamedTuple):
    """What is trained, once for each of ``seeds`` seeds.

    A trial is evaluated every ``every`` examples, or every step if batches are larger, until the loss is below
    ``target``. It takes at most ``examples`` examples, but may always take ``steps`` steps.
    """

    data: hpx.Data
    target: float
    every: int
    examples: int
    steps: int
    seeds: int


def program(optimizer, task, **changes):
    """Returns the training program of an optimizer."""
    settings = {
        "batch_size": lambda h: h.batch_size,
        "eval_every": lambda h: max(1, task.every // h.batch_size),
        "steps": lambda h: max(task.examples // h.batch_size, task.steps),
    }
    return hpx.supervised(
        model=MLP(),
        optimizer=optimizer,
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=task.data,
        **(settings | changes),
    )


def noise(optimizer, task, point):
    """Returns B_simple of the best trial, averaged from the start to the target."""
    watched = program(
        optimizer,
        task,
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


def slopes(answer):
    """Returns (first batch size, last one, slope of log steps) for the smallest and for the largest batch sizes."""
    points = np.array([(point.batch_size, point.steps) for point in answer.points])
    if len(points) < 8:
        return []
    return [(*part[[0, -1], 0], np.polyfit(*np.log(part).T, 1)[0]) for part in (points[:4], points[-4:], points[-2:])]


def report(answers, noises):
    """Prints what the seeds of an optimizer found."""

    def joined(values, form):
        return ", ".join(format(value, form) for value in values)

    print(f"\ncritical batch size, by seed: {joined([answer.fit.critical_batch_size for answer in answers], '.0f')}")
    print(f"B_simple at B = {PROBE}, averaged up to the target: {joined(noises, '.0f')}")
    for part in zip(*map(slopes, answers), strict=True):
        print(f"slope from B = {part[0][0]} to {part[0][1]}: {joined([slope for *_, slope in part], '.2f')}")


def draw(answers, path):
    """Draws a column for each optimizer: steps above, best learning rates below."""
    import matplotlib.pyplot as plt

    from hpjax import plot
    from hpjax.studies.plot import draw_rates, draw_scaling

    with plt.rc_context(plot.STYLE):
        figure, panels = plt.subplots(2, len(answers), figsize=(3.4 * len(answers), 5.6), layout="constrained")
        for (name, answer), (above, below) in zip(answers.items(), panels.reshape(2, -1).T, strict=True):
            draw_scaling(answer, above).set_title(name)
            draw_rates(answer, below, momentum="momentum" if "momentum" in answer.result.names else None)
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of mnist1d.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/batch_scaling"), help="where runs and figure go")
    parser.add_argument("--smoke", action="store_true", help="Adam only, few trials of few batch sizes")
    given = parser.parse_args()
    hpx.setup()
    task = Task(hpx.data.digits(), target=0.15, every=64, examples=8_192, steps=192, seeds=3)
    if given.data:
        mnist1d = hpx.data.from_npz(given.data / "mnist1d.npz")
        task = Task(mnist1d, target=1.3, every=256, examples=16_384, steps=384, seeds=1)
    if given.smoke:
        task = task._replace(seeds=1)
    sizes = [16, 64, 1024] if given.smoke else [2**k for k in range(11)]
    shown = {}
    for name in ["adam"] if given.smoke else OPTIMIZERS:
        optimizer, space = OPTIMIZERS[name]
        studies = [
            hpx.studies.BatchScaling(
                program(optimizer, task),
                space,
                sizes,
                target=task.target,
                trials=4 if given.smoke else 64,
                seed=seed,
            )
            for seed in range(task.seeds)
        ]
        answers = [study.run(given.out / f"{name}-{study.seed}") for study in studies]
        shown[name] = answers[0]
        print(f"\n{name}: {shown[name]}")
        probes = [point for answer in answers for point in answer.points if point.batch_size == PROBE]
        if all(len(answer.points) >= 3 for answer in answers):
            report(answers, [noise(optimizer, task, probe) for probe in probes])
    draw(shown, given.out / "batch_scaling.png")
    print(given.out / "batch_scaling.png")


if __name__ == "__main__":
    main()
