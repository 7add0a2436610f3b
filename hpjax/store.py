"""The store: what outlives the process. A manifest, a SQLite database, and the final states."""

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpjax.errors import RunError

MANIFEST, DATABASE, STATES, LOCK = "manifest.json", "results.sqlite", "states", ".lock"
FORMAT = 1

SCHEMA = (
    """CREATE TABLE trials (trial INTEGER PRIMARY KEY, round INTEGER NOT NULL, grp INTEGER NOT NULL,
                            wave INTEGER NOT NULL, hparams TEXT NOT NULL)""",
    """CREATE TABLE lanes (trial INTEGER, replicate INTEGER, status TEXT NOT NULL, step INTEGER NOT NULL,
                           PRIMARY KEY (trial, replicate)) WITHOUT ROWID""",
    """CREATE TABLE curves (wave INTEGER, segment INTEGER, metric TEXT, dtype TEXT NOT NULL, data BLOB NOT NULL,
                            PRIMARY KEY (wave, segment, metric)) WITHOUT ROWID""",
    "CREATE TABLE takeovers (trial INTEGER, step INTEGER, source INTEGER NOT NULL, hparams TEXT NOT NULL)",
    "CREATE TABLE compilations (grp INTEGER PRIMARY KEY, seconds REAL NOT NULL)",
    "CREATE TABLE tests (trial INTEGER PRIMARY KEY, metrics TEXT NOT NULL)",
    "CREATE TABLE finished (seconds REAL NOT NULL)",
)

STATUSES = ("running", "complete", "stopped", "diverged")
DTYPES = ("<i4", "<f4", "<f8")

Array = NDArray[Any]


class Change(NamedTuple):
    """A lane whose status changed, and the step at which it did."""

    trial: int
    replicate: int
    status: str
    step: int


class Store:
    """One run's database and files, in a directory or, without one, in memory.

    The database is in WAL mode with one transaction a segment, so that it can be read while the run
    goes on. A curve is one array a (wave, segment, metric), not a row a number; the arrays
    ``trial``, ``replicate`` and ``step`` of a segment say whose values they hold.
    """

    def __init__(self, database: sqlite3.Connection, directory: Path | None, lock: IO[str] | None = None) -> None:
        self._db, self.directory, self._lock = database, directory, lock
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
                lock = _locked(directory)
                shutil.rmtree(directory / STATES, ignore_errors=True)
                for stale in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
                    (directory / stale).unlink(missing_ok=True)
                write_text(directory / MANIFEST, json.dumps(manifest, indent=2) + "\n")
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
          RunError: another process writes to the directory.
        """
        lock = _locked(directory)
        try:
            return cls(_opened(f"{(directory / DATABASE).absolute().as_uri()}?mode=rw"), directory, lock)
        except sqlite3.Error:
            lock.close()
            return None

    def sync(self) -> None:
        """Has all that was written on the disk, so that no checkpoint is ahead of the database."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def roll_back(
        self, rounds: int, wave: int, evaluations: Mapping[int, int], takeovers: int, lanes: Iterable[Change]
    ) -> None:
        """Forgets what was written after a cut.

        Args:
          rounds: how many had begun.
          wave: the first of the last of them.
          evaluations: of each of its waves, how many were recorded.
          takeovers: how many had happened.
          lanes: the status of every lane then.
        """
        self._db.execute("DELETE FROM trials WHERE round >= ?", (rounds,))
        self._db.execute("DELETE FROM lanes WHERE trial NOT IN (SELECT trial FROM trials)")
        self._db.execute("DELETE FROM curves WHERE wave >= ?", (wave + len(evaluations),))
        self._db.executemany("DELETE FROM curves WHERE wave = ? AND segment >= ?", evaluations.items())
        self._db.execute(
            "DELETE FROM takeovers WHERE rowid NOT IN (SELECT rowid FROM takeovers ORDER BY rowid LIMIT ?)",
            (takeovers,),
        )
        self._db.execute("DELETE FROM finished")
        self.add_changes(lanes)

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """The store of a directory, for reading; a run may be writing to it.

        Raises:
          RunError: there is no run.
        """
        read_manifest(directory)
        address = (directory / DATABASE).absolute().as_uri()
        try:
            try:
                database = _opened(f"{address}?mode=ro")
            except sqlite3.OperationalError:
                # In a directory that cannot be written WAL has nowhere to keep its index; nobody else writes there.
                database = _opened(f"{address}?mode=ro&immutable=1")
        except sqlite3.Error as error:
            raise RunError(f"{directory / DATABASE} cannot be read: {error}.") from None
        return cls(database, directory)

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

    def add_trials(self, rows: Iterable[tuple[int, int, int, int, Mapping[str, Any]]], replicates: int) -> None:
        """Adds (trial, round, group, wave, hyperparameters), each with running lanes."""
        rows = list(rows)
        self._db.executemany(
            "INSERT INTO trials VALUES (?, ?, ?, ?, ?)", ((*ids, json.dumps(h, default=str)) for *ids, h in rows)
        )
        self._db.executemany(
            "INSERT INTO lanes VALUES (?, ?, 'running', 0)", ((t, r) for t, *_ in rows for r in range(replicates))
        )

    def add_compilation(self, group: int, seconds: float) -> None:
        """Adds what compiling a group took; a run that is resumed compiles again."""
        again = "ON CONFLICT (grp) DO UPDATE SET seconds = seconds + excluded.seconds"
        self._db.execute(f"INSERT INTO compilations VALUES (?, ?) {again}", (group, seconds))

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
        rows = self._db.execute("SELECT trial, step, source, hparams FROM takeovers ORDER BY rowid").fetchall()
        return [(*ids, {n: _tuples(v) for n, v in json.loads(hparams).items()}) for *ids, hparams in rows]

    def add_test(self, trial: int, metrics: Mapping[str, float]) -> None:
        """Records that a trial was evaluated on the test split."""
        row = (trial, json.dumps(dict(metrics)))
        if self.directory is None:
            self._db.execute("INSERT OR REPLACE INTO tests VALUES (?, ?)", row)
            return
        # By a connection of its own: this one may have been opened for reading.
        try:
            database = sqlite3.connect(self.directory / DATABASE)
            with database:
                database.execute("INSERT OR REPLACE INTO tests VALUES (?, ?)", row)
            database.close()
        except sqlite3.Error as error:
            raise RunError(f"{self.directory} cannot be written: {error}.") from None

    def finish(self, seconds: float) -> None:
        """Records that the run is complete."""
        self._db.execute("INSERT INTO finished VALUES (?)", (seconds,))

    def trials(self) -> list[tuple[int, int, int, int, dict[str, Any]]]:
        """(trial, round, group, wave, hyperparameters) of every trial so far, by id."""
        rows = self._db.execute("SELECT trial, round, grp, wave, hparams FROM trials ORDER BY trial").fetchall()
        return [(*ids, {n: _tuples(v) for n, v in json.loads(hparams).items()}) for *ids, hparams in rows]

    def lanes(self) -> list[Change]:
        """Every lane's status."""
        return [Change(*row) for row in self._db.execute("SELECT trial, replicate, status, step FROM lanes")]

    def curves(self) -> dict[tuple[int, int], dict[str, Array]]:
        """(wave, segment) to the arrays of that evaluation."""
        segments: dict[tuple[int, int], dict[str, Array]] = {}
        for wave, segment, metric, dtype, data in self._db.execute("SELECT * FROM curves ORDER BY wave, segment"):
            if dtype not in DTYPES:
                raise RunError(f"the database holds an array of dtype {dtype!r}; there are {', '.join(DTYPES)}.")
            segments.setdefault((wave, segment), {})[metric] = np.frombuffer(data, dtype)
        return segments

    def tests(self) -> dict[int, dict[str, float]]:
        """Trial to its metrics on the test split, for those that were tested."""
        return {trial: json.loads(metrics) for trial, metrics in self._db.execute("SELECT * FROM tests")}

    def compilations(self) -> dict[int, float]:
        """Group to the seconds that compiling it took."""
        return dict(self._db.execute("SELECT grp, seconds FROM compilations").fetchall())

    def seconds(self) -> float | None:
        """Duration of the finished run, None while it is not finished."""
        row = self._db.execute("SELECT seconds FROM finished").fetchone()
        return None if row is None else float(row[0])

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
        folder = self.directory / STATES / f"wave-{wave}"
        folder.mkdir(parents=True, exist_ok=True)
        for i, (_, array) in enumerate(leaves):
            np.save(folder / f"{i}.npy", array)
        np.save(folder / "lanes.npy", lanes)
        tree = [{"path": list(path), "dtype": str(array.dtype)} for path, array in leaves]
        write_text(folder / "tree.json", json.dumps(tree, indent=1) + "\n")

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
            tree = json.loads((folder / "tree.json").read_text())
            lanes = np.load(folder / "lanes.npy", allow_pickle=False)
            leaves = [
                (tuple(leaf["path"]), _memory_mapped(folder / f"{i}.npy", leaf["dtype"])) for i, leaf in enumerate(tree)
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"the final state of trial {trial} cannot be read: {error}.") from None
        return lanes, leaves


def _running(trial: int) -> RunError:
    return RunError(f"the final state of trial {trial} is not there yet: trials that run with it are still running.")


def _tuples(value: Any) -> Any:
    """JSON has no tuples, and hyperparameters are never lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _connected(address: str, uri: bool = False) -> sqlite3.Connection:
    # Used by one thread at a time; but it is whichever thread collects garbage that closes it.
    return sqlite3.connect(address, uri=uri, isolation_level=None, check_same_thread=False)


def _opened(address: str) -> sqlite3.Connection:
    database = _connected(address, uri=True)
    try:
        database.execute("SELECT * FROM trials LIMIT 1")
    except BaseException:
        database.close()
        raise
    return database


def _locked(directory: Path) -> IO[str]:
    """A lock on a run directory, for as long as the file stays open: the system frees it when the process ends."""
    file = (directory / LOCK).open("w")
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


def _memory_mapped(path: Path, dtype: str) -> Array:
    import ml_dtypes  # bfloat16 and its kin, which NumPy stores as raw bytes

    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    wanted = np.dtype(getattr(ml_dtypes, dtype)) if hasattr(ml_dtypes, dtype) else np.dtype(dtype)
    return array if array.dtype == wanted else array.view(wanted)


def write_text(path: Path, content: str) -> None:
    """Writes a file so that it is there as a whole, or not at all."""
    write_bytes(path, content.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that it is there as a whole, or not at all."""
    part = part_of(path)
    part.write_bytes(content)
    os.replace(part, path)


def part_of(path: Path) -> Path:
    """Where ``write_bytes`` writes what is not whole yet."""
    return path.with_name(path.name + ".part")


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a run directory.

    Raises:
      RunError: there is none, or it cannot be read.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
    except FileNotFoundError:
        raise RunError(f"{str(directory)!r} is no run directory: it has no {MANIFEST}.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{directory / MANIFEST} cannot be read: {error}.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RunError(f"{directory / MANIFEST} is no manifest of format {FORMAT}.")
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
