"""MLflow: a run for the sweep, and below it those of its trials."""

import re
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from hpjax.core.errors import missing
from hpjax.core.format import show
from hpjax.results.store.rows import LOST, Status
from hpjax.results.trackers.base import TrackedRun
from hpjax.results.trackers.rows import Row
from hpjax.results.trackers.runs import SWEEP, Run, RunTracker

# What MLflow takes at once.
METRICS, PARAMS, LONGEST = 1000, 100, 6000
# Tags by which a sweep that goes on finds its runs.
SWEEP_TAG, KEY_TAG, PARENT_TAG = "hpjax.sweep", "hpjax.run", "mlflow.parentRunId"


class MLflow(RunTracker):
    """Logs to MLflow: a run for the sweep, and below it those of its trials. Needs the package mlflow or mlflow-skinny.

    Args:
      experiment: the name of the experiment, which is made where there is none.
      uri: of the tracking server or database, such as ``"sqlite:///mlflow.db"``; by default what the variable
        ``MLFLOW_TRACKING_URI`` says, else MLflow's own default.
      runs: as for ``TensorBoard``. A database takes tens of milliseconds for each run and evaluation.

    Raises:
      ImportError: mlflow is not installed.
      InputError: ``runs`` is no choice of runs.
    """

    def __init__(self, experiment: str, uri: str | None = None, runs: str = "best:20") -> None:
        if find_spec("mlflow") is None:
            raise missing("hpx.trackers.MLflow", "mlflow")
        super().__init__(runs)
        self._experiment, self._uri = experiment, uri
        self._ids: dict[str, str] = {}

    def connect(self, run: TrackedRun) -> None:
        """Finds the experiment, and the runs of this sweep in it."""
        from mlflow.tracking import MlflowClient

        self._name, self._sweep, self._client = run.name, run.id, MlflowClient(self._uri)
        there = self._client.get_experiment_by_name(self._experiment)
        self._in = self._client.create_experiment(self._experiment) if there is None else there.experiment_id
        self._ids, page = {}, None
        while page != "":
            found = self._client.search_runs([self._in], f"tags.`{SWEEP_TAG}` = '{run.id}'", page_token=page)
            self._ids |= {each.data.tags[KEY_TAG]: each.info.run_id for each in found}
            page = found.token or ""

    def open(self, run: Run) -> Mapping[str, int]:
        """Makes a run, or goes on with it."""
        client = self._client
        if run.key in self._ids:
            id = self._ids[run.key]
            client.update_run(id, status="RUNNING")
            names = client.get_run(id).data.metrics
            return {name: max(each.step for each in client.get_metric_history(id, name)) for name in names}
        tags = {SWEEP_TAG: self._sweep, KEY_TAG: run.key}
        if run.key != SWEEP:
            tags[PARENT_TAG] = self._ids[SWEEP]
        made = client.create_run(self._in, run_name=f"{self._name} {run.key.replace('-', ' ')}", tags=tags)
        self._ids[run.key] = made.info.run_id
        self._params(run)
        return {}

    def _params(self, run: Run) -> None:
        """Logs what a run was run with."""
        from mlflow.entities import Param

        params = [Param(_named(name), _text(value)) for name, value in run.config.items()]
        for at in range(0, len(params), PARAMS):
            self._client.log_batch(self._ids[run.key], params=params[at : at + PARAMS])

    def write(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Logs rows."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for key, own in rows.items():
            metrics = [Metric(_named(name), x, now, step) for step, row in own for name, x in row.items()]
            for at in range(0, len(metrics), METRICS):
                self._client.log_batch(self._ids[key], metrics=metrics[at : at + METRICS])

    def close(self, key: str, status: str, summary: Mapping[str, Any]) -> None:
        """Ends a run, as failed where its trial diverged or failed; the summary becomes tags."""
        from mlflow.entities import RunTag

        id = self._ids[key]
        tags = [RunTag(_named(name), _text(value)) for name, value in {**summary, "status": status}.items()]
        for at in range(0, len(tags), PARAMS):
            self._client.log_batch(id, tags=tags[at : at + PARAMS])
        if status != Status.RUNNING:
            self._client.set_terminated(id, "FAILED" if status in LOST else "FINISHED")


def _named(name: str) -> str:
    """Returns a name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def _text(value: Any) -> str:
    return show(value)[:LONGEST]
