"""Connections to a run's database, its schema, and the check that its rows are what a run writes."""

import reprlib
import sqlite3
from collections.abc import Collection
from pathlib import Path

from hpjax.core.errors import RunError
from hpjax.results.store.rows import DTYPES, NO_WAVE, OWNERS, STATUSES

DATABASE = "results.sqlite"
# The file that SQLite names so is of no use to a database in WAL mode.
JOURNAL = "-journal"


def connected(address: str, uri: bool = False) -> sqlite3.Connection:
    """Returns a connection that commits every statement outside a transaction, and enforces foreign keys."""
    # One thread at a time uses it, but whichever thread collects garbage closes it.
    database = sqlite3.connect(address, uri=uri, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA foreign_keys=ON")
    return database


def opened(directory: Path, mode: str) -> sqlite3.Connection:
    """Returns a connection to the database of a run directory.

    Args:
      directory: the run's.
      mode: options of SQLite's URI, such as ``mode=ro``.

    Raises:
      sqlite3.Error: the database cannot be read.
      RunError: the database holds more than the tables of a run.
    """
    path = directory / DATABASE
    # SQLite rolls such a journal back on opening, and deletes whatever file the journal names, wherever that is.
    if path.with_name(path.name + JOURNAL).exists():
        raise sqlite3.DatabaseError(f"beside it is a {path.name}{JOURNAL}, which no run leaves")
    database = connected(f"{path.absolute().as_uri()}?{mode}", uri=True)
    try:
        database.execute("PRAGMA trusted_schema=OFF")
        database.execute("PRAGMA cell_size_check=ON")
        check_schema(database, str(path))
        database.execute("SELECT * FROM trials LIMIT 1")
    except BaseException:
        database.close()
        raise
    return database


def for_reading(directory: Path) -> sqlite3.Connection:
    """Returns a read-only connection to the database of a run directory, to which a run may be writing."""
    try:
        return opened(directory, "mode=ro")
    except sqlite3.OperationalError:
        # WAL keeps its index beside the database, which a read-only directory forbids; but there nobody writes.
        return opened(directory, "mode=ro&immutable=1")


# ---- The schema. Each constraint has the name of its column, which SQLite's errors then tell. The tables are not
# STRICT, which SQLite knows since 3.37: the Python of long-lived clusters links older ones.


def _column(name: str, kind: str, rule: str) -> str:
    return f"{name} {kind} NOT NULL CONSTRAINT {name} CHECK (typeof({name}) = '{kind.lower()}' AND {rule})"


def _whole(name: str, least: int = 0) -> str:
    return _column(name, "INTEGER", f"{name} BETWEEN {least} AND {2**31 - 1}")


def _trial(name: str) -> str:
    return f"{_whole(name)} REFERENCES trials ON DELETE CASCADE"


def _text(name: str) -> str:
    return _column(name, "TEXT", "1")


def _one_of(name: str, allowed: Collection[str]) -> str:
    listed = ", ".join(f"'{each}'" for each in allowed)
    return _column(name, "TEXT", f"{name} IN ({listed})")


_SECONDS = _column("seconds", "REAL", "seconds BETWEEN 0 AND 1e15")
_NUMBERS = "length(data) / CASE dtype WHEN '<f8' THEN 8 ELSE 4 END"
_DATA = _column("data", "BLOB", "length(data) % CASE dtype WHEN '<f8' THEN 8 ELSE 4 END = 0")

SCHEMA = (
    f"""CREATE TABLE trials ({_whole("trial")} PRIMARY KEY, {_whole("round")}, {_whole("grp")},
        {_whole("wave", least=NO_WAVE)}, {_whole("width", least=1)}, {_text("hparams")})""",
    f"""CREATE TABLE lanes ({_trial("trial")}, {_whole("replicate")}, {_one_of("status", STATUSES)}, {_whole("step")},
        PRIMARY KEY (trial, replicate)) WITHOUT ROWID""",
    f"""CREATE TABLE curves ({_whole("wave")}, {_whole("segment")}, {_text("metric")}, {_one_of("dtype", DTYPES)},
        {_DATA}, PRIMARY KEY (wave, segment, metric)) WITHOUT ROWID""",
    f"CREATE TABLE clones ({_trial('trial')}, {_whole('step')}, {_trial('source')}, {_text('hparams')})",
    f"CREATE TABLE compilations ({_whole('grp')} PRIMARY KEY, {_SECONDS})",
    f"CREATE TABLE tests ({_trial('trial')} PRIMARY KEY, {_text('metrics')})",
    f"CREATE TABLE finished ({_SECONDS})",
)

_UNEVEN = f"""SELECT wave, segment FROM curves GROUP BY wave, segment
  HAVING sum(metric IN {OWNERS} AND dtype = '<i4') <> {len(OWNERS)} OR min({_NUMBERS}) <> max({_NUMBERS}) LIMIT 1"""
_OBJECTS = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"


def _empty() -> sqlite3.Connection:
    """Returns a database in memory with the tables of a run and no rows."""
    model = sqlite3.connect(":memory:")
    for statement in SCHEMA:
        model.execute(statement)
    return model


def check_schema(database: sqlite3.Connection, where: str) -> None:
    """Raises unless a database holds the tables of a run and nothing else: no trigger, view or index.

    Args:
      database: whichever was opened.
      where: its path, for the error.

    Raises:
      sqlite3.Error: the database cannot be read, or has no tables, as after a run that was killed right away.
      RunError: the database holds something else.
    """
    model = _empty()
    wanted, found = model.execute(_OBJECTS).fetchall(), database.execute(_OBJECTS).fetchall()
    model.close()
    if not found:
        raise sqlite3.DatabaseError("it has no tables")
    if found != wanted:
        odd = ", ".join(sorted({f"{row[0]} {row[1]!r}" for row in {*found} ^ {*wanted}}))
        raise RunError(f"{where} is not the database of a run: {odd}. Delete it, or restore it from a copy.")


def check_rows(database: sqlite3.Connection, where: str, replicates: int) -> None:
    """Raises unless every row is one that a run writes. Reads all rows, and keeps none.

    Args:
      database: one with the schema of a run.
      where: its path, for the error.
      replicates: how many lanes each trial has.

    Raises:
      sqlite3.Error: the database cannot be read.
      RunError: a row is not one that a run writes.
    """

    def wrong(what: str) -> RunError:
        return RunError(f"{where}: {what}. It is damaged: restore it from a copy, or delete it to begin anew.")

    (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        if broken := _broken(database):
            raise wrong(f"{broken} in a row, which no run writes")
        raise sqlite3.DatabaseError(f"it is malformed ({found})")
    trials, last = database.execute("SELECT count(*), max(trial) FROM trials").fetchone()
    if trials and last != trials - 1:
        raise wrong(f"trials.trial is {last} in a row, of {trials} trials")
    for table, _, _, key in database.execute("PRAGMA foreign_key_check"):
        column = {row[0]: row[3] for row in database.execute(f"PRAGMA foreign_key_list({table})")}[key]
        lost = f"SELECT {column} FROM {table} WHERE {column} NOT IN (SELECT trial FROM trials)"
        raise wrong(f"{table}.{column} is {database.execute(lost).fetchone()[0]} in a row, of {trials} trials")
    lanes, last = database.execute("SELECT count(*), max(replicate) FROM lanes").fetchone()
    if lanes and last >= replicates:
        raise wrong(f"lanes.replicate is {last} in a row, of {replicates} replicates")
    if lanes != trials * replicates:
        raise wrong(f"{trials} trials of {replicates} replicates have {lanes} lanes")
    if row := database.execute(_UNEVEN).fetchone():
        raise wrong(f"the arrays of wave {row[0]}, segment {row[1]}, do not fit each other")
    # Some wave recorded every evaluation: a single large number cannot make the reader allocate memory.
    many, last = database.execute("SELECT count(DISTINCT segment), max(segment) FROM curves").fetchone()
    if many and last + 1 != many:
        raise wrong(f"there are {many} evaluations, and one has the number {last}")


def _broken(database: sqlite3.Connection) -> str | None:
    """Returns the first value that breaks a rule of its column, with the names of both; None where none does."""
    # SQLite's integrity_check names the table alone; inserting the rows elsewhere finds the row and the column.
    model = _empty()
    for (table,) in model.execute("SELECT name FROM sqlite_master").fetchall():
        rows = database.execute(f"SELECT * FROM {table}")
        names = [description[0] for description in rows.description]
        for row in rows:
            try:
                model.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
            except sqlite3.IntegrityError as error:
                column = str(error).split(": ")[-1].split(".")[-1]
                return f"{table}.{column} is {reprlib.repr(row[names.index(column)])}"
            model.rollback()  # so that not even the rows of a large database fill the memory
    return None
