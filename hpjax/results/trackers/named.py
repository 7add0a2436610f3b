"""Trackers by name, as the command line has them: ``tensorboard:logs``."""

from collections.abc import Callable

from hpjax.core.errors import InputError, did_you_mean
from hpjax.results.trackers.base import Tracker
from hpjax.results.trackers.jsonl import JSONL
from hpjax.results.trackers.mlflow import MLflow
from hpjax.results.trackers.tensorboard import TensorBoard
from hpjax.results.trackers.wandb import WandB

# Those that have runs take which trials become some.
WITH_RUNS: dict[str, Callable[..., Tracker]] = {"mlflow": MLflow, "tensorboard": TensorBoard, "wandb": WandB}
KNOWN: dict[str, Callable[..., Tracker]] = {**WITH_RUNS, "jsonl": JSONL}


def named(text: str, runs: str | None = None) -> Tracker:
    """Returns a tracker by its name and where it tracks to.

    Args:
      text: ``"tensorboard:FOLDER"``, ``"wandb:PROJECT"``, ``"mlflow:EXPERIMENT"`` or ``"jsonl:FILE"``.
      runs: which trials become runs; by default as the tracker has it.

    Raises:
      ImportError: its package is not installed.
      InputError: there is no such tracker, or ``runs`` is no choice of runs.
    """
    kind, _, where = text.partition(":")
    if kind not in KNOWN or not where:
        allowed = "must be the name of a tracker, a colon, and a folder, project, experiment or file"
        remedy = "Write --track tensorboard:logs." if kind in KNOWN else did_you_mean(kind, KNOWN)
        raise InputError("--track", text, allowed, remedy)
    return KNOWN[kind](where, **({"runs": runs} if runs is not None and kind in WITH_RUNS else {}))
