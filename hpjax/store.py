"""The store: what outlives the process. A manifest, a SQLite database, and the final states."""

import fcntl
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpjax.errors import RunError
from hpjax.fields import check_manifest
from hpjax.states import read_states
from hpjax.tables import SCHEMA, check_arrays, check_rows, check_schema, hparams_of, metrics_of
from hpjax.tables import STATUSES as STATUSES
from hpjax.untrusted import guard, read_json

MANIFEST, DATABASE, STATES, LOCK = "manifest.json", "results.sqlite", "states", ".lock"
FORMAT = 1

# Of trials that another shard trains.
NO_WAVE = -1
# What SQLite calls the journal that a database in WAL mode has no use for.
JOURNAL = "-journal"

Array = NDArray[Any]


class Change(NamedTuple):
    """A lane whose status changed, and the step at which it did."""

    trial: int
    replicate: int
    status: str
    step: int


class Planned(NamedTuple):
    """A trial that was begun.

    Attributes:
      trial, round, group, wave: its id, and where it stands; ``NO_WAVE`` for one that another shard trains.
      width: lanes that a device computes at once where it trains.
      hparams: name to value, as JSON has it.
    """

    trial: int
    round: int
    group: int
    wave: int
    width: int
    hparams: dict[str, Any]


class Store:
    """One run's database and files, in a directory or, without one, in memory.

    The database is in WAL mode with one transaction a segment, so that it can be read while the run
    goes on. A curve is one array a (wave, segment, metric), not a row a number; the arrays
    ``trial``, ``replicate`` and ``step`` of a segment say whose values they hold.
    """

    def __init__(
        self, database: sqlite3.Connection, directory: Path | None, lock: IO[str] | None = None, follows: bool = False
    ) -> None:
        self._db, self.directory, self._lock, self._follows = database, directory, lock, follows
        self._states: dict[int, tuple[Array, list[tuple[tuple[str | int, ...], Array]]]] = {}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is read or written any more."""
        self._db.close()
        self.unlock()

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
            database = _connected(":memory:")
        else:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                guard(directory)
                lock = _locked(directory)
                for stale in (STATES, DATABASE, *(f"{DATABASE}{ending}" for ending in ("-wal", "-shm", JOURNAL))):
                    _remove(directory / stale)
                write_manifest(directory, manifest)
                database = _connected(str(directory / DATABASE))
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
        lock = _locked(directory)
        try:
            return cls(_opened(directory, "mode=rw"), directory, lock)
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
        store = cls(_connected(":memory:"), directory, follows=True)
        store._db.executescript(content or ";".join(SCHEMA))
        return store

    def dump(self) -> str:
        """All of the database, as SQL."""
        return "\n".join(self._db.iterdump())

    def sync(self) -> None:
        """Has all that was written on the disk, so that no checkpoint is ahead of the database."""
        if not self._db.in_transaction:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def roll_back(self, rounds: int, evaluations: Mapping[int, int], takeovers: int, lanes: Iterable[Change]) -> None:
        """Forgets what was written after a cut.

        Args:
          rounds: how many had begun.
          evaluations: of each wave of the last of them, how many were recorded.
          takeovers: how many had happened.
          lanes: the status of every lane then.
        """
        self._db.execute("DELETE FROM trials WHERE round >= ?", (rounds,))
        self._db.execute("DELETE FROM lanes WHERE trial NOT IN (SELECT trial FROM trials)")
        self._db.execute("DELETE FROM curves WHERE wave > ?", (max(evaluations),))
        self._db.executemany("DELETE FROM curves WHERE wave = ? AND segment >= ?", evaluations.items())
        self._db.execute(
            "DELETE FROM takeovers WHERE rowid NOT IN (SELECT rowid FROM takeovers ORDER BY rowid LIMIT ?)",
            (takeovers,),
        )
        self.add_changes(lanes)
        self._db.execute("DELETE FROM tests WHERE trial IN (SELECT trial FROM lanes WHERE status = 'running')")

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """The store of a directory, for reading; a run may be writing to it.

        Raises:
          RunError: there is no run.
        """
        read_manifest(directory)
        try:
            return cls(_for_reading(directory), directory)
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
            store = cls(_for_reading(directory), directory)
        except sqlite3.Error:
            return None
        return store if store.ends() > extended else None

    def check(self, replicates: int) -> None:
        """Makes sure that every row is one that a run writes, before any is used.

        Raises:
          RunError: one is not.
        """
        with self._reading():
            check_rows(self._db, self._where, replicates)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read inside is of one moment, though a run may be writing."""
        self._read("BEGIN")
        try:
            yield
        finally:
            self._read("COMMIT")

    @property
    def _where(self) -> str:
        return "the database" if self.directory is None else str(self.directory / DATABASE)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RunError(f"{self._where} cannot be read: {error}. Restore it, or delete it to begin anew.") from None

    def _read(self, query: str) -> list[Any]:
        with self._reading():
            return self._db.execute(query).fetchall()

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
        """Adds trials with running lanes; those without a wave are elsewhere."""
        rows = list(rows)
        self._db.executemany(
            "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?)", ((*ids, json.dumps(h, default=str)) for *ids, h in rows)
        )
        self._db.executemany(
            "INSERT INTO lanes VALUES (?, ?, ?, 0)",
            (
                (t, r, "elsewhere" if wave == NO_WAVE else "running")
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
        self._db.executemany("UPDATE lanes SET status = 'running', step = 0 WHERE trial = ?", rows)
        self._db.executemany("DELETE FROM takeovers WHERE trial = ?", rows)

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

    def add_takeovers(self, rows: Iterable[tuple[int, int, int, Mapping[str, Any]]]) -> None:
        """Adds (trial, step, source, hyperparameters) of trials that went on from the states of others."""
        self._db.executemany(
            "INSERT INTO takeovers VALUES (?, ?, ?, ?)", ((*ids, json.dumps(h, default=str)) for *ids, h in rows)
        )

    def takeovers(self) -> list[tuple[int, int, int, dict[str, Any]]]:
        """(trial, step, source, hyperparameters) in the order in which they happened."""
        rows = self._read("SELECT trial, step, source, hparams FROM takeovers ORDER BY rowid")
        return [(*ids, hparams_of(hparams)) for *ids, hparams in rows]

    def add_test(self, trial: int, metrics: Mapping[str, float]) -> None:
        """Records that a trial was evaluated on the test split."""
        row = (trial, json.dumps(dict(metrics)))
        if self.directory is None or self._follows:
            self._db.execute("INSERT OR REPLACE INTO tests VALUES (?, ?)", row)
            return
        # By a connection of its own: this one may have been opened for reading.
        try:
            database = _opened(self.directory, "mode=rw")
            database.execute("INSERT OR REPLACE INTO tests VALUES (?, ?)", row)
            database.close()
        except sqlite3.Error as error:
            raise RunError(f"{self.directory} cannot be written: {error}.") from None

    def finish(self, seconds: float) -> None:
        """Records that the run is complete."""
        self._db.execute("INSERT INTO finished VALUES (?)", (seconds,))

    def trials(self) -> list[Planned]:
        """Every trial so far, by id."""
        rows = self._read("SELECT trial, round, grp, wave, width, hparams FROM trials ORDER BY trial")
        return [Planned(t, r, g, w, width, hparams_of(hparams)) for t, r, g, w, width, hparams in rows]

    def lanes(self) -> list[Change]:
        """Every lane's status."""
        return [Change(*row) for row in self._read("SELECT trial, replicate, status, step FROM lanes")]

    def curves(self, metrics: Sequence[str], shape: tuple[int, int]) -> dict[tuple[int, int], dict[str, Array]]:
        """(wave, segment) to the arrays of that evaluation.

        Args:
          metrics: of the run.
          shape: trials and replicates.
        """
        segments: dict[tuple[int, int], dict[str, Array]] = {}
        for wave, segment, metric, dtype, data in self._read("SELECT * FROM curves ORDER BY wave, segment"):
            segments.setdefault((wave, segment), {})[metric] = np.frombuffer(data, dtype)
        for arrays in segments.values():
            check_arrays(self._where, arrays, metrics, shape)
        return segments

    def evaluations(self, wave: int) -> int:
        """How many evaluations a wave has, those before its lanes ended among them."""
        return int(self._read(f"SELECT coalesce(max(segment) + 1, 0) FROM curves WHERE wave = {int(wave)}")[0][0])

    def tests(self) -> dict[int, dict[str, float]]:
        """Trial to its metrics on the test split, for those that were tested."""
        return {trial: metrics_of(metrics) for trial, metrics in self._read("SELECT * FROM tests")}

    def compilations(self) -> dict[int, float]:
        """Group to the seconds that compiling it took."""
        return dict(self._read("SELECT grp, seconds FROM compilations"))

    def ends(self) -> int:
        """How often the run was finished: more than once where it was extended."""
        return int(self._read("SELECT count(*) FROM finished")[0][0])

    def seconds(self) -> float | None:
        """Duration of the finished run, None while it is not finished."""
        rows = self._read("SELECT seconds FROM finished ORDER BY rowid DESC LIMIT 1")
        return float(rows[0][0]) if rows else None

    def add_states(self, wave: int, lanes: Array, leaves: Sequence[tuple[tuple[str | int, ...], Array]]) -> None:
        """Keeps the final states of a wave.

        Args:
          wave: its number.
          lanes: int32 (lanes, 2), trial and replicate of each row.
          leaves: path and stacked array, (lanes, ...), of every leaf.
        """
        if self.directory is None:
            self._states[wave] = (lanes, list(leaves))
            return
        if self._follows:
            return
        folder = self.directory / STATES / f"wave-{wave}"
        tree = [{"path": list(path), "dtype": str(array.dtype)} for path, array in leaves]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for i, (_, array) in enumerate(leaves):
                np.save(folder / f"{i}.npy", array)
            np.save(folder / "lanes.npy", lanes)
            write_text(folder / "tree.json", json.dumps(tree, indent=1) + "\n")
        except OSError as error:
            raise RunError(f"final states cannot be written: {error}.") from None

    def states(self, wave: int) -> tuple[Array, list[tuple[tuple[str | int, ...], Array]]]:
        """The final states of a wave in a directory, as ``add_states`` got them; memory-mapped.

        Raises:
          RunError: they cannot be read.
        """
        assert self.directory is not None
        return read_states(self.directory / STATES / f"wave-{wave}")

    def state(self, wave: int, trial: int, replicate: int) -> list[tuple[tuple[str | int, ...], Array]]:
        """Path and array of every leaf of one lane's final state; reads nothing of the others.

        Raises:
          RunError: it is not there (yet).
        """
        if self.directory is not None:
            lanes, leaves = self._open_states(wave, trial)
        elif wave in self._states:
            lanes, leaves = self._states[wave]
        else:
            raise _running(trial)
        row = np.flatnonzero((lanes[:, 0] == trial) & (lanes[:, 1] == replicate))
        if len(row) != 1:
            raise RunError(f"no final state of trial {trial}, replicate {replicate}.")
        return [(path, np.array(array[row[0]])) for path, array in leaves]

    def _open_states(self, wave: int, trial: int) -> tuple[Array, list[tuple[tuple[str | int, ...], Array]]]:
        assert self.directory is not None
        folder = self.directory / STATES / f"wave-{wave}"
        if not (folder / "tree.json").exists():
            raise _running(trial)
        try:
            return read_states(folder)
        except RunError as error:
            raise RunError(f"the final state of trial {trial} cannot be read: {error}") from None


def _running(trial: int) -> RunError:
    return RunError(f"the final state of trial {trial} is not there yet: trials that run with it are still running.")


def _connected(address: str, uri: bool = False) -> sqlite3.Connection:
    # Used by one thread at a time; but it is whichever thread collects garbage that closes it.
    return sqlite3.connect(address, uri=uri, isolation_level=None, check_same_thread=False)


def _opened(directory: Path, mode: str) -> sqlite3.Connection:
    """A connection to a database of a run, which holds its tables and nothing that acts by itself."""
    path = directory / DATABASE
    # Whoever rolls back such a journal deletes a file that it names, wherever that is. In WAL mode there is none.
    if path.with_name(path.name + JOURNAL).exists():
        raise sqlite3.DatabaseError(f"beside it is a {path.name}{JOURNAL}, which no run leaves")
    database = _connected(f"{path.absolute().as_uri()}?{mode}", uri=True)
    try:
        database.execute("PRAGMA trusted_schema=OFF")
        database.execute("PRAGMA cell_size_check=ON")
        check_schema(database, str(path))
        database.execute("SELECT * FROM trials LIMIT 1")
    except BaseException:
        database.close()
        raise
    return database


def _for_reading(directory: Path) -> sqlite3.Connection:
    try:
        return _opened(directory, "mode=ro")
    except sqlite3.OperationalError:
        # In a directory that cannot be written WAL has nowhere to keep its index; nobody else writes there.
        return _opened(directory, "mode=ro&immutable=1")


def _remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _locked(directory: Path) -> IO[str]:
    """A lock on a run directory, for as long as the file stays open: the system frees it when the process ends."""
    try:
        file = (directory / LOCK).open("w")
    except OSError as error:
        raise RunError(f"run directory {str(directory)!r} cannot be written: {error}.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise RunError(
            f"another run is writing to {str(directory)!r}. Wait for it, or choose another directory."
        ) from None
    return file


def _dtype(array: Array) -> str:
    return "<i4" if array.dtype.kind in "iub" else "<f8" if array.dtype == np.float64 else "<f4"


def write_text(path: Path, content: str) -> None:
    """Writes a file so that it is there as a whole, or not at all."""
    write_bytes(path, content.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that it is there as a whole, or not at all."""
    part = part_of(path)
    part.write_bytes(content)
    os.replace(part, path)


def origin() -> dict[str, Any]:
    """When and by which command something is written, for its manifest."""
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
    }


def part_of(path: Path) -> Path:
    """Where ``write_bytes`` writes what is not whole yet."""
    return path.with_name(path.name + ".part")


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of a run directory."""
    write_text(directory / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a run directory.

    Raises:
      RunError: there is none, or it cannot be read.
    """
    guard(directory)
    path = directory / MANIFEST
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        raise RunError(
            f"{str(directory)!r} is no run directory: it has no {MANIFEST}. Name the folder of a run."
        ) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RunError(f"{path} is no manifest of format {FORMAT}.")
    check_manifest(str(path), manifest)
    return manifest


def differences(there: Any, here: Any, at: str = "") -> list[str]:
    """What differs between two JSON values, a line each: ``trials: 256 there, 128 here``."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = dict.fromkeys([*there, *here])
        return [
            line
            for name in names
            for line in differences(there.get(name), here.get(name), f"{at}.{name}" if at else str(name))
        ]
    return [] if there == here else [f"{at}: {json.dumps(there)} there, {json.dumps(here)} here"]
