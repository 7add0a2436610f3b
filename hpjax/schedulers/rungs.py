"""Rungs: the steps at which halving decides, each a factor above the one before."""

from collections.abc import Iterable

from hpjax.core.errors import InputError, check_float, check_int
from hpjax.schedulers.base import Race


def check_factor(name: str, factor: float) -> None:
    """Raises ``InputError`` unless it is a number of 2 or more."""
    check_float(f"{name}.factor", factor, 2, remedy="Use 3 or 4.")


def check_min_steps(name: str, min_steps: int, budget: int, eval_every: int) -> None:
    """Raises ``InputError`` unless there is an evaluation from ``min_steps`` on, before the end."""
    check_int(f"{name}.min_steps", min_steps)
    if min_steps >= budget:
        allowed = f"must be below the budget, {budget} steps"
        raise InputError(f"{name}.min_steps", min_steps, allowed, "Decide earlier, or train longer.")
    if min_steps < eval_every:
        raise InputError(
            f"{name}.min_steps",
            min_steps,
            f"must be {eval_every} or more, the steps between evaluations",
            f"Use {eval_every}, or evaluate more often.",
        )


def rung_of(step: int, min_steps: int, factor: float) -> int:
    """The number of the last rung at or before ``step``, from 0; -1 before the first."""
    number = -1
    while round(min_steps * factor ** (number + 1)) <= step:
        number += 1
    return number


def rung_after(step: int, min_steps: int, factor: float) -> int:
    """The first rung after ``step``, in steps."""
    return round(min_steps * factor ** (rung_of(step, min_steps, factor) + 1))


def beaten(race: Race, live: Iterable[int], started: int, rung: int, factor: float) -> list[int]:
    """The live trials that do not go on from rung k, where one in ``factor`` ^ (k + 1) of those that started does."""
    kept = max(int(started / factor ** (rung + 1) + 1e-9), 1)
    return race.ranked(live)[kept:]
