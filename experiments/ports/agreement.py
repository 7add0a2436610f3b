"""What the ports share: a sweep, two of its trials once more as plain loops, and how well both agree.

A port calls ``main(sweep, alone)``, where ``alone(h, lane)`` trains one trial in its libraries' own way and yields the
loss of each evaluation. All that it draws it takes from ``lane``, so that it sees the very noise that hpjax's lane saw.
"""

import argparse
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.training.train_state import TrainState

import hpjax as hpx

# The largest relative difference of a loss in short runs. A plain loop adds the same float32 numbers in another order;
# what differs by more does other mathematics. In long runs training itself makes such differences grow.
TOLERANCE = 1e-4


@partial(jax.jit, static_argnames="purpose")
def lane_key(seed, purpose, step=None):
    key = hpx.keys.purpose_key(hpx.keys.lane_key(seed, replicate=0), purpose)
    return key if step is None else hpx.keys.step_key(key, step)


batch_indices = jax.jit(hpx.data.batch_indices, static_argnames=("examples", "batch_size"))


@dataclass(frozen=True)
class Lane:
    """What the first replicate of a trial draws, by purpose and step.

    Attributes:
      seed: the seed of the sweep.
      steps: optimizer steps.
      every: steps between evaluations.
      data: the splits.
    """

    seed: int
    steps: int
    every: int
    data: Any

    def key(self, purpose, step=None):
        """The key of ``"init"``, or of ``"step"`` or ``"evaluate"`` at a step."""
        return lane_key(self.seed, purpose, step)

    def batch(self, step, size):
        """The examples of a step."""
        examples = len(jax.tree.leaves(self.data.train)[0])
        index = batch_indices(self.key("batch"), step, examples=examples, batch_size=size)
        return jax.tree.map(lambda array: array[np.asarray(index)], self.data.train)

    def evaluates(self, step):
        """Whether an evaluation follows step ``step``, counted from 0."""
        return (step + 1) % self.every == 0 or step + 1 == self.steps

    def losses(self, loss, params, tx, size):
        """The loop of Flax's examples, with a ``TrainState``: the loss of each evaluation.

        Args:
          loss: ``loss(params, batch, key)``, a scalar.
          params: the parameters before the first step.
          tx: the optimizer.
          size: examples of a batch.
        """
        state = jax.jit(lambda params: TrainState.create(apply_fn=loss, params=params, tx=tx))(params)
        value = jax.jit(loss)
        train_step = jax.jit(lambda state, *batch: state.apply_gradients(grads=jax.grad(loss)(state.params, *batch)))
        for step in range(self.steps):
            state = train_step(state, self.batch(step, size), self.key("step", step))
            if self.evaluates(step):
                yield value(state.params, self.data.valid, self.key("evaluate", step + 1))


def main(sweep, alone, metric="valid/loss"):
    """Trains the sweep, and its first and last trial alone; says how far they are apart, which short runs check."""
    parser = argparse.ArgumentParser(description="Trains a port with hpjax and as a plain loop, and compares.")
    parser.add_argument("--out", type=Path, help="a folder for the run; by default it is kept in memory")
    parser.add_argument("--smoke", action="store_true", help="two trials of 20 steps")
    given = parser.parse_args()
    if given.smoke:
        sweep = replace(sweep, trials=min(sweep.trials, 2), program=shortened(sweep.program))
    begun = time.perf_counter()
    result = sweep.run(None if given.out is None else given.out / "run", progress=False)
    print(f"hpjax: {len(result)} trials in {time.perf_counter() - begun:.1f} s; {result.best}")
    length = sweep.program.length(hpx.Hparams(result[0].hparams))
    worst = np.zeros(1)
    for trial in (result[0], result[len(result) - 1]):
        begun = time.perf_counter()
        lane = Lane(sweep.seed, length.steps, length.eval_every, sweep.program.data)
        plain = np.array([float(loss) for loss in alone(hpx.Hparams(trial.hparams), lane)])
        seconds, ours = time.perf_counter() - begun, trial.curve(metric)[0, : len(plain)]
        print(f"trial {trial.id}: {metric} ends at {ours[-1]:.6f}, alone at {plain[-1]:.6f} in {seconds:.1f} s")
        worst = np.maximum(worst, np.abs((ours - plain) / plain))
    shown = ", ".join(f"{gap:.1e} at step {step:.0f}" for gap, step in zip(worst, trial.curve("step")[0], strict=False))
    print(f"agreement: the two differ by at most {shown}, relatively")
    if given.smoke and not worst.max() <= TOLERANCE:
        raise SystemExit(f"They must differ by at most {TOLERANCE}.")


def shortened(program):
    return program if program.steps == 1 else replace(program, steps=20, eval_every=10)
