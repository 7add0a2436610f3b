"""TensorBoard: a folder with event files for each run, which its HParams plugin reads, too."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpjax.core.errors import missing
from hpjax.core.format import show
from hpjax.results.store.rows import LOST, Status
from hpjax.results.trackers.base import TrackedRun
from hpjax.results.trackers.rows import Row
from hpjax.results.trackers.runs import Run, RunTracker

FILES = "events.out.tfevents."


class TensorBoard(RunTracker):
    """Writes event files for TensorBoard: curves, and hyperparameters for its HParams plugin.

    Each run is a folder ``NAME-ID/trial-7`` or ``NAME-ID/sweep``, of the name and the id of the sweep's run. Needs the
    package tensorboard.

    Args:
      folder: where these folders are, as for ``tensorboard --logdir``.
      runs: ``"best:20"``: one run for the sweep and, when it is finished, one for each of the 20 best trials; where
        there are no more each has its own from the beginning. ``"all"``: one for each trial from the beginning.
        ``"sweep"``: one for the sweep, with a curve for each trial.

    Raises:
      ImportError: tensorboard is not installed.
      InputError: ``runs`` is something else.
    """

    def __init__(self, folder: str | Path, runs: str = "best:20") -> None:
        if find_spec("tensorboard") is None:
            raise missing("hpx.trackers.TensorBoard", "tensorboard")
        super().__init__(runs)
        self._root = Path(folder).absolute()
        self._files: dict[str, Path] = {}

    def connect(self, run: TrackedRun) -> None:
        """Chooses the names of the folder and of new files, in whose order TensorBoard reads them."""
        self._folder = self._root / f"{run.name}-{run.id[:6]}"
        self._name = f"{FILES}{time.time_ns():020d}.{os.getpid()}"

    def open(self, run: Run) -> Mapping[str, int]:
        """Begins an event file, in a folder that may have some of the same run."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        folder = self._folder / run.key
        folder.mkdir(parents=True, exist_ok=True)
        before = sorted(folder.glob(f"{FILES}*"))
        self._files[run.key] = folder / self._name
        self._append(run.key, [{"file_version": "brain.Event:2"}])
        if run.trial is not None and not before:
            self._append(run.key, [{"summary": hparams_pb({n: _plain(value) for n, value in run.config.items()})}])
        found: dict[str, int] = {}
        for path in before:
            for step, tag in _scalars(path):
                found[tag] = max(step, found.get(tag, -1))
        return found

    def write(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Adds scalars to event files."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for key, own in rows.items():
            values = [[Summary.Value(tag=name, simple_value=x) for name, x in row.items()] for _, row in own]
            steps = [step for step, _ in own]
            self._append(key, [{"step": s, "summary": Summary(value=v)} for s, v in zip(steps, values, strict=True)])

    def close(self, key: str, status: str, summary: Mapping[str, Any]) -> None:
        """Writes the summary as text and, for the HParams plugin, whether the run succeeded."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
        from tensorboard.plugins.text.metadata import create_summary_metadata

        lines = [f"    {name}: {show(value)}" for name, value in summary.items()]
        text = TensorProto(dtype="DT_STRING", string_val=["\n".join(lines).encode()])
        about = create_summary_metadata(display_name="summary", description="")
        values = [Summary.Value(tag="summary", metadata=about, tensor=text)]
        if status != Status.RUNNING:
            ended = api_pb2.STATUS_FAILURE if status in LOST else api_pb2.STATUS_SUCCESS
            end = HParamsPluginData(session_end_info=SessionEndInfo(status=ended, end_time_secs=time.time()))
            hparams = metadata.create_summary_metadata(end)
            tag = metadata.SESSION_END_INFO_TAG
            values.append(Summary.Value(tag=tag, metadata=hparams, tensor=metadata.NULL_TENSOR))
        self._append(key, [{"summary": Summary(value=values)}])
        del self._files[key]

    def _append(self, key: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Adds events to the file of a run, which is open only meanwhile: there may be more runs than open files."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        now = time.time()
        with self._files[key].open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(Event(wall_time=now, **event).SerializeToString())


def _scalars(path: Path) -> Iterator[tuple[int, str]]:
    """Yields step and tag of every scalar in an event file, as far as it was written whole."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                yield event.step, value.tag


def _plain(value: Any) -> bool | int | float | str:
    """Returns a hyperparameter as the plugin takes it."""
    return value if isinstance(value, bool | int | float | str) else show(value)
