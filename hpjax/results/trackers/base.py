"""What a tracker is: something that is told of a sweep while it trains, and of what it found at its end."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpjax.core.arrays import Array
from hpjax.core.hashing import digest
from hpjax.results.store.manifest import Manifest
from hpjax.results.table import CloneRecord, TrialTable


class TrackedRun(NamedTuple):
    """A run of a sweep, for those who track it.

    Attributes:
      name: the name of its directory, ``"sweep"`` where it has none.
      directory: the run directory; None where all is kept in memory.
      manifest: versions, devices, command and plan of the run, and its sweep.
    """

    name: str
    directory: Path | None
    manifest: Manifest

    @classmethod
    def of(cls, directory: Path | None, manifest: Manifest) -> "TrackedRun":
        """Returns the run in a directory."""
        return cls("sweep" if directory is None else directory.name, directory, manifest)

    @property
    def id(self) -> str:
        """Twelve characters that stay the same when the run is resumed or extended."""
        sweep = self.manifest.sweep
        return digest(f"{self.manifest.created} {self.name} {sweep.seed} {sweep.space} {sweep.code}")[:12]


class Evaluation(NamedTuple):
    """One evaluation of some lanes.

    Attributes:
      trial, replicate: the lanes, each int (lanes,).
      step: the optimizer steps that each took, int (lanes,).
      metrics: name to values, each float (lanes,).
      lane_steps: optimizer steps, or calls of ``step`` where gradients accumulate, that all lanes of the run took.
      live: how many of the lanes that train together still run.
      best: id and objective of the best trial so far, or None.
    """

    trial: Array
    replicate: Array
    step: Array
    metrics: Mapping[str, Array]
    lane_steps: int
    live: int
    best: tuple[int, float] | None


class Tracker(ABC):
    """What a run tells of its trials while it trains: ``sweep.run(trackers=[...])``.

    All methods are called in a thread of the tracker's own, in order, and none delays the training. An error in one is
    told by a warning, and ends the tracker and nothing else. A run that goes on from a checkpoint tells evaluations
    after the checkpoint anew, with the same values: a tracker leaves out what it has.
    """

    def note(self, run: TrackedRun) -> str | None:
        """Returns a sentence for the user on what is left out of what is tracked, None where nothing is."""
        return None

    @abstractmethod
    def begin(self, run: TrackedRun, table: TrialTable) -> None:
        """Begins, or goes on, to track a run.

        Args:
          run: the run.
          table: what it found so far, which the tracker may not have been told of; no trials for a new run.
        """

    @abstractmethod
    def add_trials(self, hparams: Mapping[int, Mapping[str, Any]]) -> None:
        """Takes in trials that begin.

        Args:
          hparams: trial to its hyperparameters, name to value.
        """

    def add_clones(self, clones: Sequence[CloneRecord]) -> None:  # noqa: B027
        """Takes in trials that go on from the states of others. They are in the table at the end, too."""

    @abstractmethod
    def log(self, evaluation: Evaluation) -> None:
        """Takes in one evaluation."""

    @abstractmethod
    def end(self, table: TrialTable, finished: bool) -> None:
        """Ends tracking the run.

        Args:
          table: what it found.
          finished: whether the run is; else it was interrupted, and may go on.
        """
