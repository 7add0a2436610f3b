"""Inspection: what evaluations report beside means over steps."""

import jax

from hpjax.core.hparams import Hparams
from hpjax.data.examples import AnyExamples
from hpjax.training.curvature import curvature
from hpjax.training.measures import Values
from hpjax.training.monitors import CURVATURE
from hpjax.training.state import TrainingState
from hpjax.training.trainer import Training


def inspect(training: Training, key: jax.Array, state: TrainingState, train: AnyExamples, h: Hparams) -> Values:
    """Returns what is monitored of the curvature, and, where the batch size changes, the steps taken and that size.

    Args:
      training: the program.
      key: the key of the evaluation, shape ().
      state: the state of the lane.
      train: the training split; with folds the whole pool.
      h: the hyperparameters.
    """
    found: Values = {}
    if not CURVATURE.isdisjoint(training.monitors):
        found |= curvature(training, key, state, train, h)
    if state.filled is not None:
        found["optimizer_steps"] = state.filled.batches
        found["batch_size"] = training.batching.present(state.filled, h)[0]
    return found
