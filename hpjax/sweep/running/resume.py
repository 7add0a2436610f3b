"""Opens the record of a run: finished, resumed from its last checkpoint, or new."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hpjax.core.errors import RunError
from hpjax.engine import distributed
from hpjax.results.store.checkpoints import FOLDER, Checkpoints, forget
from hpjax.results.store.differences import differences, matching_manifest
from hpjax.results.store.manifest import Manifest
from hpjax.results.store.run_store import Store
from hpjax.sweep.running.recorder import Record
from hpjax.sweep.running.state import RunSizes, RunState


def open_record(path: Path | None, manifest: Manifest, sizes: RunSizes, seconds: float) -> tuple[Record, Manifest]:
    """Opens the record of a run: finished, rolled back to its last checkpoint, or new.

    With several hosts only the first one reads the directory, and sends what it found to the others.

    Args:
      path: the run directory, None to keep all in memory.
      manifest: the manifest that the run would begin with.
      sizes: what the sizes of its state follow from.
      seconds: how long to wait from one checkpoint to the next.

    Returns:
      The record, and the manifest of the run as its directory has it.

    Raises:
      RunError: the directory holds another run or cannot be written, or another process writes to it.
    """
    if path is None:
        return Record(Store.create(None, manifest)), manifest
    record: Record | None = None

    def here() -> dict[str, Any]:
        nonlocal record
        record, there = _open(path, manifest, sizes, seconds)
        content = record.store.dump() if distributed.several() else None
        return {"manifest": msgspec.to_builtins(there), "content": content, "over": record.over}

    found = distributed.on_writer(here)
    if distributed.several():
        state = None if record is None or record.state is None else record.state.arrays()
        arrays = distributed.broadcast_arrays(state)
        if record is None:
            record = Record(Store.following(path, found["content"]), path, over=found["over"])
        record.state = None if arrays is None else sizes.read(arrays)
    assert record is not None
    return record, msgspec.convert(found["manifest"], Manifest)


def _open(path: Path, manifest: Manifest, sizes: RunSizes, seconds: float) -> tuple[Record, Manifest]:
    """Opens the record in a directory, as ``open_record`` does on the host that writes."""
    there = matching_manifest(path, manifest)
    if there is not None:
        store = Store.finished(path, there.extended)
        if store is not None and not (store.failures() and (path / FOLDER).exists()):
            forget(path)  # the run may have been killed after it finished and before it deleted them
            return Record(store, path, over=True), there
        if store is not None:  # groups failed, and are tried again
            store.close()
        found = _unfinished(path, there, sizes, seconds)
        if found is not None:
            _warn_of_versions(path, there.versions, manifest.versions)
            return found, there
        manifest = there
    store = Store.create(path, manifest)
    forget(path)
    return Record(store, path, Checkpoints(path, seconds)), manifest


def _unfinished(path: Path, manifest: Manifest, sizes: RunSizes, seconds: float) -> Record | None:
    """Returns the record of an interrupted run as of its last checkpoint, or None if it has no checkpoint yet.

    Raises:
      RunError: there are checkpoints, but none that can be used; or the database does not fit them.
    """
    store = Store.resume(path) if (path / FOLDER).exists() else None
    if store is None:
        return None
    try:
        store.check(manifest.sweep.replicates)
        checkpoints = Checkpoints(path, seconds)
        state = checkpoints.latest(sizes.check, sizes.read)
        if state is not None:
            _roll_back(store, state, sizes, manifest.extended)
            return Record(store, path, checkpoints, state)
        unusable = checkpoints.numbers()
        checkpoints.close()
        if unusable:
            raise RunError(
                f"none of the checkpoints {unusable} in {path / FOLDER} can be used, as the warnings say. "
                "Restore them from a copy; or delete that folder, and the same command begins the run anew."
            )
    except BaseException:
        store.close()
        raise
    store.close()
    return None


def _warn_of_versions(path: Path, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Warns if a run goes on with other versions of Python packages than it began with."""
    lines = differences(dict(there), dict(here))
    if lines:
        warnings.warn(
            f"{path} was begun with other versions or flags, which may decide the last bits: {'; '.join(lines)}",
            stacklevel=2,
        )


def _roll_back(store: Store, state: RunState, sizes: RunSizes, extended: int) -> None:
    """Rolls the database back to a checkpoint, of a run that went on so often after it was finished.

    Raises:
      RunError: it lacks something that was in it when the checkpoint was written.
    """
    begun = sum(sizes.rounds[: state.progress.round + 1])
    lanes = state.changes(begun)
    evaluations = {wave.number: wave.evaluations for wave in state.waves}
    with store.transaction():
        store.reopen(extended)
        store.roll_back(state.progress.round + 1, evaluations, state.clones, lanes)
        if store.lanes() != lanes or len(store.clones()) != state.clones:
            raise RunError(
                f"the database in {store.directory} lacks what its checkpoint was made of: one of them is damaged. "
                "Restore both from a copy, or delete the database to begin anew."
            )
