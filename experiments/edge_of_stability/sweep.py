"""Does the sharpness of a network that full-batch gradient descent trains rise to 2 / learning rate, and stay there?

python experiments/edge_of_stability/sweep.py [--out FOLDER] [--smoke]

A tanh MLP on digits with squared error, 64 learning rates as lanes of one program. J. Cohen et al., "Gradient Descent
on Neural Networks Typically Occurs at the Edge of Stability", arXiv:2103.00065, 2021.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx

# A rate counts as at the edge where its sharpness has come this close to 2 / rate.
EDGE = 0.95

digits = hpx.data.digits()
# Centered: the mean image alone would make the sharpness of the first weights five times as large.
MEAN = digits.train.x.mean(axis=0)
data = hpx.Data(
    *(split._replace(x=split.x - MEAN) for split in (digits.train, digits.valid, digits.test)), name="digits"
)


def squared_error(outputs, y):
    """Half the squared distance to the one-hot label; with cross-entropy the sharpness falls late in training."""
    return 0.5 * ((outputs - jax.nn.one_hot(y, 10)) ** 2).sum(-1)


def make(steps=2_000, rates=64):
    program = hpx.supervised(
        model=nn.Sequential([nn.Dense(32), nn.tanh, nn.Dense(32), nn.tanh, nn.Dense(10)]),
        optimizer=lambda h: optax.sgd(h.learning_rate),
        loss=squared_error,
        data=data,
        batch_size=len(data.train.y),
        steps=steps,
        eval_every=steps // 20,
        eval_batch_size=len(data.train.y),
        monitor=["sharpness"],
    )
    space = hpx.Space(learning_rate=hpx.LogUniform(0.05, 2.0, num=rates))
    return hpx.Sweep(program, space, sampler=hpx.Grid())


sweep = make()


def read(result):
    """The rates in order, (rates,); and sharpness and training loss at each evaluation, (rates, evaluations)."""
    rates = result.table()["learning_rate"]
    order = np.argsort(rates)
    return rates[order], *(result.curves(f"train/{name}")[order, 0] for name in ("sharpness", "loss"))


def fell(loss):
    """The share of evaluations, of all but the first, at which a loss was less than at the one before."""
    return (np.diff(loss) < 0).mean()


def draw(rates, steps, sharpness, path):
    """Sharpness over time for some rates, each with its 2 / rate; and that at the end of all."""
    import matplotlib.pyplot as plt

    from hpjax import plot

    ended = np.isfinite(sharpness[:, -1])
    with plt.rc_context(plot.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4), layout="constrained", sharey=True)
        shown = np.linspace(0, ended.sum() - 1, 6).round().astype(int)
        for i, color in zip(shown, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(shown))), strict=True):
            left.plot(steps, sharpness[i], "-", color=color, linewidth=1.4, label=f"{rates[i]:.2g}")
            left.axhline(2 / rates[i], color=color, linewidth=0.9, linestyle="--")
            right.plot(rates[i], sharpness[i, -1], "o", color=color, markersize=7, zorder=3)
        left.set(xlabel="step", ylabel="sharpness", yscale="log", title="dashed: 2 / learning rate")
        left.legend(title="learning rate", ncols=2, fontsize=8, loc="upper right", framealpha=1, edgecolor="none")
        left.set_yticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
        left.minorticks_off()
        left.set_ylim(0.6 * np.nanmin(sharpness[ended]), 2.5 * np.nanmax(sharpness[ended]))
        right.plot(rates[ended], sharpness[ended, -1], ".", color="black", markersize=4, zorder=4, label="at the end")
        right.plot(rates, 2 / rates, "--", color=plot.RED, linewidth=1.2, label="2 / learning rate")
        if not ended.all():
            right.axvspan(rates[~ended].min(), rates[-1], color="0.9", linewidth=0, label="diverged")
        right.set(xlabel="learning rate", xscale="log", xlim=(0.95 * rates[0], rates[-1]), title="after the last step")
        right.set_xticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["0.05", "0.1", "0.2", "0.5", "1", "2"])
        right.minorticks_off()
        right.legend(frameon=False, loc="lower left")
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/edge_of_stability"), help="where run and figure go")
    parser.add_argument("--smoke", action="store_true", help="few steps, few rates")
    given = parser.parse_args()
    hpx.setup()
    chosen = make(steps=100, rates=4) if given.smoke else sweep
    result = chosen.run(given.out / "run")
    rates, sharpness, loss = read(result)
    share = sharpness * rates[:, None] / 2
    print("  learning rate   2 / rate   sharpness   sharpness × rate / 2   training loss")
    for rate, own, part, value in zip(rates, sharpness[:, -1], share[:, -1], loss[:, -1], strict=True):
        found = f"{own:12.2f}   {part:20.3f}   {value:13.4f}" if np.isfinite(own) else "    diverged"
        print(f"  {rate:13.4f} {2 / rate:10.2f}{found}")
    ended = np.isfinite(share[:, -1])
    edge = ended & (np.nan_to_num(share).max(axis=1) >= EDGE)
    print(f"\n{(ended & ~edge).sum()} rates have not come to the edge, {edge.sum()} have, {(~ended).sum()} diverged")
    if not ended.all():
        print(f"the last of these at step {result.lane_step[result.statuses == 'diverged'].max()}")
    if edge.any():
        low, middle, high = np.quantile(share[edge, -1], (0, 0.5, 1))
        print(f"at the edge: sharpness × rate / 2 from {low:.3f} to {high:.3f} at the end, median {middle:.3f};")
        print(f"at most {np.nanmax(share[edge]):.3f} at any evaluation")
        print(f"the loss fell from one evaluation to the next in {fell(loss[edge]):.0%} of cases")
    steps = np.nanmax(result.curves("step"), axis=(0, 1))
    draw(rates, steps, sharpness, given.out / "edge_of_stability.png")
    print(given.out / "edge_of_stability.png")


if __name__ == "__main__":
    main()
