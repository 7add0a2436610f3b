"""The domains: what values a hyperparameter may take, each mapped to the unit interval and back."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hpjax.core.errors import InputError
from hpjax.core.format import show

# Sampled numbers are rounded to about this share of their domain, so that what prints, short, is what ran.
RESOLUTION = 2e-4


class Selection(NamedTuple):
    """The kind of a choice among functions that is traced: a lane carries the index of its own."""

    options: tuple[Any, ...]


class Range(NamedTuple):
    """Between which numbers a value lies, and how they are spaced.

    Attributes:
      low, high: the ends.
      scale: ``"linear"``, ``"log"``, ``"reverse log"``, or ``"category"`` where only some numbers between are values.
    """

    low: float
    high: float
    scale: str


Kind = type | Selection | None


@dataclass(frozen=True, kw_only=True)
class Domain(ABC):
    """The values one hyperparameter may take, and their order on the unit interval.

    Args:
      default: the value of the baseline trial, or None.
      static: give every distinct value a program of its own, even where one program could serve all.
      traced: insist that one program serves all values; where that is impossible, the plan fails.
    """

    default: Any = None
    static: bool = False
    traced: bool = False

    # The kind of the traced array, or None where values are no numbers and can only be static.
    kind: ClassVar[Kind] = float
    # How an axis of it is best drawn.
    scale: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        if self.static and self.traced:
            raise InputError(f"{self._name}.traced", True, "static and traced exclude each other", "Give one of them.")
        if self.default is not None and not self.contains(self.default):
            raise InputError(
                f"{self._name}.default", self.default, f"must lie in {self}", "Move the default or widen the domain."
            )

    @property
    def _name(self) -> str:
        return type(self).__name__

    def numeric(self) -> Kind:
        """``float``, ``int`` or ``bool`` where the values are numbers of that kind, a ``Selection``, else None."""
        return self.kind

    def range(self) -> Range | None:
        """The ends, where it is a range of numbers."""
        return None

    @property
    def baseline(self) -> Any:
        """The default, or where none is named the middle of the domain."""
        return self.from_unit(0.5) if self.default is None else self.default

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether ``value`` belongs to the domain."""

    @abstractmethod
    def from_unit(self, u: float) -> Any:
        """The value at ``u`` in [0, 1]; equal steps of ``u`` are equally likely."""

    @abstractmethod
    def to_unit(self, value: Any) -> float:
        """The place of ``value`` in [0, 1]."""

    @abstractmethod
    def grid(self) -> list[Any] | None:
        """The values of a grid over the domain, or None where it is continuous and ``num`` is not given."""


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class _Interval(Domain):
    low: float
    high: float
    num: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if not _number(value):
                raise InputError(f"{self._name}.{name}", value, "must be a finite number", "Give a number.")
            self._check_bound(name, value)
        if not math.isfinite(float(self.high) - float(self.low)):
            raise InputError(f"{self._name}.high", self.high, "must be nearer to low", "Narrow the domain.")
        if not self.low < self.high:
            raise InputError(
                f"{self._name}.low",
                self.low,
                f"must be below high, which is {self.high!r}",
                f"Swap them, or write the constant {show(self.low)} in place of the domain.",
            )
        if self.num is not None and (not isinstance(self.num, int) or self.num < 1):
            raise InputError(f"{self._name}.num", self.num, "must be a whole number, 1 or more", "Give the grid size.")
        super().__post_init__()

    def _check_bound(self, name: str, value: float) -> None:
        """Raise where ``value`` cannot be a bound of this domain."""

    def __str__(self) -> str:
        return f"{self._name}({show(self.low)}, {show(self.high)})"

    def contains(self, value: Any) -> bool:
        return _number(value) and self.low <= value <= self.high

    def range(self) -> Range | None:
        return Range(self.low, self.high, self.scale)

    # A monotone scale on which the domain is uniform; subclasses give it and its inverse.
    def _scale(self, value: float) -> float:
        return value

    def _unscale(self, scaled: float) -> float:
        return scaled

    def _ends(self) -> tuple[float, float]:
        return self._scale(self.low), self._scale(self.high)

    def _digits(self) -> int:
        """How many digits after the first decimal place tell values apart that differ by the resolution."""
        a, b = self._ends()
        return round(-math.log10(min(RESOLUTION, 0.1 / (self.num or 1)) * (b - a)))

    def _tidy(self, value: float) -> Any:
        return round(value, self._digits())

    def from_unit(self, u: float) -> Any:
        a, b = self._ends()
        return min(max(self._tidy(self._unscale(a + float(u) * (b - a))), self.low), self.high)

    def to_unit(self, value: Any) -> float:
        a, b = self._ends()
        return (self._scale(float(value)) - a) / (b - a)

    def grid(self) -> list[Any] | None:
        if self.num is None:
            return None
        return [self.from_unit(0.5)] if self.num == 1 else [self.from_unit(i / (self.num - 1)) for i in range(self.num)]


@dataclass(frozen=True)
class Uniform(_Interval):
    """A real number, uniform on [low, high].

    Args:
      low: lowest value.
      high: highest value.
      num: how many values, evenly spaced with both ends, a ``Grid`` takes.

    Raises:
      InputError: low ≥ high, a bound that is no finite number, or a default outside.

    Example:
      >>> Uniform(0.5, 0.99, num=3).grid()
      [0.5, 0.745, 0.99]
    """


@dataclass(frozen=True)
class LogUniform(_Interval):
    """A real number whose logarithm is uniform on [log low, log high]; for learning rates, weight decay.

    Args: as for ``Uniform``; ``low`` must be above 0.

    Example:
      >>> LogUniform(1e-4, 1.0, num=5).grid()
      [0.0001, 0.001, 0.01, 0.1, 1.0]
    """

    scale = "log"

    def _check_bound(self, name: str, value: float) -> None:
        if value <= 0:
            raise InputError(
                f"{self._name}.{name}",
                value,
                "must be above 0 on a logarithmic scale",
                "Use a small positive number such as 1e-6, or Uniform.",
            )

    def _scale(self, value: float) -> float:
        return math.log(value)

    def _unscale(self, scaled: float) -> float:
        return math.exp(scaled)

    def _tidy(self, value: float) -> float:
        return float(f"{value:.{max(self._digits(), 0) + 1}g}")


@dataclass(frozen=True)
class ReverseLogUniform(_Interval):
    """A real number v with log(1 − v) uniform; for momentum and Adam's β, whose distance to 1 matters.

    Args: as for ``Uniform``; ``high`` must be below 1.

    Example:
      >>> ReverseLogUniform(0.9, 0.9999, num=4).grid()
      [0.9, 0.99, 0.999, 0.9999]
    """

    scale = "reverse log"

    def _check_bound(self, name: str, value: float) -> None:
        if value >= 1:
            raise InputError(
                f"{self._name}.{name}", value, "must be below 1: the scale is log(1 - v)", "Use 0.9999, or Uniform."
            )

    def _scale(self, value: float) -> float:
        return -math.log1p(-value)

    def _unscale(self, scaled: float) -> float:
        return -math.expm1(-scaled)

    def _tidy(self, value: float) -> float:
        # The digits that count are those of 1 - v.
        return round(value, max(self._digits(), 0) - math.floor(math.log10(1 - value)))


@dataclass(frozen=True)
class Int(_Interval):
    """A whole number, uniform on {low, …, high}, both ends included.

    Example:
      >>> Int(1, 4).grid()
      [1, 2, 3, 4]
    """

    low: int
    high: int
    kind = int

    def _check_bound(self, name: str, value: float) -> None:
        if not isinstance(value, int | np.integer) or abs(value) >= 2**31:
            raise InputError(
                f"{self._name}.{name}", value, "must be an int that int32 holds", "Round it, or use Uniform."
            )

    def contains(self, value: Any) -> bool:
        return super().contains(value) and int(value) == value

    def _ends(self) -> tuple[float, float]:
        return self._scale(self.low - 0.5), self._scale(self.high + 0.5)

    def _tidy(self, value: float) -> int:
        return round(value)

    def grid(self) -> list[int]:
        if self.num is None:
            return list(range(self.low, self.high + 1))
        a, b = self._scale(self.low), self._scale(self.high)
        steps = np.linspace(a, b, self.num) if self.num > 1 else [(a + b) / 2]
        return sorted({self._tidy(self._unscale(float(s))) for s in steps})


@dataclass(frozen=True)
class LogInt(Int):
    """A whole number whose logarithm is uniform; for layer sizes and batch sizes. ``low`` must be 1 or more.

    Example:
      >>> LogInt(16, 256, num=3).grid()
      [16, 64, 256]
    """

    scale = "log"

    def _check_bound(self, name: str, value: float) -> None:
        super()._check_bound(name, value)
        if value < 1:
            raise InputError(f"{self._name}.{name}", value, "must be 1 or more on a logarithmic scale", "Use Int.")

    def _scale(self, value: float) -> float:
        return math.log(value)

    def _unscale(self, scaled: float) -> float:
        return math.exp(scaled)


@dataclass(frozen=True, init=False)
class Choice(Domain):
    """One of a few values: numbers, strings, callables, or tuples of them.

    Numbers, infinity among them, are traced where the program allows it; anything else gives each value a program
    of its own.

    Args:
      *options: the values, distinct and hashable, in the order that neighbours should have.
      default, static, traced: as for every domain.
      select: of functions only: one program serves all, in which each lane computes every option and keeps its own.
        Right for what costs little, an activation or an initializer; the plan says what it costs.

    Raises:
      InputError: no options, an option twice, one that cannot be hashed, or a default that is none of them.

    Example:
      >>> Choice(64, 256).from_unit(0.7)
      256
    """

    options: tuple[Any, ...]
    select: bool
    scale = "category"

    def __init__(
        self,
        *options: Any,
        default: Any = None,
        static: bool = False,
        traced: bool = False,
        select: bool = False,
    ) -> None:
        if not options:
            raise InputError("Choice.options", (), "must not be empty", "Name at least one option.")
        options = tuple(o.item() if isinstance(o, np.generic) else o for o in options)
        for i, option in enumerate(options):
            try:
                hash(option)
            except TypeError:
                listed = len(options) == 1 and isinstance(option, list)
                remedy = f"Write Choice({', '.join(map(repr, option))})." if listed else "Use a tuple."
                allowed = "must be hashable, since equal values share a program"
                raise InputError("Choice.options", option, allowed, remedy) from None
            if option in options[:i]:
                raise InputError("Choice.options", option, "stands there twice", "Name each option once.")
            if option != option:
                raise InputError("Choice.options", option, "must equal itself", "Use another value.")
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "default", default)
        object.__setattr__(self, "static", static)
        object.__setattr__(self, "traced", traced)
        object.__setattr__(self, "select", select)
        if select and not all(map(callable, options)):
            raise InputError("Choice.select", True, f"needs functions, and {self} has others", "Drop select=True.")
        if select and static:
            raise InputError("Choice.select", True, "and static exclude each other", "Give one of them.")
        self.__post_init__()
        if default is not None:
            object.__setattr__(self, "default", options[options.index(default)])
        if traced and self.numeric() is None:
            raise InputError("Choice.traced", True, f"needs numbers, and {self} has others", "Drop traced=True.")

    def numeric(self) -> Kind:
        if self.select:
            return Selection(self.options)
        if all(isinstance(o, bool | np.bool_) for o in self.options):
            return bool
        if not all(_number(o) or (isinstance(o, float) and math.isinf(o)) for o in self.options):
            return None
        return int if all(isinstance(o, int) and abs(o) < 2**31 for o in self.options) else float

    def range(self) -> Range | None:
        """Of three numbers or more; one of two is always at an end."""
        ordered = len(self.options) >= 3 and all(map(_number, self.options))
        return Range(min(self.options), max(self.options), self.scale) if ordered else None

    def __str__(self) -> str:
        return f"Choice({', '.join(map(show, self.options))})"

    def contains(self, value: Any) -> bool:
        try:
            return value in self.options
        except TypeError:
            return False

    def from_unit(self, u: float) -> Any:
        return self.options[min(int(float(u) * len(self.options)), len(self.options) - 1)]

    def to_unit(self, value: Any) -> float:
        return (self.options.index(value) + 0.5) / len(self.options)

    def grid(self) -> list[Any]:
        return list(self.options)


class Constant(Choice):
    """A value that every trial has; what a bare value in a ``Space`` becomes."""

    @property
    def value(self) -> Any:
        return self.options[0]

    def __str__(self) -> str:
        return show(self.value)
