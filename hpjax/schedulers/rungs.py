"""Rungs: the steps at which halving decides, each a multiple of the one before."""

import math
from collections.abc import Iterable

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError, check_float, check_int
from hpjax.schedulers.base import Race


def check_factor(name: str, factor: float) -> float:
    """Returns ``factor``, of the scheduler ``name``; raises ``InputError`` unless it is a number of 2 or more."""
    return check_float(f"{name}.factor", factor, 2, remedy="Write factor=3.")


def check_evaluations(name: str, budget: int, eval_every: int) -> None:
    """Raises ``InputError`` unless there is an evaluation before the end, at which the scheduler ``name`` decides."""
    if eval_every >= budget:
        allowed = f"needs evaluations before the end, and the only one is at step {budget}"
        remedy = f"Write eval_every={ceil_div(budget, 10)}." if budget > 1 else "Train longer, or remove scheduler=."
        raise InputError("Sweep.scheduler", name, allowed, remedy)


def check_min_steps(name: str, min_steps: float, budget: int, eval_every: int) -> None:
    """Raises ``InputError`` unless the first rung lies between the first evaluation and the end, with one between.

    Args:
      name: the scheduler.
      min_steps: the first rung, in calls of ``step``.
      budget: calls of ``step`` of the longest trial.
      eval_every: calls of ``step`` between evaluations.
    """
    check_int(f"{name}.min_steps", min_steps)
    check_evaluations(name, budget, eval_every)
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


def step_of(rung: float) -> int:
    """Returns the step nearest to a rung; of two equal distance the later one, also where its last bit is lost."""
    return math.floor(rung + 0.5 + 1e-6)


def rung_of(step: int, first: float, factor: float) -> int:
    """Returns the number of the last rung at or before ``step``, from 0; -1 before the first, which is at ``first``."""
    number = -1
    while step_of(first * factor ** (number + 1)) <= step:
        number += 1
    return number


def rung_after(step: int, first: float, factor: float) -> int:
    """Returns the step of the first rung after ``step``."""
    return step_of(first * factor ** (rung_of(step, first, factor) + 1))


def beaten(race: Race, live: Iterable[int], started: int, rung: int, factor: float) -> list[int]:
    """Returns the live trials that end at a rung: of ``n`` that reach it ``n / factor`` continue, rounded down.

    Args:
      race: the scores.
      live: ids of the trials that are still live.
      started: number of trials that started together.
      rung: the number of the rung, from 0.
      factor: the number of trials at a rung divided by the number that continues.
    """
    # Rounded at each rung, as the published algorithms do; 1e-9 for a quotient that is whole but for its last bit.
    reached = int(started / factor**rung + 1e-9)
    return race.ranked(live)[max(int(reached / factor + 1e-9), 1) :]
