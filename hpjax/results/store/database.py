"""Connections to a run's database, which holds its tables and nothing that acts by itself."""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from hpjax.core.errors import RunError
from hpjax.results.store.rows import DTYPES, OWNERS, STATUSES

DATABASE = "results.sqlite"
# What SQLite calls the journal that a database in WAL mode has no use for.
JOURNAL = "-journal"


def connected(address: str, uri: bool = False) -> sqlite3.Connection:
    """A connection that commits at once, but within a transaction."""
    # Used by one thread at a time; but it is whichever thread collects garbage that closes it.
    return sqlite3.connect(address, uri=uri, isolation_level=None, check_same_thread=False)


def opened(directory: Path, mode: str) -> sqlite3.Connection:
    """A connection to the database of a run directory.

    Raises:
      sqlite3.Error: it cannot be read.
      RunError: it holds more than the tables of a run.
    """
    path = directory / DATABASE
    # Whoever rolls back such a journal deletes a file that it names, wherever that is. In WAL mode there is none.
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
    """The same, without writing; a run may be writing to it."""
    try:
        return opened(directory, "mode=ro")
    except sqlite3.OperationalError:
        # In a directory that cannot be written WAL has nowhere to keep its index; nobody else writes there.
        return opened(directory, "mode=ro&immutable=1")


SCHEMA = (
    """CREATE TABLE trials (trial INTEGER PRIMARY KEY, round INTEGER NOT NULL, grp INTEGER NOT NULL,
                            wave INTEGER NOT NULL, width INTEGER NOT NULL, hparams TEXT NOT NULL)""",
    """CREATE TABLE lanes (trial INTEGER, replicate INTEGER, status TEXT NOT NULL, step INTEGER NOT NULL,
                           PRIMARY KEY (trial, replicate)) WITHOUT ROWID""",
    """CREATE TABLE curves (wave INTEGER, segment INTEGER, metric TEXT, dtype TEXT NOT NULL, data BLOB NOT NULL,
                            PRIMARY KEY (wave, segment, metric)) WITHOUT ROWID""",
    "CREATE TABLE clones (trial INTEGER, step INTEGER, source INTEGER NOT NULL, hparams TEXT NOT NULL)",
    "CREATE TABLE compilations (grp INTEGER PRIMARY KEY, seconds REAL NOT NULL)",
    "CREATE TABLE tests (trial INTEGER PRIMARY KEY, metrics TEXT NOT NULL)",
    "CREATE TABLE finished (seconds REAL NOT NULL)",
)


def _whole(most: str = "2147483647", least: str = "0") -> str:
    return f"typeof({{0}}) = 'integer' AND {{0}} BETWEEN {least} AND {most}"


def _one_of(names: Collection[str]) -> str:
    return f"{{0}} IN ({', '.join(repr(str(name)) for name in names)})"


_TRIAL, _REPLICATE = _whole(":trials - 1"), _whole(":replicates - 1")


_TEXT, _SECONDS = "typeof({0}) = 'text'", "typeof({0}) = 'real' AND {0} BETWEEN 0 AND 1e15"


# For each column what holds of every row, in SQL: checked where the rows are, without a loop in Python.
RULES: dict[str, dict[str, str]] = {
    "trials": {
        "trial": _TRIAL,
        "round": _whole(),
        "grp": _whole(),
        "wave": _whole(least="-1"),
        "width": _whole(least="1"),
        "hparams": _TEXT,
    },
    "lanes": {"trial": _TRIAL, "replicate": _REPLICATE, "status": _one_of(STATUSES), "step": _whole()},
    "curves": {
        "wave": _whole(),
        "segment": _whole(),
        "metric": _TEXT,
        "dtype": _one_of(DTYPES),
        "data": "typeof({0}) = 'blob' AND length({0}) % CASE dtype WHEN '<f8' THEN 8 ELSE 4 END = 0",
    },
    "clones": {"trial": _TRIAL, "step": _whole(), "source": _TRIAL, "hparams": _TEXT},
    "compilations": {"grp": _whole(), "seconds": _SECONDS},
    "tests": {"trial": _TRIAL, "metrics": _TEXT},
    "finished": {"seconds": _SECONDS},
}


UNEVEN = f"""SELECT wave, segment FROM curves GROUP BY wave, segment
  HAVING sum(metric IN {OWNERS} AND dtype = '<i4') <> 3
  OR min(length(data) / CASE dtype WHEN '<f8' THEN 8 ELSE 4 END)
     <> max(length(data) / CASE dtype WHEN '<f8' THEN 8 ELSE 4 END) LIMIT 1"""


OBJECTS = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"


def check_schema(database: sqlite3.Connection, where: str) -> None:
    """Makes sure that a database holds the tables of a run and nothing else: no trigger, view or index.

    Raises:
      sqlite3.Error: it cannot be read, or is empty, as one is of which the run was killed at once.
      RunError: it holds something else.
    """
    with closing(sqlite3.connect(":memory:")) as model:
        for statement in SCHEMA:
            model.execute(statement)
        wanted = model.execute(OBJECTS).fetchall()
    found = database.execute(OBJECTS).fetchall()
    if not found:
        raise sqlite3.DatabaseError("it has no tables")
    if found != wanted:
        odd = ", ".join(sorted({f"{row[0]} {row[1]!r}" for row in {*found} ^ {*wanted}}))
        raise RunError(f"{where} is not the database of a run: {odd}. Delete it, or restore it from a copy.")


def check_rows(database: sqlite3.Connection, where: str, replicates: int) -> None:
    """Makes sure that every row is one that a run writes; reads all of them, and keeps none.

    Raises:
      sqlite3.Error: the database cannot be read.
      RunError: a row is not.
    """

    def wrong(what: str) -> RunError:
        return RunError(f"{where}: {what}. It is damaged: restore it, or delete it to begin anew.")

    trials = database.execute("SELECT count(*) FROM trials").fetchone()[0]
    numbers = {"trials": trials, "replicates": replicates}
    for table, columns in RULES.items():
        fit = {name: rule.format(name) for name, rule in columns.items()}
        odd = " OR ".join(f"({rule}) IS NOT 1" for rule in fit.values())
        if database.execute(f"SELECT 1 FROM {table} WHERE {odd} LIMIT 1", numbers).fetchone():
            for name, rule in fit.items():
                query = f"SELECT substr(quote({name}), 1, 60) FROM {table} WHERE ({rule}) IS NOT 1 LIMIT 1"
                if row := database.execute(query, numbers).fetchone():
                    raise wrong(f"{table}.{name} is {row[0]} in a row, which no run writes")
    lanes = database.execute("SELECT count(*) FROM lanes").fetchone()[0]
    if lanes != trials * replicates:
        raise wrong(f"{trials} trials of {replicates} replicates have {lanes} lanes")
    if row := database.execute(UNEVEN).fetchone():
        raise wrong(f"the arrays of wave {row[0]}, segment {row[1]}, do not fit each other")
    # Every evaluation was recorded by some wave: so no number alone can ask for memory.
    many, last = database.execute("SELECT count(DISTINCT segment), max(segment) FROM curves").fetchone()
    if many and last + 1 != many:
        raise wrong(f"there are {many} evaluations, and one has the number {last}")
