"""The store: what outlives the process. A manifest, a SQLite database, and the final states."""

import json
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.results.store.database import DATABASE, JOURNAL, SCHEMA, connected, for_reading, opened
from hpjax.results.store.files import guard, locked, remove
from hpjax.results.store.final_states import States
from hpjax.results.store.manifest import read_manifest, write_manifest
from hpjax.results.store.reader import RunReader
from hpjax.results.store.rows import NO_WAVE, Change, Planned, Status

STATES = "states"


def _end(database: sqlite3.Connection, lock: IO[str] | None) -> None:
    database.close()
    if lock is not None:
        lock.close()


class Store(RunReader):
    """One run's database and files, in a directory or, without one, in memory.

    The database is in WAL mode with one transaction a segment, so that it can be read while the run
    goes on.

    Attributes:
      states: the final states.
    """

    def __init__(
        self, database: sqlite3.Connection, directory: Path | None, lock: IO[str] | None = None, follows: bool = False
    ) -> None:
        super().__init__(database, directory)
        self._lock, self._follows = lock, follows
        self.states = States(None if directory is None else directory / STATES, follows)
        # Also where nobody calls close(): an open connection that is garbage makes Python 3.13 warn.
        self._ended = weakref.finalize(self, _end, database, lock)

    def close(self) -> None:
        """Closes the database and lets others write to the directory; does nothing the second time."""
        self._ended()

    def unlock(self) -> None:
        """Lets others write to the directory."""
        if self._lock is not None:
            self._lock.close()

    @classmethod
    def create(cls, directory: Path | None, manifest: Mapping[str, Any]) -> "Store":
        """A new store; an unfinished run that stands in ``directory`` is replaced.

        Raises:
          RunError: the directory cannot be written, or another process writes to it.
        """
        lock = None
        if directory is None:
            database = connected(":memory:")
        else:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                guard(directory)
                lock = locked(directory)
                for stale in (STATES, DATABASE, *(f"{DATABASE}{ending}" for ending in ("-wal", "-shm", JOURNAL))):
                    remove(directory / stale)
                write_manifest(directory, manifest)
                database = connected(str(directory / DATABASE))
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=NORMAL")
            except (OSError, sqlite3.Error) as error:
                if lock is not None:
                    lock.close()
                raise RunError(
                    f"run directory {str(directory)!r} cannot be written: {error}. "
                    "Choose one in a place that you may write to."
                ) from None
        store = cls(database, directory, lock)
        with store.transaction():
            for statement in SCHEMA:
                database.execute(statement)
        return store

    @classmethod
    def resume(cls, directory: Path) -> "Store | None":
        """The store of an unfinished run, for going on with it; None where its database cannot be read.

        Raises:
          RunError: another process writes to the directory, or it is not what a run leaves.
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
    def following(cls, directory: Path, content: str | None) -> "Store":
        """The store of a host that does not write: a database in memory, and the states that another host writes.

        Args:
          directory: the run's.
          content: what ``dump`` gave there, None for a new run.
        """
        store = cls(connected(":memory:"), directory, follows=True)
        store._db.executescript(content or ";".join(SCHEMA))
        return store

    def dump(self) -> str:
        """All of the database, as SQL."""
        return "\n".join(self._db.iterdump())

    def sync(self) -> None:
        """Has all that was written on the disk, so that no checkpoint is ahead of the database."""
        if not self._db.in_transaction:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def roll_back(self, rounds: int, evaluations: Mapping[int, int], clones: int, lanes: Iterable[Change]) -> None:
        """Forgets what was written after a cut.

        Args:
          rounds: how many had begun.
          evaluations: of each wave of the last of them, how many were recorded.
          clones: how many had happened.
          lanes: the status of every lane then.
        """
        self._db.execute("DELETE FROM trials WHERE round >= ?", (rounds,))
        self._db.execute("DELETE FROM lanes WHERE trial NOT IN (SELECT trial FROM trials)")
        self._db.execute("DELETE FROM curves WHERE wave > ?", (max(evaluations),))
        self._db.executemany("DELETE FROM curves WHERE wave = ? AND segment >= ?", evaluations.items())
        self._db.execute(
            "DELETE FROM clones WHERE rowid NOT IN (SELECT rowid FROM clones ORDER BY rowid LIMIT ?)",
            (clones,),
        )
        self.add_changes(lanes)
        self._db.execute(
            "DELETE FROM tests WHERE trial IN (SELECT trial FROM lanes WHERE status = ?)", (Status.RUNNING,)
        )

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """The store of a directory, for reading; a run may be writing to it.

        Raises:
          RunError: there is no run.
        """
        read_manifest(directory)
        try:
            return cls(for_reading(directory), directory)
        except sqlite3.Error as error:
            raise RunError(f"{directory / DATABASE} cannot be read: {error}.") from None

    @classmethod
    def finished(cls, directory: Path, extended: int) -> "Store | None":
        """The store of a finished run, for reading; None where the run is not, or was killed before it had a database.

        Args:
          directory: of the run.
          extended: how often it was to go on once it was finished, as its manifest says.

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
        """All that is written inside is there as a whole, or not at all."""
        try:
            self._db.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise RunError(f"{self.directory or 'the database'} cannot be written: {error}.") from None

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
        """Adds what compiling a group took; a run that is resumed compiles again."""
        again = "ON CONFLICT (grp) DO UPDATE SET seconds = seconds + excluded.seconds"
        self._db.execute(f"INSERT INTO compilations VALUES (?, ?) {again}", (group, seconds))

    def move(self, places: Mapping[int, tuple[int, int]]) -> None:
        """Has trials be in other waves: trial to the number of its wave and its width."""
        rows = ((wave, width, trial) for trial, (wave, width) in places.items())
        self._db.executemany("UPDATE trials SET wave = ?, width = ? WHERE trial = ?", rows)

    def forget(self, waves: Iterable[int], trials: Iterable[int]) -> None:
        """Forgets what some waves did, which have these trials."""
        self._db.executemany("DELETE FROM curves WHERE wave = ?", ((wave,) for wave in waves))
        rows = [(trial,) for trial in trials]
        self._db.executemany(
            "UPDATE lanes SET status = ?, step = 0 WHERE trial = ?", ((Status.RUNNING, *row) for row in rows)
        )
        self._db.executemany("DELETE FROM clones WHERE trial = ?", rows)

    def add_curves(self, wave: int, segment: int, arrays: Mapping[str, Array]) -> None:
        """Adds the values of one evaluation, all arrays of shape (live lanes,)."""
        self._db.executemany(
            "INSERT INTO curves VALUES (?, ?, ?, ?, ?)",
            ((wave, segment, name, _dtype(a), a.astype(_dtype(a)).tobytes()) for name, a in arrays.items()),
        )

    def add_changes(self, changes: Iterable[Change]) -> None:
        """Updates the lanes whose status changed."""
        self._db.executemany(
            "UPDATE lanes SET status = ?, step = ? WHERE trial = ? AND replicate = ?",
            ((c.status, c.step, c.trial, c.replicate) for c in changes),
        )

    def add_clones(self, rows: Iterable[tuple[int, int, int, Mapping[str, Any]]]) -> None:
        """Adds (trial, step, source, hyperparameters) of trials that went on from the states of others."""
        self._db.executemany(
            "INSERT INTO clones VALUES (?, ?, ?, ?)", ((*ids, json.dumps(h, default=str)) for *ids, h in rows)
        )

    def add_test(self, trial: int, metrics: Mapping[str, float]) -> None:
        """Records that a trial was evaluated on the test split."""
        row = (trial, json.dumps(dict(metrics)))
        if self.directory is None or self._follows:
            self._db.execute("INSERT OR REPLACE INTO tests VALUES (?, ?)", row)
            return
        # By a connection of its own: this one may have been opened for reading.
        try:
            database = opened(self.directory, "mode=rw")
            database.execute("INSERT OR REPLACE INTO tests VALUES (?, ?)", row)
            database.close()
        except sqlite3.Error as error:
            raise RunError(f"{self.directory} cannot be written: {error}.") from None

    def finish(self, seconds: float) -> None:
        """Records that the run is complete."""
        self._db.execute("INSERT INTO finished VALUES (?)", (seconds,))


def _dtype(array: Array) -> str:
    return "<i4" if array.dtype.kind in "iub" else "<f8" if array.dtype == np.float64 else "<f4"
