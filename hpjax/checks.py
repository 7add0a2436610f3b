"""Checks of hyperparameters where they are used: at once where they are numbers, else by the plan."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax

from hpjax.errors import InputError


class Check(NamedTuple):
    """That a value lies between two bounds.

    Attributes:
      field: what it is called where it is used, ``Dropout.rate``.
      value: a number or a tracer.
      low, high: the bounds, both allowed.
      masks: whether a traced value hides a part of what is computed, where a number would leave it out.
    """

    field: str
    value: Any
    low: float
    high: float
    masks: bool = False

    def of(self, number: float) -> None:
        """Raises ``InputError`` where ``number`` does not lie between the bounds."""
        if not self.low <= number <= self.high:
            raise InputError(
                self.field,
                number,
                f"must lie between {self.low:g} and {self.high:g}"
                if math.isfinite(self.high)
                else f"must be {self.low:g} or more",
                "Narrow the domain of the hyperparameter, or change the number.",
            )


_collectors: list[list[Check]] = []


def within(field: str, value: Any, low: float, high: float = math.inf, masks: bool = False) -> None:
    """Checks that ``low ≤ value ≤ high``; of a traced hyperparameter the plan checks every sampled number.

    Raises:
      InputError: the value is a number outside.
    """
    check = Check(field, value, low, high, masks)
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
