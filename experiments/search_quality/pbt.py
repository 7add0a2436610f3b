"""The toy of the paper on population based training: PBT against fixed hyperparameters.

M. Jaderberg et al., "Population Based Training of Neural Networks", 2017, figure 2.

Q = 1.2 − (θ₀² + θ₁²) is wanted, but training follows 1.2 − (h₀ θ₀² + h₁ θ₁²), from θ = (0.9, 0.9). With h = (1, 0) or
(0, 1), which is what the members begin with, only one of the two shrinks.

python experiments/search_quality/pbt.py --seeds 10
"""

import argparse
import dataclasses

import jax.numpy as jnp
import numpy as np

import hpjax as hpx


def step(key, theta, batch, h):
    weights = jnp.array([h.h0, h.h1])
    return theta - 0.01 * 2 * weights * theta, {"surrogate": 1.2 - (weights * theta**2).sum()}


program = hpx.Program(
    init=lambda key, h: jnp.full(2, 0.9),
    step=step,
    evaluate=lambda key, theta, split, h: {"Q": 1.2 - (theta**2).sum()},
    steps=400,
    eval_every=10,
)
space = hpx.Space(h0=hpx.Uniform(0, 1), h1=hpx.Uniform(0, 1))
starts = hpx.Manual([{"h0": 1.0, "h1": 0.0}, {"h0": 0.0, "h1": 1.0}] * 2)
schedulers = {
    "fixed": None,
    "PBT, perturb": hpx.PBT(every=20, exploit="tournament", resample=0.25),
    "PBT, resample": hpx.PBT(every=20, exploit="tournament", explore="resample"),
    "PBT, crossover": hpx.PBT(every=20, exploit="tournament", explore="crossover", resample=0.25),
}
sweep = hpx.Sweep(
    program, space, sampler=starts, scheduler=schedulers["PBT, perturb"], objective=hpx.maximize("valid/Q")
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(parser.parse_args().seeds)
    print("Q at the end, of 1.2 at most    median      worst seed")
    for name, scheduler in schedulers.items():
        sweeps = [dataclasses.replace(sweep, scheduler=scheduler, seed=seed) for seed in seeds]
        best = [each.run(progress=False).best.metrics["valid/Q"] for each in sweeps]
        print(f"{name:28}  {np.median(best):9.6f}  {min(best):9.6f}")


if __name__ == "__main__":
    main()
