"""Bounds on hyperparameters, declared where the values are used.

A value that is a number is checked immediately. A traced one has no value while the program is traced, so its check is
collected, and the plan applies it to the number of every trial.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax

from hpjax.core.errors import InputError
from hpjax.core.format import show


class Check(NamedTuple):
    """A requirement that a value lies between two bounds.

    Attributes:
      field: the name of the argument that takes the value, ``Dropout.rate``.
      value: a number or a tracer, shape ().
      low, high: the bounds, both inclusive.
      masks: True where the value, once traced, masks part of a larger computation that a number would leave out.
      in_run: True where the value counts optimizer steps, of which the trial must have at least as many.
    """

    field: str
    value: Any
    low: float
    high: float
    masks: bool = False
    in_run: bool = False

    def of(self, number: float, steps: int | None = None, source: str = "the hyperparameter") -> None:
        """Raises unless one number satisfies the check.

        Args:
          number: the value of ``value`` in one trial.
          steps: optimizer steps of that trial, None where they are not known.
          source: what the number comes from, for the error message.

        Raises:
          InputError: the number lies outside the bounds, or counts more steps than the trial has.
        """
        if not self.low <= number <= self.high:
            bounds = f"lie between {self.low:g} and {self.high:g}" if math.isfinite(self.high) else None
            allowed = f"must {bounds or f'be {self.low:g} or more'}"
            nearest = show(min(max(self.low, number), self.high))
            remedy = f"Narrow the domain of {source}, or write {self._name}={nearest}."
            raise InputError(self.field, number, allowed, remedy)
        if self.in_run and steps is not None and number > steps:
            allowed = f"must not be longer than the run, {steps} steps"
            remedy = f"Write {self._name}=0.1 * steps, or train for more than {number:g} steps."
            raise InputError(self.field, number, allowed, remedy)

    @property
    def _name(self) -> str:
        """The argument's own name, without that of its function."""
        return self.field.rpartition(".")[2]


# One list for each ``collecting`` block that is open in this thread: sweeps planned in several threads do not mix.
_collectors: ContextVar[tuple[list[Check], ...]] = ContextVar("collectors", default=())


def check_bounds(field: str, value: Any, low: float, high: float = math.inf, **more: bool) -> None:
    """Raises unless ``low ≤ value ≤ high``; for a traced value, has the plan check the number of every trial.

    Args:
      field, value, low, high, **more: the attributes of a ``Check``.

    Raises:
      InputError: the value is a number outside the bounds.
    """
    check = Check(field, value, low, high, **more)
    if not isinstance(value, jax.core.Tracer):
        check.of(value)
    for found in _collectors.get():
        found.append(check)


@contextmanager
def collecting() -> Iterator[list[Check]]:
    """Collects every check that code in this block makes, in the thread that runs it.

    Yields:
      A list that grows by one ``Check`` with each call of ``check_bounds``.
    """
    found: list[Check] = []
    token = _collectors.set((*_collectors.get(), found))
    try:
        yield found
    finally:
        _collectors.reset(token)
