"""Checks of hyperparameters where they are used: at once where they are numbers, else by the plan."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax

from hpjax.core.errors import InputError


class Check(NamedTuple):
    """That a value lies between two bounds.

    Attributes:
      field: what it is called where it is used, ``Dropout.rate``.
      value: a number or a tracer.
      low, high: the bounds, both allowed.
      masks: whether a traced value hides a part of what is computed, where a number would leave it out.
      in_run: whether it counts steps of which the run must have as many.
    """

    field: str
    value: Any
    low: float
    high: float
    masks: bool = False
    in_run: bool = False

    def of(self, number: float, steps: int | None = None, source: str = "the hyperparameter") -> None:
        """Checks one number.

        Args:
          number: what ``value`` is in a trial.
          steps: how many that trial takes, where known.
          source: where the number comes from.

        Raises:
          InputError: it does not lie between the bounds, or beyond the run.
        """
        if not self.low <= number <= self.high:
            bounds = f"lie between {self.low:g} and {self.high:g}" if math.isfinite(self.high) else None
            allowed = f"must {bounds or f'be {self.low:g} or more'}"
            raise InputError(self.field, number, allowed, f"Narrow the domain of {source}, or change the number.")
        if self.in_run and steps is not None and number > steps:
            allowed = f"must not be longer than the run, {steps} steps"
            raise InputError(self.field, number, allowed, "Warm up for a share of the run, or train longer.")


_collectors: list[list[Check]] = []


def check_bounds(field: str, value: Any, low: float, high: float = math.inf, **more: bool) -> None:
    """Checks that ``low ≤ value ≤ high``; of a traced hyperparameter the plan checks every sampled number.

    Args:
      field, value, low, high, **more: of the ``Check``.

    Raises:
      InputError: the value is a number outside.
    """
    check = Check(field, value, low, high, **more)
    if not isinstance(value, jax.core.Tracer):
        check.of(value)
    for found in _collectors:
        found.append(check)


@contextmanager
def collecting() -> Iterator[list[Check]]:
    """The checks that the code inside asks for."""
    found: list[Check] = []
    _collectors.append(found)
    try:
        yield found
    finally:
        _collectors.remove(found)
