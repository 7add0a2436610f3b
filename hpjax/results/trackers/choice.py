"""The choice of the trials that become runs of a tracker."""

from typing import NamedTuple

from hpjax.core.errors import InputError, check_int


class RunChoice(NamedTuple):
    """Which trials become runs.

    Attributes:
      best: how many, the best by the objective, once the sweep is finished; all where the sweep has no more trials.
        None for no limit, 0 for none: one run has a line for each trial.
    """

    best: int | None

    @classmethod
    def read(cls, field: str, value: object) -> "RunChoice":
        """Returns the choice that was asked for as ``"best:20"``, ``"all"`` or ``"sweep"``.

        Args:
          field: the argument as the user wrote it, ``WandB.runs``.
          value: the value that was given.

        Raises:
          InputError: the value is no choice.

        Example:
          >>> RunChoice.read("WandB.runs", "best:5")
          RunChoice(best=5)
        """
        if value in ("all", "sweep"):
            return cls(None if value == "all" else 0)
        try:
            if isinstance(value, str) and value.startswith("best:"):
                return cls(check_int(field, int(value.removeprefix("best:"))))
        except ValueError:
            pass
        raise InputError(
            field, value, 'must be "best:K", "all" or "sweep"', 'Write runs="best:20", which has the 20 best trials.'
        )

    def live(self, trials: int) -> bool:
        """Returns whether each trial of a sweep of so many has a run of its own from its beginning."""
        return self.best is None or 0 < trials <= self.best
