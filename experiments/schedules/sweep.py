"""How much does the best shape of each family of learning-rate schedules gain over cosine, at the same budget?

python experiments/schedules/sweep.py [--data FOLDER] [--out FOLDER] [--smoke]

The folder holds mnist1d.npz; without it the digits of scikit-learn are learned. Interrupted, it goes on.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx

STEPS, TRIALS, ROUNDS, SEEDS = 400, 48, 6, 12


def families_of(steps, *names):
    """Over wider domains than by default, at whose ends some best values would lie."""
    wider = {
        "warmup": hpx.Uniform(0.0, 0.75),
        "exponent": hpx.LogUniform(1 / 16, 4),
        "beta": hpx.LogUniform(1 / 64, 16),
    }
    return hpx.studies.schedule_families(steps, *names, **wider)


def study_of(data, families, trials=TRIALS, rounds=ROUNDS, replicates=SEEDS):
    """A search of its own for each family, all in one program, of the peak rate together with the shape."""
    steps = next(iter(families.values())).steps
    program = hpx.supervised(
        model=nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(64), nn.relu, nn.Dense(10)]),
        optimizer=lambda h: optax.adam(lambda step: h.learning_rate * h.schedule(step, h)),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=data,
        batch_size=50,
        steps=steps,
        eval_every=steps,
    )
    space = hpx.Space(learning_rate=hpx.LogUniform(2e-3, 0.1))
    return hpx.studies.Schedules(
        program, space, families, trials=trials, rounds=rounds, replicates=replicates, sampler=hpx.Bayes()
    )


def training_split(data):
    """Data that is evaluated on all training examples: on others the loss tells how far each shape overfits, too."""
    return hpx.Data(data.train, data.train, name=data.name)


def draw(answer, families, path):
    """The gains, and of each family the best schedule of the search with the next four, in the order of the gains."""
    import matplotlib.pyplot as plt

    from hpjax import plot

    points = sorted(answer.points, key=lambda point: -point.gain.value)
    columns = -(-len(points) // 4)
    with plt.rc_context(plot.STYLE):
        figure = plt.figure(figsize=(10.2, 4.4), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[4, 6])
        dots = hpx.studies.plot.draw_gains(answer, left.subplots())
        dots.locator_params(axis="x", nbins=5)
        axes = right.subplots(4, columns, sharex=True, sharey=True).ravel()
        for ax, point in zip(axes, points, strict=False):
            for rank, trial in reversed(list(enumerate(best_trials(answer, point.family)[:5]))):
                hparams = answer.result.hparams[trial]
                rates = hparams["learning_rate"] * families[point.family].values(hparams)
                ax.plot(rates, color=plot.GREY if rank else plot.BLUE, linewidth=0.6 if rank else 1.5)
            ax.set_title(point.family, fontsize=7)
        for ax in axes[len(points) :]:
            ax.set_axis_off()
        for ax in axes[max(len(points) - columns, 0) : len(points)]:
            ax.tick_params(labelbottom=True)
        shown = axes[0].get_lines()[-1], axes[0].get_lines()[0]
        right.legend(shown, ["best trial of the search", "the next four"], loc="outside upper center", ncols=2)
        right.supylabel("learning rate", fontsize=8)
        right.supxlabel("step", fontsize=8)
        figure.savefig(path, dpi=150)


def report(answer):
    """The gains over the baseline, and how far each family is behind the best one on the same seeds."""
    print(answer)
    best = max(answer.points, key=lambda point: point.gain.value).family
    print(f"\nbehind {best}, with 95 %")
    for point in hpx.studies.SchedulesResult.read(answer.result, best).points:
        if point.family != best:
            print(f"{point.family:<22}  {-point.gain.value:.4f}  {-point.gain.high:.4f} to {-point.gain.low:.4f}")


def best_trials(answer, family):
    """The trials of a family from best to worst, by the median over the seeds that choose."""
    own = [trial for trial, h in enumerate(answer.result.hparams) if h["schedule"] == family]
    losses = np.median(answer.result.last("valid/loss")[own, : answer.choosing], axis=1)
    return [own[i] for i in np.argsort(losses)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of mnist1d.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/schedules"))
    parser.add_argument("--smoke", action="store_true", help="four families, few trials, few steps")
    given = parser.parse_args()
    data = hpx.data.digits() if given.data is None else hpx.data.from_npz(given.data / "mnist1d.npz")
    data = training_split(data)
    if given.smoke:
        families = families_of(20, "cosine", "sqrt", "rex", "smooth_nonmonotonic")
        study = study_of(data, families, trials=4, rounds=2, replicates=4)
    else:
        families = families_of(STEPS)
        study = study_of(data, families)
    answer = study.run(given.out / data.name)
    report(answer)
    draw(answer, families, given.out / f"{data.name}.png")
    print(given.out / f"{data.name}.png")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
