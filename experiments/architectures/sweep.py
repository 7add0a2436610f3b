"""How deep can an MLP be before its gradients vanish, by activation and initialization, and does it then still train?

python experiments/architectures/sweep.py [--out FOLDER] [--smoke]

Interrupted, it goes on.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx

DEPTHS, WIDTHS, RATES = (2, 8, 20, 30), (8, 32), (0.001, 0.003, 0.01, 0.03, 0.1)
STEPS, REPLICATES = 300, 2
INITS = (hpx.nn.glorot_normal, hpx.nn.he_normal)
ACTIVATIONS = (nn.relu, nn.tanh)


class MLP(nn.Module):
    """``depth`` hidden layers of ``width`` units, and one of outputs."""

    h: hpx.Hparams

    @nn.compact
    def __call__(self, x):
        h = self.h

        def hidden(i, x, inputs=h.width):
            layer = hpx.nn.Dense(max(WIDTHS), h.width, inputs=inputs, kernel_init=h.init, name=f"hidden_{i:02}")
            return h.activation(layer(x))

        x = hidden(1, x, inputs=None)
        x = hpx.nn.layers(lambda i, x: hidden(i + 2, x), x, h.depth - 1, most=max(DEPTHS) - 1)
        return hpx.nn.Dense(10, inputs=h.width, kernel_init=h.init, name="outputs")(x)


def make(depths, rates, steps, replicates):
    """All combinations of depth, width, activation, initializer and learning rate."""
    space = hpx.Space(
        # A program for each depth, though a mask could serve all: layers that a mask skips look like dead ones.
        depth=hpx.Choice(*depths, static=True),
        width=hpx.Choice(*WIDTHS),
        activation=hpx.Choice(*ACTIVATIONS, select=True),
        init=hpx.Choice(*INITS, select=True),
        learning_rate=hpx.Choice(*rates),
    )
    program = hpx.supervised(
        model=lambda h: MLP(h),
        optimizer=lambda h: optax.sgd(h.learning_rate, 0.9),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        metrics={"accuracy": hpx.metrics.accuracy},
        data=hpx.data.digits(),
        batch_size=64,
        steps=steps,
        eval_every=10,
        monitor=["gradient_norm", "dead_units"],
    )
    # A width measured anew would change last bits, which deep networks make percents of.
    return hpx.Sweep(program, space, sampler=hpx.Grid(), replicates=replicates, seed=0, width=8)


sweep = make(DEPTHS, RATES, STEPS, REPLICATES)


class Outcome(NamedTuple):
    """Of a depth, width, activation and initializer.

    Attributes:
      accuracy, rate: the best validation accuracy of any learning rate, and this rate.
      ratio: gradient norm of the first layer over that of the last, at the first evaluation of the lowest rate, which
        has moved least; the geometric mean over replicates.
      dead: share of hidden units without a gradient at the last evaluation of the best rate.
      findings: how many learning rates have each diagnosis.
    """

    accuracy: float
    rate: float
    ratio: float
    dead: float
    findings: Counter[str]


def outcomes(result):
    """(initializer, activation, width, depth) to its ``Outcome``."""
    trials = defaultdict(list)
    for trial in result:
        h = trial.hparams
        trials[h["init"], h["activation"], h["width"], h["depth"]].append(trial)
    found = [(finding.trial, finding.what) for finding in hpx.diagnose(result)]
    return {key: outcome(same, key[-1], found) for key, same in trials.items()}


def outcome(trials, depth, found):
    best = max(trials, key=lambda trial: np.nan_to_num(trial.metrics["valid/accuracy"]))
    first = {name: trials[0].curve(f"train/gradient_norm/{name}")[:, 0] for name in ("hidden_01", "outputs")}
    ids = {trial.id for trial in trials}
    return Outcome(
        accuracy=best.metrics["valid/accuracy"],
        rate=best.hparams["learning_rate"],
        ratio=np.exp(np.log(first["hidden_01"] / first["outputs"]).mean()),
        dead=np.mean([best.metrics[f"train/dead_units/hidden_{i:02}"] for i in range(1, depth + 1)]),
        findings=Counter(what for trial, what in found if trial in ids),
    )


def report(found, depths, rates):
    print(
        f"\nthe best of {rates} rates, and for how many of them hpx.diagnose finds that gradients vanish, or units dead"
    )
    print("init          act   width  depth  accuracy  at rate  first / last gradient  dead units  vanish  dead")
    for (init, activation, width, depth), each in sorted(found.items(), key=lambda item: (item[0][2], *item[0])):
        print(
            f"{init:<14}{activation:<6}{width:<7}{depth:<7}{each.accuracy:<10.3f}{each.rate:<9g}{each.ratio:<23.2g}"
            f"{each.dead:<12.0%}{each.findings['vanishing gradients']:<8}{each.findings['dead units']}"
        )
    print("\nfactor of first / last gradient a layer, shallowest to deepest; in theory 0.71 for Glorot and ReLU")
    shallow, deep = min(depths), max(depths)
    for init, activation, width in dict.fromkeys(key[:3] for key in found):
        ends = [found[init, activation, width, depth].ratio for depth in (shallow, deep)]
        print(f"{init:<14}{activation:<6}{width:<7}{(ends[1] / ends[0]) ** (1 / (deep - shallow)):.2f}")
    counts = sum((each.findings for each in found.values()), Counter())
    print("\ntrials with findings:", ", ".join(f"{count} {what}" for what, count in counts.most_common()))


def draw(found, depths, path):
    import matplotlib.pyplot as plt

    from hpjax import plot

    colors = {
        ("glorot_normal", "relu"): plot.RED,
        ("he_normal", "relu"): plot.BLUE,
        ("glorot_normal", "tanh"): plot.ORANGE,
        ("he_normal", "tanh"): plot.GREY,
    }
    with plt.rc_context(plot.STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(10.2, 3.4), layout="constrained")
        for (init, activation), color in colors.items():
            for width in WIDTHS:
                label = f"{init.removesuffix('_normal')}, {activation}, {width} units"
                line = {"color": color, "marker": ".", "linestyle": "-" if width == max(WIDTHS) else ":"}
                rows = [found[init, activation, width, depth] for depth in depths]
                for ax, what in zip(panels, ("ratio", "accuracy", "dead"), strict=True):
                    ax.plot(depths, [getattr(row, what) for row in rows], label=label, **line)
        glorot = found["glorot_normal", "relu", max(WIDTHS), min(depths)].ratio
        theory = [glorot * 2 ** ((min(depths) - depth) / 2) for depth in depths]
        panels[0].plot(depths, theory, color="black", linewidth=0.8, linestyle="--", label="factor 0.71 a layer")
        panels[0].set(ylabel="gradient norm, first / last layer", yscale="log")
        panels[1].axhline(0.1, color="black", linewidth=0.8, linestyle="-.", label="chance")
        panels[1].set(ylabel="validation accuracy, best rate", ylim=(0, 1))
        panels[2].set(ylabel="dead units, best rate", ylim=(-0.02, 1.02))
        for ax in panels:
            ax.set(xlabel="hidden layers", xticks=depths)
        handles = {
            label: handle for ax in panels for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), frameon=False, loc="outside upper center", ncols=5, fontsize=8)
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/architectures"), help="where run and figure go")
    parser.add_argument("--smoke", action="store_true", help="two depths, one learning rate, few steps")
    given = parser.parse_args()
    hpx.setup()
    depths, rates = (DEPTHS[:2], RATES[2:3]) if given.smoke else (DEPTHS, RATES)
    result = make(depths, rates, *(20, 1) if given.smoke else (STEPS, REPLICATES)).run(given.out / "run")
    found = outcomes(result)
    report(found, depths, len(rates))
    draw(found, depths, given.out / "architectures.png")
    print(given.out / "architectures.png")


if __name__ == "__main__":
    main()
