"""Changes to what a run's database holds already: statuses, places, and what is forgotten to begin anew."""

from collections.abc import Iterable, Mapping

from hpjax.results.store.reader import RunReader
from hpjax.results.store.rows import Change, Status


class RunRewriter(RunReader):
    """The reader of a run's database that changes its rows, too, within a transaction of its caller."""

    def add_changes(self, changes: Iterable[Change]) -> None:
        """Updates the lanes whose status changed."""
        self._db.executemany(
            "UPDATE lanes SET status = ?, step = ? WHERE trial = ? AND replicate = ?",
            ((c.status, c.step, c.trial, c.replicate) for c in changes),
        )

    def move(self, places: Mapping[int, tuple[int, int]]) -> None:
        """Moves trials to other waves.

        Args:
          places: trial to the number of its wave and its width.
        """
        rows = ((wave, width, trial) for trial, (wave, width) in places.items())
        self._db.executemany("UPDATE trials SET wave = ?, width = ? WHERE trial = ?", rows)

    def forget(self, waves: Iterable[int], trials: Iterable[int]) -> None:
        """Deletes what waves recorded, so that they begin anew.

        Args:
          waves: the numbers of the waves.
          trials: the ids of all trials in them.
        """
        self._db.executemany("DELETE FROM curves WHERE wave = ?", ((wave,) for wave in waves))
        rows = [(trial,) for trial in trials]
        self._db.executemany(
            "UPDATE lanes SET status = ?, step = 0 WHERE trial = ?", ((Status.RUNNING, *row) for row in rows)
        )
        for table in ("clones", "failures"):
            self._db.executemany(f"DELETE FROM {table} WHERE trial = ?", rows)

    def reopen(self, extended: int) -> None:
        """Makes a run that ended unfinished again.

        Args:
          extended: how often the run went on after it was finished.
        """
        self._db.execute(
            "DELETE FROM finished WHERE rowid NOT IN (SELECT rowid FROM finished ORDER BY rowid LIMIT ?)", (extended,)
        )

    def roll_back(self, rounds: int, evaluations: Mapping[int, int], clones: int, lanes: Iterable[Change]) -> None:
        """Deletes what was written after a checkpoint.

        Args:
          rounds: how many rounds had begun by then.
          evaluations: number of each wave of the last round to how many evaluations of it were recorded.
          clones: how many clones were recorded.
          lanes: the status of every lane at the checkpoint.
        """
        # With a trial go its lanes, clones and test, as the schema says.
        self._db.execute("DELETE FROM trials WHERE round >= ?", (rounds,))
        self._db.execute("DELETE FROM curves WHERE wave > ?", (max(evaluations),))
        self._db.executemany("DELETE FROM curves WHERE wave = ? AND segment >= ?", evaluations.items())
        self._db.execute(
            "DELETE FROM clones WHERE rowid NOT IN (SELECT rowid FROM clones ORDER BY rowid LIMIT ?)",
            (clones,),
        )
        self.add_changes(lanes)
        self._db.execute(
            "DELETE FROM failures WHERE trial NOT IN (SELECT trial FROM lanes WHERE status = ?)", (Status.FAILED,)
        )
        self._db.execute(
            "DELETE FROM tests WHERE trial IN (SELECT trial FROM lanes WHERE status = ?)", (Status.RUNNING,)
        )
