"""Which of six optimizers is best, once each is tuned with the same budget, and which is easiest to tune?

python experiments/optimizers/sweep.py [--out FOLDER] [--smoke]

Interrupted, it goes on.
"""

import argparse
import operator
from functools import reduce
from pathlib import Path

import numpy as np
import optax
from flax import linen as nn
from scipy import stats

import hpjax as hpx

BUDGET, STEPS = 64, 600
SEARCHED, FRESH = 4, 10  # seeds a trial, of the search and of what is trained again

# SGD is momentum with none of it, and Adam is AdamW without weight decay, so that three programs serve six optimizers.
RULES = {
    "sgd": lambda h: hpx.optim.sgd(h.learning_rate, h.momentum, h.nesterov),
    "rmsprop": lambda h: optax.rmsprop(h.learning_rate, h.decay),
    "adam": lambda h: optax.adamw(h.learning_rate, h.b1, h.b2, weight_decay=h.weight_decay),
}
# Four decades of learning rate for each: none is told more than another.
PLAIN = hpx.Space(rule="sgd", learning_rate=hpx.LogUniform(1e-3, 10))
MOMENTUM = PLAIN & hpx.Space(momentum=hpx.ReverseLogUniform(0.5, 0.99))
ADAPTIVE = hpx.Space(learning_rate=hpx.LogUniform(1e-5, 0.1))
ADAM = ADAPTIVE & hpx.Space(rule="adam", b1=hpx.ReverseLogUniform(0.5, 0.99), b2=hpx.ReverseLogUniform(0.9, 0.9999))
SPACES = {
    "SGD": PLAIN & hpx.Space(momentum=0.0, nesterov=False),
    "momentum": MOMENTUM & hpx.Space(nesterov=False),
    "Nesterov": MOMENTUM & hpx.Space(nesterov=True),
    "RMSProp": ADAPTIVE & hpx.Space(rule="rmsprop", decay=hpx.ReverseLogUniform(0.9, 0.9999)),
    "Adam": ADAM & hpx.Space(weight_decay=0.0),
    "AdamW": ADAM & hpx.Space(weight_decay=hpx.LogUniform(1e-3, 10)),
}
SPACE = reduce(operator.or_, SPACES.values())


def program(steps):
    return hpx.supervised(
        model=nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(64), nn.relu, nn.Dense(10)]),
        optimizer=lambda h: RULES[h.rule](h),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        metrics={"accuracy": hpx.metrics.accuracy},
        data=hpx.data.digits(),
        batch_size=64,
        steps=steps,
        eval_every=steps // 20,
    )


def search(spaces, budget, replicates, steps):
    """The same number of quasi-random points for each, one optimizer after the other.

    A Sobol sequence over the union would share them out unevenly.
    """
    points = [point for space in spaces.values() for point in hpx.Sobol().ask(space, [], budget, seed=0)]
    return hpx.Sweep(program(steps), SPACE, sampler=hpx.Manual(points), replicates=replicates, seed=0)


def confirm(found, spaces, replicates, steps):
    """The best of each optimizer again, with seeds that had no part in choosing it."""
    losses = searched(found, spaces)
    winners = [found.hparams[number] for number in losses.argmin(axis=1) + np.arange(0, losses.size, losses.shape[1])]
    return hpx.Sweep(program(steps), SPACE, sampler=hpx.Manual(winners), replicates=replicates, seed=1)


def searched(found, spaces):
    """The final losses of the search, (optimizers, trials of each); infinite where one diverged."""
    return np.nan_to_num(found.last("valid/loss").mean(axis=1), nan=np.inf).reshape(len(spaces), -1)


def interval(values):
    """Half the width of Student's 95 % interval of the mean over the last axis."""
    n = values.shape[-1]
    return stats.t.ppf(0.975, n - 1) * values.std(axis=-1, ddof=1) / np.sqrt(n)


def report(found, again, spaces):
    best, losses = searched(found, spaces).min(axis=1), again.last("valid/loss")
    # Replicates are paired: the same initial weights and batches for all, whose luck cancels in the difference.
    behind = losses - losses[losses.mean(axis=1).argmin()]
    accuracies = again.last("valid/accuracy").mean(axis=1)
    print(f"\ntuned: validation loss of the best trial, and of its hyperparameters with {losses.shape[1]} fresh seeds")
    print("optimizer  best trial  again, 95 %      behind the best  accuracy  with")
    for i, name in enumerate(spaces):
        chosen = (f"{key} {value:.3g}" for key, value in again.hparams[i].items() if isinstance(value, float) and value)
        print(
            f"{name:<9}  {best[i]:<10.4f}  {losses[i].mean():.4f} ± {interval(losses[i]):.4f}  "
            f"{behind[i].mean():.4f} ± {interval(behind[i]):.4f}  {accuracies[i]:.4f}    {', '.join(chosen)}"
        )
    print("\nall trials of the search: quantiles of the validation loss, and shares")
    print("optimizer  0 %     25 %    50 %    75 %    below twice the best  diverged")
    for name, every in zip(spaces, searched(found, spaces), strict=True):
        quarters = "  ".join(f"{np.quantile(every, q, method='higher'):<6.3g}" for q in (0, 0.25, 0.5, 0.75))
        print(f"{name:<9}  {quarters}  {np.mean(every < 2 * best.min()):<20.0%}  {np.mean(np.isinf(every)):.0%}")


def draw(found, again, spaces, path):
    import matplotlib.pyplot as plt

    from hpjax import plot

    losses, curves, steps = again.last("valid/loss"), again.curves("valid/loss"), again.curves("step")[:, 0]
    colors = [plot.GREY, plot.ORANGE, plot.RED, "#009E73", plot.BLUE, "#CC79A7"]
    with plt.rc_context(plot.STYLE):
        figure, (dots, lines, spread) = plt.subplots(1, 3, figsize=(10.2, 3.2), layout="constrained")
        for i, (name, color) in enumerate(zip(spaces, colors, strict=False)):
            dots.plot(losses[i], np.full(losses.shape[1], i + 0.22), ".", color=plot.GREY, markersize=3)
            dots.errorbar(losses[i].mean(), i, xerr=interval(losses[i]), fmt="o", color=color, markersize=5, capsize=3)
            low, middle, high = np.quantile(curves[i], [0.25, 0.5, 0.75], axis=0)
            lines.plot(steps[i], middle, color=color, linewidth=1.3)
            lines.fill_between(steps[i], low, high, color=color, alpha=0.15, linewidth=0)
            every = np.sort(searched(found, spaces)[i])
            spread.plot((np.arange(len(every)) + 0.5) / len(every), every, color=color, linewidth=1.3, label=name)
        dots.set_yticks(range(len(spaces)), spaces)
        dots.invert_yaxis()
        dots.set_xlim(left=0)
        dots.set(title="tuned: mean, 95 %, seeds", xlabel="final validation loss")
        lines.set(title="tuned: median and quartiles", xlabel="step", ylabel="validation loss", yscale="log")
        spread.axhline(np.log(10), color="black", linewidth=0.8, linestyle=":")
        spread.annotate("chance", (0.02, np.log(10)), xytext=(0, 2), textcoords="offset points", fontsize=8)
        spread.set(title="search: all trials, sorted", xlabel="quantile", ylabel="final validation loss", yscale="log")
        spread.set_ylim(top=10)
        figure.legend(*spread.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=6)
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/optimizers"), help="where runs and figure go")
    parser.add_argument("--smoke", action="store_true", help="few trials of three optimizers, few steps")
    given = parser.parse_args()
    hpx.setup()
    small = {name: SPACES[name] for name in ("SGD", "momentum", "Nesterov")}  # which share a program
    spaces, budget, seeds, fresh, steps = (
        (small, 4, 1, 3, 40) if given.smoke else (SPACES, BUDGET, SEARCHED, FRESH, STEPS)
    )
    found = search(spaces, budget, seeds, steps).run(given.out / "search")
    again = confirm(found, spaces, fresh, steps).run(given.out / "again")
    report(found, again, spaces)
    draw(found, again, spaces, given.out / "optimizers.png")
    print(given.out / "optimizers.png")


if __name__ == "__main__":
    main()
