"""The choice of the trials of which a run keeps artifacts."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError, check_int

FIELD = "Sweep.artifacts"
REMEDY = 'Write artifacts="best:4", "all", or ids of trials: artifacts=[0, 7].'


class ArtifactChoice(NamedTuple):
    """Which trials of those that are evaluated together have artifacts.

    Attributes:
      best: how many, the best by the objective; None for no limit.
      trials: the ids of the only ones that may; None for any.
    """

    best: int | None = None
    trials: frozenset[int] | None = None

    @classmethod
    def none(cls) -> "ArtifactChoice":
        """Returns the choice of no trial."""
        return cls(trials=frozenset())

    @classmethod
    def read(cls, value: Any) -> "ArtifactChoice":
        """Returns the choice that was asked for as ``"best:4"``, ``"all"``, ``[0, 7]`` or ``"0,7"``.

        Raises:
          InputError: the value is no choice.

        Example:
          >>> ArtifactChoice.read("best:2")
          ArtifactChoice(best=2, trials=None)
          >>> ArtifactChoice.read("0,7")
          ArtifactChoice(best=None, trials=frozenset({0, 7}))
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and value == "all":
            return cls()
        try:
            if isinstance(value, str) and value.startswith("best:"):
                return cls(best=check_int(FIELD, int(value.removeprefix("best:"))))
            ids = [int(each) for each in value.split(",")] if isinstance(value, str) else list(value)
            return cls(trials=frozenset(check_int(FIELD, each, least=0) for each in ids))
        except (TypeError, ValueError):
            raise InputError(FIELD, value, 'must be "best:K", "all" or a list of trial ids', REMEDY) from None

    def check(self, trials: int) -> None:
        """Raises ``InputError`` if a chosen trial is none of the first ``trials``."""
        if self.trials and max(self.trials) >= trials:
            allowed = f"must be ids of trials, which are 0 … {trials - 1}"
            raise InputError(FIELD, sorted(self.trials), allowed, REMEDY)

    def may_have(self, trials: Collection[int]) -> bool:
        """Returns whether one of these trials may have artifacts."""
        return len(trials) > 0 and (self.trials is None or not self.trials.isdisjoint(trials))

    def of(self, trials: Sequence[int], scores: Floats) -> list[int]:
        """Returns the trials that have artifacts, by id.

        Args:
          trials: those that were evaluated together.
          scores: the score of each, float (trials,), lower being better; a trial whose score is not finite is none of
            the best.
        """
        found = [trial for trial in trials if self.trials is None or trial in self.trials]
        if self.best is not None:
            score = dict(zip(trials, scores.tolist(), strict=True))
            ranked = sorted((trial for trial in found if np.isfinite(score[trial])), key=lambda t: (score[t], t))
            found = ranked[: self.best]
        return sorted(found)
