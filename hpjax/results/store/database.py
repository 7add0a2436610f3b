"""Connections to a run's database, its schema, and the check that its rows obey it, whoever wrote them."""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

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


class Column(NamedTuple):
    """A column of a table: its type, and as SQL the rule that each of its values obeys."""

    kind: str
    rule: str


def _column(kind: str, rule: str = "") -> Column:
    """Returns a column of values of one type of SQLite, which must fit a rule as well."""
    return Column(kind, " AND ".join(filter(None, (f"typeof({{0}}) = '{kind.lower()}'", rule))))


def _integer(least: int = 0) -> Column:
    """Returns a column of integers, ``least`` or more."""
    return _column("INTEGER", f"{{0}} BETWEEN {least} AND {2**31 - 1}")


def _one_of(allowed: Collection[str]) -> Column:
    """Returns a column of texts that are among these."""
    return _column("TEXT", f"{{0}} IN ({', '.join(repr(str(each)) for each in allowed)})")


_SIZE = "CASE dtype WHEN '<f8' THEN 8 ELSE 4 END"
_INTEGER, _TEXT, _SECONDS = _integer(), _column("TEXT"), _column("REAL", "{0} BETWEEN 0 AND 1e15")
_OF_TRIAL = "FOREIGN KEY ({}) REFERENCES trials ON DELETE CASCADE"

COLUMNS: dict[str, dict[str, Column]] = {
    "trials": {
        "trial": _INTEGER,
        "round": _INTEGER,
        "grp": _INTEGER,
        "wave": _integer(least=NO_WAVE),
        "width": _integer(least=1),
        "hparams": _TEXT,
    },
    "lanes": {"trial": _INTEGER, "replicate": _INTEGER, "status": _one_of(STATUSES), "step": _INTEGER},
    "curves": {
        "wave": _INTEGER,
        "segment": _INTEGER,
        "metric": _TEXT,
        "dtype": _one_of(DTYPES),
        "data": _column("BLOB", f"length({{0}}) % {_SIZE} = 0"),
    },
    "clones": {"trial": _INTEGER, "step": _INTEGER, "source": _INTEGER, "hparams": _TEXT},
    "failures": {"trial": _INTEGER, "reason": _TEXT},
    "compilations": {"grp": _INTEGER, "seconds": _SECONDS},
    "tests": {"trial": _INTEGER, "metrics": _TEXT},
    "finished": {"seconds": _SECONDS},
}
KEYS = {
    "trials": ["PRIMARY KEY (trial)"],
    "lanes": ["PRIMARY KEY (trial, replicate)", _OF_TRIAL.format("trial")],
    "curves": ["PRIMARY KEY (wave, segment, metric)"],
    "clones": [_OF_TRIAL.format("trial"), _OF_TRIAL.format("source")],
    "failures": ["PRIMARY KEY (trial)", _OF_TRIAL.format("trial")],
    "compilations": ["PRIMARY KEY (grp)"],
    "tests": ["PRIMARY KEY (trial)", _OF_TRIAL.format("trial")],
    "finished": [],
}


def _create(table: str) -> str:
    """Returns the SQL that creates a table."""
    # The tables are not STRICT, since the Python of long-lived clusters links an SQLite from before 3.37.
    columns = [f"{n} {each.kind} NOT NULL CHECK ({each.rule.format(n)})" for n, each in COLUMNS[table].items()]
    rowids = " WITHOUT ROWID" if table in ("lanes", "curves") else ""
    return f"CREATE TABLE {table} ({', '.join(columns + KEYS[table])}){rowids}"


SCHEMA = tuple(map(_create, COLUMNS))

_UNEVEN = f"""SELECT wave, segment FROM curves GROUP BY wave, segment
  HAVING sum(metric IN {OWNERS} AND dtype = '<i4') <> {len(OWNERS)}
  OR min(length(data) / {_SIZE}) <> max(length(data) / {_SIZE}) LIMIT 1"""
_UNREASONED = """SELECT trial FROM trials WHERE (trial IN (SELECT trial FROM failures))
  <> (trial IN (SELECT trial FROM lanes WHERE status = 'failed')) LIMIT 1"""
_OBJECTS = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"


def check_schema(database: sqlite3.Connection, where: str) -> None:
    """Raises unless a database holds the tables of a run and nothing else: no trigger, view or index.

    Args:
      database: whichever was opened.
      where: the path of the database, for the error.

    Raises:
      sqlite3.Error: the database cannot be read, or has no tables, as after a run that was killed right away.
      RunError: the database holds something else.
    """
    with closing(sqlite3.connect(":memory:")) as model:
        for statement in SCHEMA:
            model.execute(statement)
        wanted = model.execute(_OBJECTS).fetchall()
    found = database.execute(_OBJECTS).fetchall()
    if not found:
        raise sqlite3.DatabaseError("it has no tables")
    if found != wanted:
        odd = ", ".join(sorted({f"{row[0]} {row[1]!r}" for row in {*found} ^ {*wanted}}))
        raise RunError(f"{where} is not the database of a run: {odd}. Delete it, or restore it from a copy.")


def check_rows(database: sqlite3.Connection, where: str, replicates: int) -> None:
    """Raises unless every row is one that a run writes. Reads all rows, and keeps none.

    Args:
      database: one with the schema of a run.
      where: the path of the database, for the error.
      replicates: how many lanes each trial has.

    Raises:
      sqlite3.Error: the database cannot be read.
      RunError: a row is not one that a run writes.
    """

    def wrong(what: str) -> RunError:
        return RunError(f"{where}: {what}. It is damaged: restore it from a copy, or delete it to begin anew.")

    # quick_check is integrity_check without comparing indexes, of which there are none, in half the time.
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"it is malformed ({' '.join(found.split())})")
    # SQLite skips CHECK constraints on connections that only read, even in quick_check: queries test the rules.
    for table, columns in COLUMNS.items():
        odd = {name: f"({column.rule.format(name)}) IS NOT 1" for name, column in columns.items()}
        if database.execute(f"SELECT 1 FROM {table} WHERE {' OR '.join(odd.values())} LIMIT 1").fetchone():
            for name, rule in odd.items():
                query = f"SELECT substr(quote({name}), 1, 60) FROM {table} WHERE {rule} LIMIT 1"
                if row := database.execute(query).fetchone():
                    raise wrong(f"{table}.{name} is {row[0]} in a row, which no run writes")
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
    if row := database.execute(_UNREASONED).fetchone():
        raise wrong(f"of trial {row[0]} there is a failure without a reason, or a reason without a failure")
    if row := database.execute(_UNEVEN).fetchone():
        raise wrong(f"the arrays of wave {row[0]}, segment {row[1]}, do not fit each other")
    # Some wave recorded every evaluation: a single large number cannot make the reader allocate memory.
    many, last = database.execute("SELECT count(DISTINCT segment), max(segment) FROM curves").fetchone()
    if many and last + 1 != many:
        raise wrong(f"there are {many} evaluations, and one has the number {last}")
