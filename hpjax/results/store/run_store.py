"""The store of a run, which outlives the process: a manifest, a SQLite database, and the final states."""

import json
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.results.store.artifacts import Artifacts
from hpjax.results.store.database import DATABASE, JOURNAL, SCHEMA, connected, for_reading, opened
from hpjax.results.store.files import WRITABLE, guard, locked, remove
from hpjax.results.store.final_states import KeyPath, States
from hpjax.results.store.manifest import Manifest, read_manifest, write_manifest
from hpjax.results.store.rewriter import RunRewriter
from hpjax.results.store.rows import NO_WAVE, Change, Planned, Status

STATES, ARTIFACTS = "states", "artifacts"


def _end(database: sqlite3.Connection, lock: IO[str] | None) -> None:
    """Closes the database, and then the lock of the directory."""
    database.close()
    if lock is not None:
        lock.close()


class Store(RunRewriter):
    """One run's database and files, in a directory or, without one, in memory.

    The database is in WAL mode with one transaction a segment, so that it can be read while the run goes on.

    Attributes:
      directory: the run directory; None where all is in memory.
      states: the final states.
      artifacts: the artifacts of trials.
    """

    def __init__(
        self, database: sqlite3.Connection, directory: Path | None, lock: IO[str] | None = None, host: int = 0
    ) -> None:
        super().__init__(database, directory)
        self._lock, self._follows = lock, host > 0
        self.states = States(None if directory is None else directory / STATES, host)
        self.artifacts = Artifacts(None if directory is None else directory / ARTIFACTS, self._follows)
        # Also where nobody calls close(): an open connection that is garbage makes Python 3.13 warn.
        self._ended = weakref.finalize(self, _end, database, lock)

    def __reduce__(self) -> Any:
        ends = [seconds for (seconds,) in self._read("SELECT seconds FROM finished")]
        return _copy, (self.directory, (self.states, self.artifacts), self.compilations(), ends)

    def close(self) -> None:
        """Closes the database and lets others write to the directory; does nothing the second time."""
        self._ended()

    def unlock(self) -> None:
        """Releases the lock, so that others may write to the directory."""
        if self._lock is not None:
            self._lock.close()

    @classmethod
    def create(cls, directory: Path | None, manifest: Manifest) -> "Store":
        """Returns a new store, which replaces an unfinished run in ``directory``; None keeps all in memory.

        Raises:
          RunError: the directory cannot be written, or another process writes to it.
        """
        lock = database = None
        if directory is None:
            database = connected(":memory:")
        else:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                guard(directory)
                lock = locked(directory)
                database_files = (f"{DATABASE}{ending}" for ending in ("", "-wal", "-shm", JOURNAL))
                for stale in (STATES, ARTIFACTS, *database_files):
                    remove(directory / stale)
                write_manifest(directory, manifest)
                database = connected(str(directory / DATABASE))
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=NORMAL")
            except (OSError, sqlite3.Error) as error:
                for held in (database, lock):
                    if held is not None:
                        held.close()
                raise RunError(
                    f"run directory {str(directory)!r} cannot be written: {error}. "
                    "Choose a directory where you may write files: sweep.run(directory), or hpjax run --dir DIR."
                ) from None
        store = cls(database, directory, lock)
        with store.transaction():
            for statement in SCHEMA:
                database.execute(statement)
        return store

    @classmethod
    def resume(cls, directory: Path) -> "Store | None":
        """Returns the store of an unfinished run, to continue it; None where its database cannot be read.

        Raises:
          RunError: another process writes to the directory, or the directory is not what a run leaves.
        """
        guard(directory)
        lock = locked(directory)
        try:
            return cls(opened(directory, "mode=rw"), directory, lock)
        except sqlite3.Error:
            lock.close()
            return None
        except BaseException:
            lock.close()
            raise

    @classmethod
    def following(cls, directory: Path | None, content: str | None, host: int = 1) -> "Store":
        """Returns the store of a host that is not the first: a database in memory, and of states those of its devices.

        Args:
          directory: the run directory, None for a run that is kept in memory.
          content: what ``dump`` returned on the host that writes, None for a new run.
          host: the number of the host, 1 or more.
        """
        store = cls(connected(":memory:"), directory, host=host)
        # The dump has its tables by name, so that rows come before the trials that they refer to.
        store._db.executescript(f"PRAGMA foreign_keys=OFF;{content or ';'.join(SCHEMA)}")
        return store

    def dump(self) -> str:
        """Returns the whole database as SQL."""
        return "\n".join(self._db.iterdump())

    def sync(self) -> None:
        """Moves what was written to the disk, so that no checkpoint is ahead of the database."""
        if not self._db.in_transaction:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def roll_back(self, rounds: int, evaluations: Mapping[int, int], clones: int, lanes: Iterable[Change]) -> None:
        """Deletes what was written after a checkpoint, artifacts among it; see ``RunRewriter.roll_back``."""
        super().roll_back(rounds, evaluations, clones, lanes)
        self.artifacts.roll_back({row.trial: evaluations.get(row.wave) for row in self.trials()})

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Returns the store of a directory, for reading; a run may be writing to it.

        Raises:
          RunError: there is no run, or it cannot be read.
        """
        read_manifest(directory)
        try:
            return cls(for_reading(directory), directory)
        except sqlite3.Error as error:
            raise RunError(f"{directory / DATABASE} cannot be read: {error}. Restore it from a copy.") from None

    @classmethod
    def finished(cls, directory: Path, extended: int) -> "Store | None":
        """Returns the store of a finished run, for reading; None where the run is not finished or has no database.

        Args:
          directory: the run directory.
          extended: how often the run went on after it was finished, as its manifest says.

        Raises:
          RunError: the database is not one that a run leaves.
        """
        guard(directory)
        try:
            store = cls(for_reading(directory), directory)
        except sqlite3.Error:
            return None
        return store if store.ends() > extended else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Writes all that its block writes, or nothing.

        Raises:
          RunError: the database cannot be written.
        """
        try:
            self._db.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise RunError(f"{self.directory or 'the database'} cannot be written: {error}. {WRITABLE}") from None

    def state_of(self, wave: int, trial: int, replicate: int) -> list[tuple[KeyPath, Array]]:
        """Returns path and array of every leaf of a lane's final state; reads nothing of the other lanes.

        Raises:
          RunError: it is not there yet, or missing, or cannot be read.
        """
        if self.states.has(wave):
            return self.states.lane(wave, trial, replicate)
        if self.directory is not None and (not self.directory.exists() or self.ends()):
            raise RunError(
                f"the final state of trial {trial} is missing: there is no {self.directory / STATES / f'wave-{wave}'}. "
                "Restore it from a copy; where the run directory was moved, load it from there: hpx.load(directory)."
            )
        raise RunError(
            f"the final state of trial {trial} is not there yet: its wave is still running. "
            "Finish the run: sweep.run(directory)."
        )

    def add_trials(self, rows: Iterable[Planned], replicates: int) -> None:
        """Adds trials with running lanes; those without a wave are in other shards."""
        rows = list(rows)
        self._db.executemany(
            "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?)", ((*ids, json.dumps(h, default=str)) for *ids, h in rows)
        )
        self._db.executemany(
            "INSERT INTO lanes VALUES (?, ?, ?, 0)",
            (
                (t, r, Status.OTHER_SHARD if wave == NO_WAVE else Status.RUNNING)
                for t, _, _, wave, *_ in rows
                for r in range(replicates)
            ),
        )

    def add_compilation(self, group: int, seconds: float) -> None:
        """Adds the seconds that compiling a group took, to those before: a resumed run compiles again."""
        again = "ON CONFLICT (grp) DO UPDATE SET seconds = seconds + excluded.seconds"
        self._db.execute(f"INSERT INTO compilations VALUES (?, ?) {again}", (group, seconds))

    def add_curves(self, wave: int, segment: int, arrays: Mapping[str, Array]) -> None:
        """Adds the values of one evaluation.

        Args:
          wave: the number of the wave.
          segment: the number of the evaluation within the wave.
          arrays: metric to values, (live lanes,); ``trial``, ``replicate``, ``step`` and ``seconds`` are among them.
        """
        self._db.executemany(
            "INSERT INTO curves VALUES (?, ?, ?, ?, ?)",
            ((wave, segment, name, _dtype(a), a.astype(_dtype(a)).tobytes()) for name, a in arrays.items()),
        )

    def add_clones(self, rows: Iterable[tuple[int, int, int, Mapping[str, Any]]]) -> None:
        """Adds (trial, step, source, hyperparameters) of trials that continue from the states of others."""
        self._db.executemany(
            "INSERT INTO clones VALUES (?, ?, ?, ?)", ((*ids, json.dumps(h, default=str)) for *ids, h in rows)
        )

    def add_failures(self, reasons: Mapping[int, str]) -> None:
        """Records why trials failed, by trial."""
        self._db.executemany("INSERT OR REPLACE INTO failures VALUES (?, ?)", reasons.items())

    def add_test(self, trial: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of a trial on the test split.

        Raises:
          RunError: they cannot be written.
        """
        row = (trial, json.dumps(dict(metrics)))
        if self.directory is None or self._follows:
            self._db.execute("INSERT OR REPLACE INTO tests VALUES (?, ?)", row)
            return
        # A connection of its own writes them: this store's may have been opened for reading.
        try:
            with closing(opened(self.directory, "mode=rw")) as database:
                database.execute("INSERT OR REPLACE INTO tests VALUES (?, ?)", row)
        except sqlite3.Error as error:
            raise RunError(f"{self.directory} cannot be written: {error}. {WRITABLE}") from None

    def finish(self, seconds: float) -> None:
        """Records that the run is complete.

        Args:
          seconds: the duration of the run.
        """
        self._db.execute("INSERT INTO finished VALUES (?)", (seconds,))


def _copy(
    directory: Path | None,
    kept: tuple[States, Artifacts],
    compilations: Mapping[int, float],
    ends: Iterable[float],
) -> Store:
    """Returns a pickled store of a result: its arrays, without the trials and curves that the result has itself.

    Args:
      directory: the run directory, which need not be there.
      kept: the final states, and the artifacts.
      compilations: group to the seconds that compiling it took.
      ends: how long the run took, each time that it was finished.
    """
    store = Store.following(directory, None)
    store.states, store.artifacts = kept
    for group, seconds in compilations.items():
        store.add_compilation(group, seconds)
    for seconds in ends:
        store.finish(seconds)
    return store


def _dtype(array: Array) -> str:
    """Returns the dtype in which the database keeps an array of a curve."""
    whole = array.dtype.kind in "iub"
    if whole and np.can_cast(array.dtype, np.int32):
        return "<i4"
    return "<f8" if whole or array.dtype == np.float64 else "<f4"
