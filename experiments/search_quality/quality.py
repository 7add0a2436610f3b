"""How good is the search? Regret of Bayes, Optuna's TPE and chance, in batches of 32, the same seeds for all.

python experiments/search_quality/quality.py --seeds 10 --data FOLDER

The folder holds mnist1d.npz; without it MNIST-1D is left out.
"""

import argparse
import math
import time
from pathlib import Path

import cnn
import jax
import matplotlib.pyplot as plt
import numpy as np
import optuna
from sweep import sweep as digits

import hpjax as hpx
from hpjax import plot
from hpjax.results.ticks import set_log_ticks

BATCH = 32
UNIT = {size: hpx.Space(**{f"x{i}": hpx.Uniform(0, 1) for i in range(size)}) for size in (2, 6, 10)}
# Hartmann's coefficients: L. C. W. Dixon and G. P. Szegő, "Towards Global Optimisation 2", 1978.
A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])


def branin(x):
    x, y = 15 * x[0] - 5, 15 * x[1]
    bowl = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def hartmann(x):
    return -float(WEIGHTS @ np.exp(-(A * (x - P) ** 2).sum(axis=1)))


def ackley(x):
    """Its minimum moved away from the middle, where samplers may look first."""
    x = 65.536 * (x - np.linspace(0.3, 0.65, 10))
    return -20 * math.exp(-0.2 * math.sqrt((x**2).mean())) - math.exp(np.cos(2 * math.pi * x).mean()) + 20 + math.e


# Function, dimensions, minimum, rounds.
FUNCTIONS = {
    "Branin": (branin, 2, 0.397887, 6),
    "Hartmann-6": (hartmann, 6, -3.322368, 8),
    "Ackley-10": (ackley, 10, 0.0, 8),
}
SAMPLERS = {
    "Bayes": hpx.Bayes,
    "TPE": lambda: hpx.Optuna(optuna.samplers.TPESampler(constant_liar=True)),
    "random": hpx.Random,
}


def of_function(name, make, seed):
    """The best value after each round, above the minimum."""
    function, size, least, rounds = FUNCTIONS[name]
    sampler, history = make(), []
    for number in range(rounds):
        points = sampler.ask(UNIT[size], history, BATCH, seed)
        values = [function(np.array([point[f"x{i}"] for i in range(size)])) for point in points]
        history += [hpx.Observation(p, (v,), 1, number) for p, v in zip(points, values, strict=True)]
    scores = np.array([seen.score for seen in history]).reshape(rounds, BATCH)
    return np.minimum.accumulate(scores.min(axis=1)) - least


def of_training(sweep, make, seed):
    """The best objective after each round; trainings of a seed see the same noise and batches whatever the sampler."""
    result = hpx.Sweep(
        sweep.program, sweep.space, trials=4 * BATCH, rounds=4, sampler=make(), objective=sweep.objective, seed=seed
    ).run(progress=False)
    values = result.last(sweep.objective.metric)[:, 0].reshape(4, BATCH)
    return np.minimum.accumulate(np.nanmin(values, axis=1))


def seconds_to_propose():
    """Once its programs are compiled."""
    space, rng = UNIT[6], np.random.default_rng(0)
    units = rng.random((1000, 6))
    history = [hpx.Observation(space.from_unit(u), (hartmann(u),), 1) for u in units]
    hpx.Bayes().ask(space, history, 256, seed=0)
    begun = time.perf_counter()
    hpx.Bayes().ask(space, history, 256, seed=1)
    return time.perf_counter() - begun


def draw(found, path):
    """Draws the medians over seeds, of problem to sampler to (seeds, rounds), a panel a problem."""
    styles = dict(zip(SAMPLERS, ((plot.RED, "o-"), (plot.BLUE, "s--"), (plot.GREY, "^:")), strict=True))
    with plt.rc_context(plot.STYLE):
        figure, panels = plt.subplots(2, 3, figsize=(6.8, 3.8), layout="constrained")
        panels = panels.ravel()
        for panel, (problem, curves) in zip(panels, found.items(), strict=False):
            for name, values in curves.items():
                color, line = styles[name]
                trials = BATCH * np.arange(1, values.shape[1] + 1)
                panel.plot(trials, np.median(values, axis=0), line, color=color, markersize=3, label=name)
            label = "regret" if problem in FUNCTIONS else "loss"
            panel.set(title=problem, xlabel="trials", yscale="log", ylabel=label)
            set_log_ticks(panel.yaxis)
        for panel in panels[len(found) :]:
            panel.set_axis_off()
        panels[-1].legend(
            *panels[0].get_legend_handles_labels(), loc="center", title="best so far, median of the seeds"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--picture", type=Path, default=Path("runs/search_quality.png"))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problems = {name: lambda make, seed, name=name: of_function(name, make, seed) for name in FUNCTIONS}
    problems["digits MLP"] = lambda make, seed: of_training(digits, make, seed)
    if arguments.data is None:
        print("MNIST-1D is left out: give --data, the folder of mnist1d.npz")
    else:
        mnist1d = cnn.sweep_on(arguments.data / "mnist1d.npz")
        problems["MNIST-1D CNN"] = lambda make, seed: of_training(mnist1d, make, seed)
    print(f"Bayes proposes 256 points at 1,000 observations in {seconds_to_propose():.1f} s")
    found = {}
    print(f"{'problem':12}  {'sampler':8}     median end  {'quartiles':21}  seconds a seed")
    for problem, run in problems.items():
        curves = found[problem] = {}
        for name, make in SAMPLERS.items():
            begun = time.perf_counter()
            curves[name] = np.array([run(make, seed) for seed in range(arguments.seeds)])
            seconds = (time.perf_counter() - begun) / arguments.seeds
            ends = curves[name][:, -1]
            low, middle, high = np.quantile(ends, (0.25, 0.5, 0.75))
            print(f"{problem:12}  {name:8}  {middle:13.4g}  {low:9.4g} … {high:<9.4g}  {seconds:7.1f}", flush=True)
        wins = (curves["Bayes"][:, -1] < curves["TPE"][:, -1]).sum()
        print(f"{problem:12}  Bayes ends below TPE in {wins} of {arguments.seeds} seeds")
    draw(found, arguments.picture)
    print(f"{arguments.picture}")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
