"""The record of a run: its store and its checkpoints, which one host writes and all of them fill."""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from hpjax.core.errors import RunError
from hpjax.engine import distributed
from hpjax.results.store.checkpoints import FOLDER, Checkpoints, Cut, forget
from hpjax.results.store.manifest import Manifest, differences, read_manifest, recorded, write_manifest
from hpjax.results.store.rows import STATUSES, Change
from hpjax.results.store.run_store import Store
from hpjax.sweep.running.state import check_cut


@dataclass
class Record:
    """Where a run is recorded.

    Attributes:
      store: its database and its final states.
      directory: where they are; None keeps all in memory.
      checkpoints: those of the directory, on the host that writes.
      cut: where to go on, None for a new run.
      over: whether the run is finished.
    """

    store: Store
    directory: Path | None = None
    checkpoints: Checkpoints | None = None
    cut: Cut | None = None
    over: bool = False

    def due(self, decided: bool) -> bool:
        """Whether it is time for a checkpoint; ``decided`` where a scheduler just did. The same on every host."""
        if self.directory is None:
            return False
        return bool(distributed.broadcast_json(self.checkpoints is not None and self.checkpoints.due(decided)))

    def save(self, make: Callable[[], Cut], at_once: bool = False) -> None:
        """Writes a checkpoint, in the background or at once; ``make`` gives it, which takes every host."""
        if self.directory is None:
            return
        begun = time.monotonic()
        cut = make()
        if self.checkpoints is not None:
            self.checkpoints.save(cut, time.monotonic() - begun)
            if at_once:
                self.checkpoints.wait()

    def amend(self, plan: str) -> None:
        """Has the manifest tell of another plan."""
        if self.directory is not None and distributed.is_writer():
            write_manifest(self.directory, replace(read_manifest(self.directory), plan=tuple(plan.splitlines())))

    def finish(self, seconds: float) -> None:
        """Records that the run is complete; its checkpoints are of no use any more."""
        with self.store.transaction():
            self.store.finish(seconds)
        if self.checkpoints is not None:
            self.checkpoints.remove()

    def close(self) -> None:
        """Waits until all is written, and lets others write."""
        try:
            if self.checkpoints is not None:
                self.checkpoints.close()
        finally:
            self.store.unlock()


def opened(path: Path | None, about: Manifest, seconds: float) -> tuple[Record, Manifest]:
    """The record of a run directory and its manifest: finished, rolled back to the last cut where there is one, or new.

    With several hosts only the first one looks at the directory, and tells the others.

    Args:
      path: the directory, None to keep all in memory.
      about: the manifest of the run.
      seconds: between checkpoints.

    Raises:
      RunError: the directory holds something else or cannot be written, or another process writes to it.
    """
    if path is None:
        return Record(Store.create(None, about)), about
    record: Record | None = None

    def here() -> dict[str, Any]:
        nonlocal record
        record, there = _opened(path, about, seconds)
        content = record.store.dump() if distributed.several() else None
        return {"about": msgspec.to_builtins(there), "content": content, "over": record.over}

    told = distributed.on_writer(here)
    cut = distributed.broadcast_state(None if record is None else record.cut)
    if record is None:
        record = Record(Store.following(path, told["content"]), path, over=told["over"])
    record.cut = None if cut is None else Cut(*cut)
    return record, msgspec.convert(told["about"], Manifest)


def _opened(path: Path, about: Manifest, seconds: float) -> tuple[Record, Manifest]:
    there = recorded(path, about)
    if there is not None:
        here, about = about, there
        store = Store.finished(path, about.extended)
        if store is not None:
            forget(path)  # it may have been interrupted before it could
            return Record(store, path, over=True), about
        store = Store.resume(path) if (path / FOLDER).exists() else None
        if store is not None:
            try:
                store.check(about.sweep.replicates)
                checkpoints = Checkpoints(path, seconds)
                cut = checkpoints.latest(lambda cut: check_cut(cut, about.sweep))
                if cut is not None:
                    _warn_of_versions(path, about.versions, here.versions)
                    _roll_back(store, cut)
                    return Record(store, path, checkpoints, cut), about
                unusable = checkpoints.numbers()
                checkpoints.close()
                if unusable:
                    raise RunError(
                        f"none of the checkpoints {unusable} in {path / FOLDER} can be used, as the warnings say. "
                        "Restore them from a copy; or delete that folder, and the run begins anew."
                    )
            except BaseException:
                store.close()
                raise
            store.close()
    store = Store.create(path, about)
    forget(path)
    return Record(store, path, Checkpoints(path, seconds)), about


def _warn_of_versions(path: Path, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Says what is not as it was when a run began that goes on now."""
    lines = differences(dict(there), dict(here))
    if lines:
        warnings.warn(
            f"{path} was begun with other versions, which may decide the last bits: {'; '.join(lines)}", stacklevel=2
        )


def _roll_back(store: Store, cut: Cut) -> None:
    """Has a store forget what was written after a cut."""
    lanes = [Change(t, r, STATUSES[status], s) for t, r, status, s in cut.part("lanes").arrays["changes"].tolist()]
    evaluations = {wave: cut.part(f"wave-{wave}").about["evaluations"] for wave in cut.about["waves"]}
    with store.transaction():
        store.roll_back(cut.about["reached"]["round"] + 1, evaluations, cut.about["clones"], lanes)
        if store.lanes() != lanes or len(store.clones()) != cut.about["clones"]:
            raise RunError(
                f"the database in {store.directory} lacks what its checkpoint was made of: one of them is damaged. "
                "Restore them, or delete the database to begin anew."
            )
