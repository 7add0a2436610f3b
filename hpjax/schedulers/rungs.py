"""Rungs: the steps at which halving decides, each a multiple of the one before."""

from collections.abc import Iterable

from hpjax.core.errors import InputError, check_float, check_int
from hpjax.schedulers.base import Race


def check_factor(name: str, factor: float) -> None:
    """Raises ``InputError`` unless ``factor``, of the scheduler ``name``, is a number of 2 or more."""
    check_float(f"{name}.factor", factor, 2, remedy="Write factor=3.")


def check_min_steps(name: str, min_steps: int, budget: int, eval_every: int) -> None:
    """Raises ``InputError`` unless the first rung lies between the first evaluation and the end.

    Args:
      name: the scheduler.
      min_steps: the first rung, in calls of ``step``.
      budget: calls of ``step`` of the longest trial.
      eval_every: calls of ``step`` between evaluations.
    """
    check_int(f"{name}.min_steps", min_steps)
    if min_steps >= budget:
        allowed = f"must be below the budget, {budget} steps"
        raise InputError(f"{name}.min_steps", min_steps, allowed, f"Write min_steps={eval_every}, or train longer.")
    if min_steps < eval_every:
        raise InputError(
            f"{name}.min_steps",
            min_steps,
            f"must be {eval_every} or more, the steps between evaluations",
            f"Write min_steps={eval_every}, or evaluate more often.",
        )


def rung_of(step: int, min_steps: int, factor: float) -> int:
    """Returns the number of the last rung at or before ``step``, from 0; -1 before the first."""
    number = -1
    while round(min_steps * factor ** (number + 1)) <= step:
        number += 1
    return number


def rung_after(step: int, min_steps: int, factor: float) -> int:
    """Returns the step of the first rung after ``step``."""
    return round(min_steps * factor ** (rung_of(step, min_steps, factor) + 1))


def beaten(race: Race, live: Iterable[int], started: int, rung: int, factor: float) -> list[int]:
    """Returns the live trials that end at a rung, where one in ``factor ** (rung + 1)`` that started continues.

    Args:
      race: the scores.
      live: ids of the trials that are still live.
      started: number of trials that started together.
      rung: the number of the rung, from 0.
      factor: the number of trials at a rung divided by the number that continues.
    """
    kept = max(int(started / factor ** (rung + 1) + 1e-9), 1)
    return race.ranked(live)[kept:]
