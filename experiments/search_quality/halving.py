"""What halving saves: 256 trials of digits in full, and by Halving, in turn; accuracy, lane-steps and wall time.

python experiments/search_quality/halving.py --repeats 3
"""

import argparse
import dataclasses
import statistics
import time

import jax

import hpjax as hpx


def timed(sweep):
    """The result, its lane-steps, and the seconds of training: the plan is made, the program compiled before."""
    sweep.plan()
    begun = time.perf_counter()
    result = sweep.run(progress=False)
    return result, int(result.lane_step.sum()), time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trials", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2_000)
    arguments = parser.parse_args()
    from sweep import program, space

    program = dataclasses.replace(program, steps=arguments.steps, eval_every=arguments.steps // 16)
    full = hpx.Sweep(program, space, trials=arguments.trials, objective=hpx.maximize("valid/accuracy"))
    halved = dataclasses.replace(full, scheduler=hpx.Halving(factor=4, min_steps=arguments.steps // 16))
    for sweep in (full, halved):  # so that nothing compiles below
        sweep.run(progress=False)
    runs = {"full": [], "halving": []}
    for _ in range(arguments.repeats):
        for name, sweep in (("full", full), ("halving", halved)):
            runs[name].append(timed(sweep))
    all_steps, few_steps = runs["full"][0][1], runs["halving"][0][1]
    seconds = {name: statistics.median(each[2] for each in found) for name, found in runs.items()}
    metric = full.objective.metric
    best = {name: float(max(result.best.metrics[metric] for result, *_ in found)) for name, found in runs.items()}
    print(f"{'':8}  {metric}  lane-steps  seconds (median of {arguments.repeats})")
    print(f"full      {best['full']:14.4f}  {all_steps:10,}  {seconds['full']:.1f}")
    print(f"halving   {best['halving']:14.4f}  {few_steps:10,}  {seconds['halving']:.1f}")
    print(
        f"accuracy lost {best['full'] - best['halving']:.4f}, lane-steps {few_steps / all_steps:.3f} of the full sweep,"
    )
    ratio = seconds["halving"] / seconds["full"]
    print(f"wall time {ratio:.3f}: each costs {ratio * all_steps / few_steps:.2f} × what it costs in the full sweep")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
