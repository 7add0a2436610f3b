"""Weights & Biases: a group of runs in a project."""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpjax.core.errors import missing
from hpjax.results.store.rows import LOST
from hpjax.results.trackers.base import TrackedRun
from hpjax.results.trackers.rows import Row
from hpjax.results.trackers.runs import Run, RunTracker
from hpjax.results.trackers.wandb_history import last_steps, offline, online


class WandB(RunTracker):
    """Logs to Weights & Biases, a group of runs for each sweep. Needs the package wandb.

    Whether it does so online, and as whom, is as ``wandb login`` and the variables ``WANDB_MODE`` and
    ``WANDB_API_KEY`` say.

    Args:
      project: the name of the project.
      runs: as for ``TensorBoard``. W&B gets slow beyond some hundred runs.
      **init: more arguments of ``wandb.init``, for each run: ``entity="..."``, ``tags=[...]``, ``dir="..."``.

    Raises:
      ImportError: wandb is not installed.
      InputError: ``runs`` is no choice of runs.
    """

    def __init__(self, project: str, runs: str = "best:20", **init: Any) -> None:
        if find_spec("wandb") is None:
            raise missing("hpx.trackers.WandB", "wandb")
        super().__init__(runs)
        self._project, self._init = project, init
        self._runs: dict[str, Any] = {}
        self._axes: dict[str, str] = {}

    def connect(self, run: TrackedRun) -> None:
        """Chooses the names of the runs."""
        self._name, self._id = run.name, run.id
        self._folder = Path(self._init.get("dir") or os.environ.get("WANDB_DIR") or ".").absolute() / "wandb"

    def open(self, run: Run) -> Mapping[str, int]:
        """Opens a run of the group, beside those that this process has."""
        import wandb

        quiet, id = run.trial is not None, f"{self._id}-{run.key}"
        before = last_steps(offline(self._folder, id), run.axis)
        found = wandb.init(
            **{
                "project": self._project,
                "id": id,
                "name": f"{self._name} {run.key.replace('-', ' ')}",
                "group": f"{self._name}-{self._id}",
                "job_type": "trial" if quiet else "sweep",
                "config": dict(run.config),
                "resume": "allow",
                "reinit": "create_new",
                "settings": wandb.Settings(console="off", silent=quiet, x_disable_stats=quiet),
                **self._init,
            }
        )
        found.define_metric(run.axis)
        found.define_metric("*", step_metric=run.axis)
        self._runs[run.key], self._axes[run.key] = found, run.axis
        return last_steps(online(found), run.axis) if found.resumed else before

    def write(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Logs rows."""
        for key, own in rows.items():
            for step, values in own:
                self._runs[key].log({self._axes[key]: step, **values})

    def close(self, key: str, status: str, summary: Mapping[str, Any]) -> None:
        """Finishes a run, as failed where its trial diverged or failed."""
        run = self._runs.pop(key)
        run.summary.update({**summary, "status": status})
        run.finish(exit_code=1 if status in LOST else 0)
