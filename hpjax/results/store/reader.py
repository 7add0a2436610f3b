"""Reading a run's database, whose rows are checked before use."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.results.store.database import DATABASE, check_rows
from hpjax.results.store.rows import Change, Planned, check_arrays, hparams_of, metrics_of, reason_of


class RunReader:
    """The reader of a run's database.

    Each row of ``curves`` holds the values of all lanes of a wave for one metric and evaluation, as one array; the
    arrays ``trial``, ``replicate``, ``step`` and ``seconds`` of the same evaluation say which lane and step each value
    is of, and when it was recorded.

    Attributes:
      directory: the run's; None where the database is in memory.
    """

    def __init__(self, database: sqlite3.Connection, directory: Path | None) -> None:
        self._db, self.directory = database, directory

    def check(self, replicates: int) -> None:
        """Raises unless every row is one that a run writes.

        Args:
          replicates: how many lanes each trial has.

        Raises:
          RunError: a row is not.
        """
        with self._reading():
            check_rows(self._db, self._where, replicates)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Has its block read the database at one moment, while a run may be writing."""
        self._read("BEGIN")
        try:
            yield
        finally:
            self._read("COMMIT")

    @property
    def _where(self) -> str:
        """The database in words, for errors."""
        return "the database" if self.directory is None else str(self.directory / DATABASE)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raises errors of SQLite in its body as ``RunError``."""
        try:
            yield
        except sqlite3.Error as error:
            raise RunError(
                f"{self._where} cannot be read: {error}. Restore it from a copy, or delete it to begin anew."
            ) from None

    def _read(self, query: str) -> list[Any]:
        """Returns all rows of a query."""
        with self._reading():
            return self._db.execute(query).fetchall()

    def trials(self) -> list[Planned]:
        """Returns every trial so far, by id."""
        rows = self._read("SELECT trial, round, grp, wave, width, hparams FROM trials ORDER BY trial")
        return [Planned(t, r, g, w, width, hparams_of(hparams)) for t, r, g, w, width, hparams in rows]

    def lanes(self) -> list[Change]:
        """Returns every lane's status."""
        return [Change(*row) for row in self._read("SELECT trial, replicate, status, step FROM lanes")]

    def curves(self, metrics: Sequence[str], shape: tuple[int, int]) -> dict[tuple[int, int], dict[str, Array]]:
        """Returns (wave, segment) to the arrays of that evaluation, (live lanes,) each.

        Args:
          metrics: the names of the run's metrics.
          shape: trials and replicates.

        Raises:
          RunError: an array is of no known metric, trial or replicate.
        """
        segments: dict[tuple[int, int], dict[str, Array]] = {}
        for wave, segment, metric, dtype, data in self._read("SELECT * FROM curves ORDER BY wave, segment"):
            segments.setdefault((wave, segment), {})[metric] = np.frombuffer(data, dtype)
        for arrays in segments.values():
            check_arrays(self._where, arrays, metrics, shape)
        return segments

    def evaluations(self, wave: int) -> int:
        """Returns how many evaluations a wave has."""
        return int(self._read(f"SELECT coalesce(max(segment) + 1, 0) FROM curves WHERE wave = {int(wave)}")[0][0])

    def clones(self) -> list[tuple[int, int, int, dict[str, Any]]]:
        """Returns (trial, step, source, hyperparameters) of every clone, in the order in which they happened."""
        rows = self._read("SELECT trial, step, source, hparams FROM clones ORDER BY rowid")
        return [(*ids, hparams_of(hparams)) for *ids, hparams in rows]

    def tests(self) -> dict[int, dict[str, float]]:
        """Returns trial to its metrics on the test split, for trials that were tested."""
        return {trial: metrics_of(metrics) for trial, metrics in self._read("SELECT * FROM tests")}

    def failures(self) -> dict[int, str]:
        """Returns trial to the reason for which its group failed, for trials that did."""
        return {trial: reason_of(reason) for trial, reason in self._read("SELECT * FROM failures")}

    def compilations(self) -> dict[int, float]:
        """Returns group to the seconds that compiling it took."""
        return dict(self._read("SELECT grp, seconds FROM compilations"))

    def ends(self) -> int:
        """Returns how often the run was finished: more than once where it was extended."""
        return int(self._read("SELECT count(*) FROM finished")[0][0])

    def seconds(self) -> float | None:
        """Returns the duration of the finished run, None while it is not finished."""
        rows = self._read("SELECT seconds FROM finished ORDER BY rowid DESC LIMIT 1")
        return float(rows[0][0]) if rows else None
