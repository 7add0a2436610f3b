"""How large may the batches of a small language model be, and how does that grow over a training and with the model?

python experiments/characters/batch_scaling.py [--out FOLDER] [--smoke]

Three measures side by side, of three sizes: branches of one training, steps to a target, and the noise of gradients.
Then a ramp of batch sizes, which takes fewer steps for as many examples. Interrupted, the command goes on.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from model import Transformer
from text import tokens

import hpjax as hpx

LENGTH, HELD_OUT = 16, 4096
BATCH, PART, RATE = 8, 4, 4e-3
# Windows in which an average of the weights forgets half: alike for all batch sizes, which averaging over steps is not.
HALF = 256


class Scale(NamedTuple):
    """How much is trained.

    Attributes:
      widths: of the models.
      warmup: steps of the learning rate.
      steps: of batches of 8, after which branches begin.
      sizes: of batches.
      branch: windows of a branch.
      targets: of the validation loss, in nats a byte, hardest first.
      trials: learning rates of each batch size to the target.
      most: windows that a trial may take to it.
      seeds: of trainings that branch, decay and ramp.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    warmup: int = 50
    steps: tuple[int, ...] = (100, 400, 1600)
    sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    branch: int = 2048
    targets: tuple[float, ...] = (2.3, 2.5, 2.7)
    trials: int = 6
    most: int = 16_384
    seeds: int = 3


SMOKE = Scale((8,), 2, (5, 10, 20), (8, 16, 64), 64, (4.6,), 2, 256)


def program_of(width, scale, **settings):
    """A transformer at a constant learning rate, so that one training serves all lengths, and each step is a place to
    branch. The average of its weights stands in for the decay that a schedule would end with."""
    text, known = tokens()
    settings = {
        "optimizer": lambda h: optax.adam(hpx.optim.warmup_constant_schedule(0.0, h.learning_rate, scale.warmup)),
        "average": lambda h: hpx.optim.half_life(HALF, h.batch_size),
        "batch_size": lambda h: h.batch_size,
        "microbatch": BATCH,
    } | settings
    return hpx.supervised(
        model=Transformer(len(known), width, depth=1, heads=width // 8),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=hpx.data.tokens(text[:-HELD_OUT], LENGTH, valid=text[-HELD_OUT:], name="Python's manual"),
        **settings,
    )


def base_of(width, scale, folder):
    """The trainings of which branches are made, one after each number of steps, and their noise scale over time."""
    program = program_of(
        width,
        scale,
        steps=lambda h: h.steps,
        microbatch=PART,
        monitor=["gradient_noise"],
        eval_every=max(scale.steps[0] // 4, 1) * BATCH // PART,  # the noise of so many steps before each place
    )
    space = hpx.Space(learning_rate=RATE, batch_size=BATCH, steps=hpx.Choice(*scale.steps))
    return hpx.Sweep(program, space, sampler=hpx.Grid(), replicates=scale.seeds).run(folder / "base")


def noise_of(base):
    """The noise scale at the end of each training, the geometric mean over seeds."""
    scales = hpx.studies.noise_scale(base).simple  # (steps, seeds, evaluations)
    ends = np.isfinite(base.curves("valid/loss")).sum(axis=2) - 1
    return np.exp(np.log(np.take_along_axis(scales, ends[..., None], axis=2)).mean(axis=(1, 2)))


def branches_of(width, scale, base, folder):
    """The critical batch size where each of the trainings ended."""
    starts = [base[i] for i in range(len(scale.steps))]
    program = program_of(width, scale, steps=lambda h: h.steps)
    study = hpx.studies.Branches(program, starts, scale.sizes, examples=scale.branch, tolerance=0.02)
    return study.run(folder / "branches")


def to_target(width, scale, folder, name="target", rates=(1e-3, 4e-2), **settings):
    """Steps to a loss at the best learning rate of each batch size."""
    program = program_of(width, scale, steps=1, eval_every=256 // BATCH, **settings)
    study = hpx.studies.BatchScaling(
        program,
        hpx.Space(learning_rate=hpx.LogUniform(*rates)),
        scale.sizes,
        target=scale.targets[0],
        trials=scale.trials,
        steps=lambda size: scale.most // size,
    )
    result = study.sweep.run(folder / name)
    return [study.read(result, target) for target in scale.targets]


def decayed(width, scale, base, folder):
    """Losses of the averaged weights, and after a fifth more steps in which the rate falls to 0: (starts, seeds)."""
    states = [base[i].restore(seed) for i in range(len(scale.steps)) for seed in range(scale.seeds)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)
    program = program_of(
        width,
        scale,
        start_from=lambda h: jax.tree.map(lambda x: x[h.start], stacked),
        optimizer=lambda h: optax.adam(optax.linear_schedule(RATE, 0.0, h.steps // 5, h.steps)),
        average=None,
        batch_size=BATCH,
        microbatch=None,
        steps=lambda h: h.steps // 5,
    )
    lanes = [{"start": i, "steps": scale.steps[i // scale.seeds]} for i in range(len(states))]
    space = hpx.Space(start=hpx.Choice(*range(len(states))), steps=hpx.Choice(*scale.steps))
    result = hpx.Sweep(program, space, sampler=hpx.Manual(lanes), seed=1).run(folder / "decayed")
    after = result.last("valid/loss")[:, 0].reshape(len(scale.steps), scale.seeds)
    return base.last("valid/loss"), after


RAMPS = ("batches of 8 throughout", "half the critical size", "the critical size", "the last of these throughout")


def ramps_of(width, scale, law, folder):
    """Training with the critical batch size of the moment, beside constant ones: losses (ramps, seeds) and steps."""
    last = float(np.clip(law(scale.steps[-1] * BATCH), 2 * BATCH, scale.sizes[-1]))
    size, exponent = law.coefficient.value, law.exponent.value

    def ramp(h):
        return lambda seen: jnp.clip(h.coefficient * jnp.maximum(seen, 1) ** h.exponent, BATCH, last)

    program = program_of(
        width,
        scale,
        batch_size=ramp,
        steps=scale.steps[-1],
        average=lambda h: hpx.optim.half_life(HALF, h.last),
        optimizer=lambda h: optax.chain(
            optax.adam(optax.warmup_constant_schedule(0.0, RATE, scale.warmup)), hpx.optim.scale_by_batch_size(BATCH)
        ),
    )
    ramps = ((1.0, 0.0, float(BATCH)), (size / 2, exponent, last), (size, exponent, last), (last, 0.0, last))
    lanes = [{"coefficient": a, "exponent": b, "last": end} for a, b, end in ramps]
    space = hpx.Space(**{name: hpx.Choice(*dict.fromkeys(lane[name] for lane in lanes)) for name in lanes[0]})
    sweep = hpx.Sweep(program, space, sampler=hpx.Manual(lanes), replicates=scale.seeds)
    result = sweep.run(folder / "ramps")
    return result.last("valid/loss"), result.last("train/optimizer_steps")[:, 0]


def interval(values):
    """A mean with its 95 % interval by Student's t over seeds."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):+.3f} ± {half:.3f}"


def draw(answers, noises, targets, path):
    """Draws critical batch sizes against windows seen, by branches and by noise, and steps to the target."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    with plt.rc_context(hpx.plot.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.8, 2.8), layout="constrained")
        colors = plt.get_cmap("cividis")(np.linspace(0, 0.9, len(answers)))
        for (width, answer), color in zip(answers.items(), colors, strict=True):
            seen = [point.examples for point in answer.points]
            value, low, high = (np.array([point.critical[i] for point in answer.points]) for i in range(3))
            high = np.minimum(high, answer.batch_sizes[-1])
            bars = {"ms": 3, "lw": 1.2, "capsize": 2, "color": color}
            left.errorbar(seen, value, [value - low, high - value], fmt="o-", **bars)
            left.plot(seen, noises[width], "--", lw=1, color=color)
            points = targets[width][0].points
            sizes, steps = ([getattr(point, name) for point in points] for name in ("batch_size", "steps"))
            right.plot(sizes, steps, "o-", ms=3, lw=1.2, color=color, label=f"width {width}")
        left.set(xlabel="windows seen", ylabel="critical batch size")
        left.set_title("by branches (solid) and by noise (dashed)", fontsize=8)
        right.set(xlabel="batch size", ylabel=f"steps to {next(iter(targets.values()))[0].goal}")
        right.legend(frameon=False, fontsize=7)
        for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
            axis.axes.set(xscale="log", yscale="log")
        for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axis.set_minor_formatter(NullFormatter())
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/characters-scaling"))
    parser.add_argument("--smoke", action="store_true", help="one small model, few steps")
    given = parser.parse_args()
    scale = SMOKE if given.smoke else Scale()
    answers, noises, targets, sizes = {}, {}, {}, {}
    for width in scale.widths:
        folder = given.out / f"width-{width}"
        base = base_of(width, scale, folder)
        sizes[width] = sum(x.size for x in jax.tree.leaves(base[0].restore()["params"]))
        noises[width] = noise_of(base)
        answers[width] = branches_of(width, scale, base, folder)
        targets[width] = to_target(width, scale, folder)
        print(f"\nwidth {width}, {sizes[width]:,} parameters\n{answers[width]}")
        print("noise scale at these places:", ", ".join(f"{noise:.1f}" for noise in noises[width]))
        for answer in targets[width]:
            if len(answer.points) >= 3:
                low, high = answer.interval_of_critical
                fit = answer.fit
                print(
                    f"{answer.goal}: critical batch size {fit.critical_batch_size:.3g} ({low:.3g} to {high:.3g}), "
                    f"least windows {fit.minimum_examples:,.0f}"
                )
    middle = scale.widths[len(scale.widths) // 2]
    folder = given.out / f"width-{middle}"
    base = base_of(middle, scale, folder)
    print(f"\nwidth {middle}: loss of the average, and what a decay in a fifth more steps changes, by steps")
    for steps, averaged, after in zip(scale.steps, *decayed(middle, scale, base, folder), strict=True):
        print(f"{steps}: {averaged.mean():.3f}, {interval(after - averaged)}")
    if not given.smoke:  # a program more
        free = optax.contrib.schedule_free_adamw
        changes = {"optimizer": lambda h: free(h.learning_rate, scale.warmup, weight_decay=0.0), "average": None}
        found = to_target(middle, scale, folder, "schedule-free", (3e-3, 0.3), **changes)
        print(f"\nwidth {middle}, schedule-free AdamW\n{found[0]}")
    losses, steps = ramps_of(middle, scale, answers[middle].law, folder)
    print(f"\nwidth {middle}, as many windows by ramps: steps, loss, less that of the first")
    for name, own, taken in zip(RAMPS, losses, steps, strict=True):
        print(f"{name}: {taken:.0f}, {own.mean():.3f}, {interval(own - losses[0])}")
    if len(scale.widths) >= 3:
        parameters = [sizes[width] for width in scale.widths]
        for i in range(len(scale.steps)):
            found = [answers[width].points[i].by_seed for width in scale.widths]
            law = hpx.studies.fit_power_law(parameters, found)
            print(f"after {scale.steps[i] * BATCH:,} windows: critical batch size = {law}, with the parameters as x")
    draw(answers, noises, targets, given.out / "batch_scaling.png")
    print(given.out / "batch_scaling.png")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
