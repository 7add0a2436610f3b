"""Opens the record of a run: finished, resumed from its last checkpoint, or new."""

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import msgspec

from hpjax.core.errors import RunError
from hpjax.engine import distributed
from hpjax.results.store.checkpoints import FOLDER, Checkpoints, forget
from hpjax.results.store.differences import differences, matching_manifest
from hpjax.results.store.manifest import MANIFEST, Manifest
from hpjax.results.store.run_store import Store
from hpjax.sweep.running.recorder import Record
from hpjax.sweep.running.state import RunSizes, RunState

# What a run directory holds: a run that is finished, one to go on with, or none.
OVER, BEGUN, NEW = "over", "begun", "new"


def open_record(path: Path | None, manifest: Manifest, sizes: RunSizes, seconds: float) -> tuple[Record, Manifest]:
    """Opens the record of a run: finished, rolled back to its last checkpoint, or new.

    With several hosts the first one reads the database, and sends it to the others. Each reads what it wrote of the
    checkpoint.

    Args:
      path: the run directory, None to keep all in memory.
      manifest: the manifest that the run would begin with.
      sizes: what the sizes of its state follow from.
      seconds: how long to wait from one checkpoint to the next.

    Returns:
      The record, and the manifest of the run as its directory has it.

    Raises:
      RunError: the directory holds another run or cannot be written, or another process writes to it; or a host does
        not see it.
    """
    if path is None:
        return Record(Store.create(None, manifest)), manifest
    store: Store | None = None

    def here() -> dict[str, Any]:
        nonlocal store
        store, there, holds = _open(path, manifest)
        return {"manifest": msgspec.to_builtins(there), "holds": holds}

    found = distributed.on_writer(here)
    there, holds = msgspec.convert(found["manifest"], Manifest), found["holds"]
    host = jax.process_index()
    record = Record(Store.following(path, None, host), path) if store is None else Record(store, path)
    record.over = holds == OVER
    try:
        if not record.over:
            distributed.on_each(partial(_open_checkpoints, record, seconds))
            if holds == BEGUN:
                _go_on(record, there, sizes)
                if distributed.is_writer():
                    _warn_of_versions(path, there.versions, manifest.versions)
        if distributed.several():
            content = distributed.on_writer(record.store.dump)
            if not distributed.is_writer():
                record.store = Store.following(path, content, host)
    except BaseException:
        record.store.close()
        raise
    return record, there


def _open(path: Path, manifest: Manifest) -> tuple[Store, Manifest, str]:
    """Opens the store of a directory on the host that writes it; also returns its manifest and what it holds."""
    there = matching_manifest(path, manifest)
    if there is not None:
        store = Store.finished(path, there.extended)
        if store is not None and not (store.failures() and (path / FOLDER).exists()):
            forget(path)  # the run may have been killed after it finished and before it deleted them
            return store, there, OVER
        if store is not None:  # groups failed, and are tried again
            store.close()
        store = Store.resume(path) if (path / FOLDER).exists() else None
        if store is not None:
            return store, there, BEGUN
        manifest = there
    store = Store.create(path, manifest)
    forget(path)
    return store, manifest, NEW


def _open_checkpoints(record: Record, seconds: float) -> None:
    """Opens the checkpoints of a run directory, as this host writes them."""
    assert record.directory is not None
    host, hosts = jax.process_index(), jax.process_count()
    if not (record.directory / MANIFEST).exists():
        raise RunError(
            f"the run directory {str(record.directory)!r} is not there, though host 0 wrote it: each host writes the "
            "lanes of its devices. Name a directory on a file system that all hosts share."
        )
    record.checkpoints = Checkpoints(record.directory, seconds, host, hosts)


def _go_on(record: Record, manifest: Manifest, sizes: RunSizes) -> None:
    """Has the record go on from its last checkpoint; from the beginning where it has none.

    Raises:
      RunError: there are checkpoints, but none that can be used; or the database does not fit them.
    """
    checkpoints, path, store = record.checkpoints, record.directory, record.store
    assert checkpoints is not None
    assert path is not None
    distributed.on_writer(lambda: store.check(manifest.sweep.replicates))
    numbers = distributed.on_writer(checkpoints.numbers)
    for number in reversed(numbers):
        try:
            distributed.on_each(partial(_read, record, sizes, number))
            if distributed.several():
                distributed.on_each(partial(checkpoints.forget_after, number))
            break
        except Exception as error:  # whatever a damaged file makes Orbax say
            record.state = None
            warnings.warn(f"{checkpoints.why_not(number, error)}. It is passed over.", stacklevel=4)

    def mended() -> None:
        if record.state is not None:
            _roll_back(store, record.state, sizes, manifest.extended)
        elif numbers:
            raise RunError(
                f"none of the checkpoints {numbers} in {path / FOLDER} can be used, as the warnings say. "
                "Restore them from a copy; or delete that folder, and the same command begins the run anew."
            )
        else:
            store.close()
            record.store = Store.create(path, manifest)

    distributed.on_writer(mended)


def _read(record: Record, sizes: RunSizes, number: int) -> None:
    """Reads what this host needs of a checkpoint, and validates so much that the hosts together validate it all.

    Raises:
      Exception: it is damaged.
    """
    checkpoints = record.checkpoints
    assert checkpoints is not None
    hosts = range(checkpoints.hosts(number))

    def state(host: int) -> RunState:
        return sizes.read(checkpoints.load(host, number, sizes.check))

    first, *more = hosts[jax.process_index() :: jax.process_count()] or [0]
    record.state = state(first)
    for host in more:
        state(host)
    record.others = lambda: (state(host) for host in hosts if host != first)


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
