"""What halving saves: 256 trials of digits in full, and by Halving, in turn; accuracy, lane-steps and wall time.

python experiments/search_quality/halving.py --seeds 10
"""

import argparse
import dataclasses
import time

import jax
import numpy as np

import hpjax as hpx


def measured(sweep):
    """The accuracy of the best trial, lane-steps, and the seconds of training; plan and program are made before."""
    sweep.plan()
    begun = time.perf_counter()
    result = sweep.run(progress=False)
    seconds = time.perf_counter() - begun
    return float(result.best.metrics["valid/accuracy"]), int(result.lane_step.sum()), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2_000)
    arguments = parser.parse_args()
    from sweep import program, space

    program = dataclasses.replace(program, steps=arguments.steps, eval_every=arguments.steps // 16)
    full = hpx.Sweep(program, space, trials=arguments.trials, objective=hpx.maximize("valid/accuracy"))
    halved = dataclasses.replace(full, scheduler=hpx.Halving(factor=4, min_steps=arguments.steps // 16))
    for sweep in (full, halved):  # so that nothing compiles below
        sweep.run(progress=False)
    print("seed  best accuracy, full  by Halving  lane-steps  wall time  cost of a lane-step")
    rows = []
    for seed in range(arguments.seeds):
        whole, few = (measured(dataclasses.replace(sweep, seed=seed)) for sweep in (full, halved))
        steps, seconds = few[1] / whole[1], few[2] / whole[2]
        rows.append((whole[0] - few[0], steps, seconds, seconds / steps))
        print(
            f"{seed:4}  {whole[0]:19.4f}  {few[0]:10.4f}  {steps:10.3f}  {seconds:9.3f}  {seconds / steps:19.2f}",
            flush=True,
        )
    for name, quantile in (("lower quartile", 0.25), ("median", 0.5), ("upper quartile", 0.75), ("worst", 1.0)):
        lost, steps, seconds, cost = np.quantile(rows, quantile, axis=0)
        print(
            f"{name:14}  accuracy lost {lost:.4f}; of the full sweep {steps:.3f} of the lane-steps and {seconds:.3f} of"
        )
        print(f"{'':14}  the wall time, each lane-step at {cost:.2f} × its cost")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
