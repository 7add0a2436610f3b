"""Connections to a run's database, which holds its tables and nothing that acts by itself."""

import sqlite3
from pathlib import Path

from hpjax.tables import check_schema

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
