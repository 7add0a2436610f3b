"""Shards: the parts of a sweep that independent jobs train.

Shard ``1/4`` is the first of four and ``4/4`` the last. They are counted from 1, as Playwright's ``--shard=1/4``,
nextest's ``--partition slice:1/4``, and the tasks of a Slurm job array with ``--array=1-4`` are.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hpjax.core.errors import InputError, check_int

FIELD = "Sweep.shard"


class Shard(NamedTuple):
    """One of the parts that a sweep is split into.

    Attributes:
      number: the number of the part, from 1.
      of: how many parts there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def read(cls, value: Any) -> "Shard":
        """Returns the shard that was asked for as ``(1, 4)`` or ``"1/4"``.

        Raises:
          InputError: the value is no shard.

        Example:
          >>> Shard.read("2/4")
          Shard(number=2, of=4)
        """
        try:
            number, of = value.split("/") if isinstance(value, str) else value
            shard = cls(*(check_int(FIELD, int(each) if isinstance(each, str) else each) for each in (number, of)))
        except (TypeError, ValueError):
            shard = cls(1, 0)
        if shard.number > shard.of:
            allowed = "must be the number of the shard, from 1, and how many there are, as (1, 4) or 1/4"
            raise InputError(FIELD, value, allowed, "Write shard=(1, 4): the shards of four are 1/4, 2/4, 3/4 and 4/4.")
        return shard

    def trials(self, groups: Iterable[Sequence[int]], budgets: Sequence[int]) -> set[int]:
        """Returns the trials of this shard. Each trial of the sweep is in exactly one of its shards.

        Args:
          groups: per group, its trials.
          budgets: per trial, how many calls of ``step`` it takes.
        """
        # Trials are dealt out like cards, group after group, long trials first. What a step costs differs between
        # groups and is not known before it runs, so every shard gets a share of each group, and all end at about the
        # same time. ``trial % n`` would meet the period of a grid (all large models in one shard), and whole groups
        # would leave the largest to one shard. The deal follows from the sweep alone, so that the jobs agree on it
        # whatever devices each of them has.
        order = [trial for own in groups for trial in sorted(own, key=lambda t: (-budgets[t], t))]
        return set(order[self.number - 1 :: self.of])
