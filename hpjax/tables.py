"""The tables of a run's database, and what their rows must be: whoever wrote them, they are checked before use."""

import json
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hpjax.errors import RunError
from hpjax.untrusted import is_text, is_whole

SCHEMA = (
    """CREATE TABLE trials (trial INTEGER PRIMARY KEY, round INTEGER NOT NULL, grp INTEGER NOT NULL,
                            wave INTEGER NOT NULL, width INTEGER NOT NULL, hparams TEXT NOT NULL)""",
    """CREATE TABLE lanes (trial INTEGER, replicate INTEGER, status TEXT NOT NULL, step INTEGER NOT NULL,
                           PRIMARY KEY (trial, replicate)) WITHOUT ROWID""",
    """CREATE TABLE curves (wave INTEGER, segment INTEGER, metric TEXT, dtype TEXT NOT NULL, data BLOB NOT NULL,
                            PRIMARY KEY (wave, segment, metric)) WITHOUT ROWID""",
    "CREATE TABLE takeovers (trial INTEGER, step INTEGER, source INTEGER NOT NULL, hparams TEXT NOT NULL)",
    "CREATE TABLE compilations (grp INTEGER PRIMARY KEY, seconds REAL NOT NULL)",
    "CREATE TABLE tests (trial INTEGER PRIMARY KEY, metrics TEXT NOT NULL)",
    "CREATE TABLE finished (seconds REAL NOT NULL)",
)

STATUSES = ("running", "complete", "stopped", "diverged", "elsewhere")
DTYPES = ("<i4", "<f4", "<f8")
# The arrays of a segment that say whose values the others hold.
OWNERS = ("trial", "replicate", "step")

# The wave of trials that another shard trains.
NO_WAVE = -1

# How deep a tuple of tuples may go.
MOST_LEVELS = 8


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


def _whole(most: str = "2147483647", least: str = "0") -> str:
    return f"typeof({{0}}) = 'integer' AND {{0}} BETWEEN {least} AND {most}"


def _one_of(names: Collection[str]) -> str:
    return f"{{0}} IN ({', '.join(map(repr, names))})"


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
    "takeovers": {"trial": _TRIAL, "step": _whole(), "source": _TRIAL, "hparams": _TEXT},
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


def check_arrays(
    where: str, arrays: Mapping[str, NDArray[Any]], metrics: Collection[str], shape: tuple[int, int]
) -> None:
    """Makes sure that the arrays of one evaluation are of known metrics, and of trials and replicates in ``shape``.

    Raises:
      RunError: they are not.
    """
    unknown = arrays.keys() - {*OWNERS, *metrics}
    if unknown:
        raise RunError(f"{where}: values of {sorted(unknown)}, which is no metric of the run. It is damaged.")
    for name, most in zip(OWNERS, (*shape, 2**31), strict=True):
        values = arrays[name]
        if values.size and not (values.min() >= 0 and values.max() < most):
            raise RunError(f"{where}: an array of curves has {name} {values.max()} or {values.min()}. It is damaged.")


def hparams_of(text: str) -> dict[str, Any]:
    """Hyperparameters from their JSON.

    Raises:
      RunError: it holds something that is none.
    """
    found = _object(text)
    # Most are numbers; the rest is looked at one by one.
    if not all(type(v) is float or _plain(v, MOST_LEVELS) for v in found.values()):
        raise RunError(f"the database has hyperparameters {text[:100]!r}, which no run writes. It is damaged.")
    return {name: _tuples(value) for name, value in found.items()}


def metrics_of(text: str) -> dict[str, float]:
    """Metrics on the test split from their JSON.

    Raises:
      RunError: it holds something that is none.
    """
    found = _object(text)
    for name, value in found.items():
        if not (name.startswith("test/") and is_text(name) and (type(value) is float or is_whole(value))):
            raise RunError(f"the database has metrics {text[:100]!r}, which no run writes. It is damaged.")
    return {name: float(value) for name, value in found.items()}


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RunError(f"the database has {text[:100]!r} where a JSON object must be. It is damaged.")
    return found


def _plain(value: Any, levels: int) -> bool:
    if isinstance(value, list):
        return levels > 0 and all(_plain(each, levels - 1) for each in value)
    return value is None or type(value) in (bool, float, str) or (type(value) is int and abs(value) < 2**63)


def _tuples(value: Any) -> Any:
    """JSON has no tuples, and hyperparameters are never lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
