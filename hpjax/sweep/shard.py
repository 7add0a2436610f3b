"""Shards: the parts of a sweep that independent jobs train. This page says how they count, and what is in which.

Shard ``1/4`` is the first of four and ``4/4`` the last: counted from 1, as Playwright's ``--shard=1/4``, nextest's
``--partition slice:1/4``, and the tasks of a Slurm job array that was asked for as ``--array=1-4``.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hpjax.core.errors import InputError, check_int

FIELD = "Sweep.shard"


class Shard(NamedTuple):
    """One of the parts that a sweep is cut into.

    Attributes:
      number: which one, from 1.
      of: how many there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def read(cls, value: Any) -> "Shard":
        """The shard that was asked for, as ``(1, 4)`` or ``"1/4"``.

        Raises:
          InputError: it is none.

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
            raise InputError(FIELD, value, allowed, "The four shards of a sweep are 1/4, 2/4, 3/4 and 4/4.")
        return shard

    def trials(self, groups: Iterable[Sequence[int]], budgets: Sequence[int]) -> set[int]:
        """The trials of this shard; those of all shards together are all, each once.

        Args:
          groups: the trials of each group.
          budgets: of each trial, how many calls of ``step`` it takes.
        """
        # Dealt out like cards, group after group, long trials first: what a step costs differs between groups and is
        # not known before it ran, so every shard has its share of each, and the shards end together. A group is
        # compiled in no more shards than it has trials. Not ``trial % n``, which would meet the period of a grid (all
        # large models in one shard); nor whole groups, of which the largest would decide when all is done. It follows
        # from the sweep alone, so that the jobs agree on it whatever devices each of them has.
        order = [trial for own in groups for trial in sorted(own, key=lambda t: (-budgets[t], t))]
        return set(order[self.number - 1 :: self.of])
