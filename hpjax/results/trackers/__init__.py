"""Trackers: what a run tells of its trials while it trains, to tools that draw and compare them."""

from hpjax.results.trackers.base import Evaluation, TrackedRun, Tracker
from hpjax.results.trackers.jsonl import JSONL
from hpjax.results.trackers.mlflow import MLflow
from hpjax.results.trackers.tensorboard import TensorBoard
from hpjax.results.trackers.wandb import WandB

__all__ = ["JSONL", "Evaluation", "MLflow", "TensorBoard", "TrackedRun", "Tracker", "WandB"]
