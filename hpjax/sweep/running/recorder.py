"""The record of a run: its store, which the first host writes, and its checkpoints, of which each writes its part."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from hpjax.engine import distributed
from hpjax.results.store.checkpoints import Checkpoints, forget
from hpjax.results.store.manifest import read_manifest, write_manifest
from hpjax.results.store.run_store import Store
from hpjax.sweep.running.state import RunState


@dataclass
class Record:
    """Where a run is recorded.

    Attributes:
      store: the database and the final states.
      directory: the run directory; None keeps all in memory.
      checkpoints: the checkpoints of the directory, of which each host writes its part; None once the run is finished.
      state: the state from which the run goes on, as this host has it; None for a new run. Whoever goes on from it
        takes it away.
      others: reads that state as each of the other hosts that wrote it had it, one after the other: with other lanes.
      over: whether the run is finished.
    """

    store: Store
    directory: Path | None = None
    checkpoints: Checkpoints | None = None
    state: RunState | None = None
    others: Callable[[], Iterable[RunState]] = tuple
    over: bool = False

    def due(self, decided: bool) -> bool:
        """Returns whether it is time for a checkpoint; the same on every host, all of which must ask.

        Args:
          decided: whether a scheduler has just decided. Lanes wait then anyway, and what it stopped need not be saved.
        """
        if self.checkpoints is None:
            return False
        # All hosts have written the one before, so that one of which every host has its part is always there.
        mine = "due" if self.checkpoints.due(decided) else ""
        return all(distributed.from_each(mine, 3))

    def save(self, state: Callable[[], RunState], wait: bool = False) -> None:
        """Writes a checkpoint.

        Args:
          state: returns what to write; called on every host, each of which writes what its devices hold.
          wait: whether to wait until the checkpoint is written.
        """
        checkpoints = self.checkpoints
        if checkpoints is None:
            return
        distributed.on_each(checkpoints.wait)
        begun = time.monotonic()
        arrays = state().arrays()
        checkpoints.save(arrays, time.monotonic() - begun)
        if wait:
            distributed.on_each(checkpoints.wait)

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
            distributed.on_each(self.checkpoints.close)
            self.checkpoints = None
            if self.directory is not None and distributed.is_writer():
                forget(self.directory)

    def close(self) -> None:
        """Waits until all is written, and lets other processes write to the directory."""
        try:
            if self.checkpoints is not None:
                self.checkpoints.close()
        finally:
            self.store.unlock()
