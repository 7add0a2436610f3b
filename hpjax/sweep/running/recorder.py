"""The record of a run: its store and its checkpoints. Every host contributes its lanes, the first one writes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from hpjax.engine import distributed
from hpjax.results.store.checkpoints import Checkpoints
from hpjax.results.store.manifest import read_manifest, write_manifest
from hpjax.results.store.run_store import Store
from hpjax.sweep.running.state import RunState


@dataclass
class Record:
    """Where a run is recorded.

    Attributes:
      store: the database and the final states.
      directory: the run directory; None keeps all in memory.
      checkpoints: the checkpoints of the directory, on the host that writes them; None on the others.
      state: the state from which the run goes on, None for a new run. Whoever goes on from it takes it away.
      over: whether the run is finished.
    """

    store: Store
    directory: Path | None = None
    checkpoints: Checkpoints | None = None
    state: RunState | None = None
    over: bool = False

    def due(self, decided: bool) -> bool:
        """Returns whether it is time for a checkpoint; the same on every host, all of which must ask.

        Args:
          decided: whether a scheduler has just decided. Lanes wait then anyway, and what it stopped need not be saved.
        """
        if self.directory is None:
            return False
        return bool(distributed.broadcast_json(self.checkpoints is not None and self.checkpoints.due(decided)))

    def save(self, state: Callable[[], RunState], wait: bool = False) -> None:
        """Writes a checkpoint.

        Args:
          state: returns what to write; called on every host, all of which take part in gathering it.
          wait: whether to wait until the checkpoint is written.
        """
        if self.directory is None:
            return
        begun = time.monotonic()
        arrays = state().arrays()
        if self.checkpoints is not None:
            self.checkpoints.save(arrays, time.monotonic() - begun)
            if wait:
                self.checkpoints.wait()

    def amend(self, plan: str) -> None:
        """Replaces the text of the plan in the manifest."""
        if self.directory is not None and distributed.is_writer():
            write_manifest(self.directory, replace(read_manifest(self.directory), plan=tuple(plan.splitlines())))

    def finish(self, seconds: float, again: Callable[[], RunState] | None = None) -> None:
        """Records that the run is complete, and deletes its checkpoints, which nobody needs any more.

        Args:
          seconds: how long the run took.
          again: returns the state from which groups that failed are tried again; None where there is nothing to try.
        """
        if again is not None:
            self.save(again, wait=True)
        with self.store.transaction():
            self.store.finish(seconds)
        if self.checkpoints is not None and again is None:
            self.checkpoints.remove()

    def close(self) -> None:
        """Waits until all is written, and lets other processes write to the directory."""
        try:
            if self.checkpoints is not None:
                self.checkpoints.close()
        finally:
            self.store.unlock()
