"""Domains: the values that a hyperparameter may take, mapped to the unit interval and back.

``intervals`` has those of numbers between two ends, ``choice`` those of a few values of any type.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from hpjax.core.errors import InputError
from hpjax.core.format import show
from hpjax.core.scalars import as_python


class Selection(NamedTuple):
    """The kind of a traced choice among functions: each lane carries the index of its option.

    Attributes:
      options: the functions.
    """

    options: tuple[Any, ...]


class Range(NamedTuple):
    """The numbers between which a value lies, and their spacing.

    Attributes:
      low, high: the ends, both included.
      scale: ``"linear"``, ``"log"``, ``"reverse log"``, or ``"category"`` where only some of the numbers are values.
    """

    low: float
    high: float
    scale: str

    def place(self, value: float) -> float:
        """Returns where a value is between the ends, on the scale: 0 at the low end, 1 at the high one.

        Example:
          >>> Range(1e-4, 1.0, "log").place(0.01)
          0.5
        """
        low, high, own = (self._on_scale(each) for each in (self.low, self.high, value))
        return (own - low) / (high - low) if low < high else 0.5

    def _on_scale(self, value: float) -> float:
        if self.scale == "reverse log":
            return -math.log1p(-value)
        return math.log(value) if self.scale == "log" else value


Kind = type | Selection | None


@dataclass(frozen=True, kw_only=True)
class Domain(ABC):
    """The values that one hyperparameter may take, and their order on the unit interval.

    Args:
      default: the value of the baseline trial, or None.
      static: whether to compile a program for every distinct value, even where one program could serve all.
      traced: whether to insist that one program serves all values; where that is impossible, the plan fails.

    Raises:
      InputError: both static and traced, or a default outside the domain.
    """

    default: Any = None
    static: bool = False
    traced: bool = False

    # The type of the traced array; None where values are no numbers, and so can only be static.
    kind: ClassVar[Kind] = float
    # The scale on which values are spread evenly, and an axis is best drawn.
    scale: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        if self.static and self.traced:
            raise InputError(f"{self._name}.traced", True, "static and traced exclude each other", "Drop static=True.")
        if self.default is None:
            return
        if not self.contains(self.default):
            remedy = f"Write default={show(self.from_unit(0.5))}, or widen the domain."
            raise InputError(f"{self._name}.default", self.default, f"must lie in {self}", remedy)
        object.__setattr__(self, "default", self.canonical(self.default))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def numeric(self) -> Kind:
        """Returns ``float``, ``int`` or ``bool`` if all values are numbers of that type, a ``Selection``, or None."""
        return self.kind

    def range(self) -> Range | None:
        """Returns the range of the values, None where they are no range of numbers."""
        return None

    @property
    def baseline(self) -> Any:
        """The default, or the middle of the domain where there is none."""
        return self.from_unit(0.5) if self.default is None else self.default

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Returns whether a value belongs to the domain."""

    def canonical(self, value: Any) -> Any:
        """Returns the domain's own value that equals a value in it: 8 for 8.0 where the domain has integers."""
        return as_python(value)

    def values(self) -> Sequence[Any] | None:
        """Returns all values, None where the domain is continuous."""
        return None

    @abstractmethod
    def from_unit(self, u: float) -> Any:
        """Returns the value at ``u`` in [0, 1]; equal intervals of ``u`` are equally likely."""

    @abstractmethod
    def to_unit(self, value: Any) -> float:
        """Returns the position of a value in [0, 1]; ``from_unit`` of it is the value."""

    @abstractmethod
    def grid(self) -> list[Any] | None:
        """Returns the values of a grid over the domain, None where it is continuous and has no ``num``."""


def is_number(value: Any) -> bool:
    """Returns whether a value, perhaps a scalar of NumPy or JAX, is a finite number that a float can hold, no bool."""
    value = as_python(value)
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
