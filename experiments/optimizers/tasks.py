"""Which of six optimizers trains best on three tasks, and which is first at a target, if each is tuned as much?

python experiments/optimizers/tasks.py [--data FOLDER] [--out FOLDER] [--smoke]
python experiments/optimizers/tasks.py --pilot [--data FOLDER] [--out FOLDER]

The folder holds mnist1d.npz; without it that task is left out. Interrupted, it goes on.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx

SIX = ("sgd", "adamw", "lion", "muon", "schedule_free", "adafactor")
TRIALS, REPLICATES = 25, 6


class Task(NamedTuple):
    """What is learned. The target is what half of the optimizers reach in 5 trials each: see ``--pilot``."""

    model: Callable[[], tuple[nn.Module, Any]]
    batch_size: int
    steps: int
    eval_every: int
    target: float


class MLP(nn.Module):
    """Two hidden layers of 64 units."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(64)(x))
        x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(10, name="head")(x)


class CNN(nn.Module):
    """Three convolutions over 40 places and a dense layer, as in the paper of MNIST-1D, with 16 channels."""

    @nn.compact
    def __call__(self, x):
        x = x[..., None]
        for size in (5, 3, 3):
            x = nn.relu(nn.Conv(16, (size,), 2, padding=1)(x))
        return nn.Dense(10, name="head")(x.reshape(len(x), -1))


def characters(length=16, held_out=1024):
    """A Transformer of one block, and windows of Python's manual: those of experiments/characters."""
    sys.path.append(str(Path(__file__).parents[1] / "characters"))
    from model import Transformer
    from text import tokens

    text, known = tokens()
    data = hpx.data.tokens(text[:-held_out], length, valid=text[-held_out:], name="Python's manual")
    return Transformer(len(known), width=32, depth=1), data


def tasks_of(folder):
    """Name to task; MNIST-1D is the file mnist1d.npz of the folder."""
    return {
        "digits": Task(lambda: (MLP(), hpx.data.digits()), 64, 400, 10, 0.107),
        "mnist1d": Task(lambda: (CNN(), hpx.data.from_npz(folder / "mnist1d.npz")), 64, 300, 10, 1.03),
        "characters": Task(characters, 8, 250, 10, 2.64),
    }


def optimizers_of(steps):
    """Name to optimizer and space: each has four decades of rates and a momentum.

    The rate rises for a tenth of the steps, and falls as a cosine but where an optimizer does without. A weight shrinks
    each step by rate times decay, whose product has the same range for all.
    """

    def rate_of(h):
        return hpx.optim.warmup_cosine_decay_schedule(0.0, h.rate, steps // 10, steps)

    def sgd(h):
        # As in AdamW, what decays a weight is no part of the momentum.
        return optax.chain(
            optax.trace(h.momentum, nesterov=True),
            optax.add_decayed_weights(h.decay),
            optax.scale_by_learning_rate(rate_of(h)),
        )

    def adafactor(h):
        # Its own decay is not multiplied by the rate, and it would factor nothing below 128 rows and columns.
        rate = rate_of(h)
        return optax.adafactor(rate, 16, momentum=h.momentum, weight_decay_rate=lambda count: h.decay * rate(count))

    def muon(h):
        # Its updates are as large as AdamW's, which trains what is no matrix at the same rate: arXiv 2502.16982.
        return optax.contrib.muon(
            rate_of(h),
            beta=h.momentum,
            weight_decay=h.decay,
            adam_weight_decay=h.decay,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=0.2,
        )

    return {
        "sgd": (sgd, space(1e-3, 10)),
        "adamw": (lambda h: optax.adamw(rate_of(h), h.momentum, weight_decay=h.decay), space(1e-4, 1)),
        "lion": (lambda h: optax.lion(rate_of(h), h.momentum, weight_decay=h.decay), space(1e-5, 0.1)),
        "muon": (muon, space(1e-4, 1)),
        "schedule_free": (
            lambda h: optax.contrib.schedule_free_adamw(h.rate, steps // 10, h.momentum, weight_decay=h.decay),
            space(1e-4, 1),
        ),
        "adafactor": (adafactor, space(1e-4, 1)),
    }


def space(low, high):
    return hpx.Space(
        rate=hpx.LogUniform(low, high),
        momentum=hpx.ReverseLogUniform(0.5, 0.99),
        decay=hpx.LogUniform(1e-8 / low, 1e-4 / low),
    )


def matrices(params):
    """How Muon reads arrays as matrices; None for biases, norms, embeddings and the last layer, which are Adam's."""

    def axes(path, x):
        names = {key.key for key in path}
        if x.ndim < 2 or names & {"embed", "place", "head"}:
            return None
        # Kernels of convolutions are (places, inputs, outputs), those of attention (inputs, heads, outputs of one).
        inputs = 1 if names & {"query", "key", "value"} else x.ndim - 1
        return optax.contrib.MuonDimensionNumbers(tuple(range(inputs)), tuple(range(inputs, x.ndim)))

    return jax.tree_util.tree_map_with_path(axes, params)


def study_of(task, names=SIX, trials=TRIALS, replicates=REPLICATES, seed=0):
    model, data = task.model()
    optimizers = optimizers_of(task.steps)
    program = hpx.supervised(
        model=model,
        optimizer=lambda h: h.optimizer(h),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=data,
        batch_size=task.batch_size,
        steps=task.steps,
        eval_every=task.eval_every,
    )
    return hpx.studies.Optimizers(
        program,
        {name: optimizers[name] for name in names},
        trials=trials,
        replicates=replicates,
        target=task.target,
        seed=seed,
    )


def pilot(tasks, out):
    """Prints, of a few trials with other seeds, the loss that half of the optimizers end below: a target."""
    for name, task in tasks.items():
        answer = study_of(task, trials=5, replicates=4, seed=1).run(out / name)
        values = [point.value for point in answer.points]
        print(f"\n{name}: half of the optimizers end below {np.median(values):.3g}\n{answer}")


def compare(tasks, out, **study):
    """Prints the answer of each task, and the scores over all of them, which it draws, too."""
    answers = {}
    for name, task in tasks.items():
        answers[name] = study_of(task, **study).run(out / name)
        print(f"\n{name}\n{answers[name]}")
    scores = hpx.studies.optimizer_scores(answers)
    scores.plot(out / "optimizers.png")
    print(f"\n{scores}\n{out / 'optimizers.png'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of mnist1d.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/optimizer-tasks"))
    parser.add_argument("--pilot", action="store_true", help="what targets are: from five trials of each optimizer")
    parser.add_argument("--smoke", action="store_true", help="two optimizers, few trials and steps")
    given = parser.parse_args()
    tasks = tasks_of(given.data)
    if given.data is None:
        print("without --data FOLDER: MNIST-1D is left out")
        del tasks["mnist1d"]
    if given.smoke:
        small = {name: task._replace(steps=20, eval_every=10, target=10.0) for name, task in tasks.items()}
        compare(small, given.out, names=("sgd", "muon"), trials=2, replicates=4)
    elif given.pilot:
        pilot(tasks, given.out / "pilot")
    else:
        compare(tasks, given.out)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
