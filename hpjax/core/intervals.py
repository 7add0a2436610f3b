"""Domains of numbers between two ends, each uniform on a scale of its own."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from hpjax.core.domains import Domain, Range, is_number
from hpjax.core.errors import InputError
from hpjax.core.format import show
from hpjax.core.scalars import as_python

# Sampled numbers are rounded to about this share of their domain, so that the short number that prints is the very
# number that ran.
RESOLUTION = 2e-4


@dataclass(frozen=True)
class _Interval(Domain):
    """The numbers between two ends; subclasses give the monotone scale on which they are uniform."""

    low: float
    high: float
    num: int | None = field(default=None, kw_only=True)

    kind: ClassVar[type] = float

    def __post_init__(self) -> None:
        for name in ("low", "high", "num"):
            object.__setattr__(self, name, as_python(getattr(self, name)))
        for name in ("low", "high"):
            value = getattr(self, name)
            if not is_number(value):
                remedy = f"Write a number, such as {name}=0.1."
                raise InputError(f"{self._name}.{name}", value, "must be a finite number", remedy)
            self._check_bound(name, value)
        if not math.isfinite(float(self.high) - float(self.low)):
            remedy = "Write two numbers whose difference is a finite float, such as Uniform(-1e6, 1e6)."
            raise InputError(f"{self._name}.high", self.high, "must be nearer to low", remedy)
        if not self.low < self.high:
            allowed = f"must be below high, which is {self.high!r}"
            remedy = f"Swap them, or write the constant {show(self.low)} in place of the domain."
            raise InputError(f"{self._name}.low", self.low, allowed, remedy)
        if self.num is not None and (not isinstance(self.num, int) or isinstance(self.num, bool) or self.num < 1):
            remedy = "Write num=5 for a grid of five values."
            raise InputError(f"{self._name}.num", self.num, "must be a whole number, 1 or more", remedy)
        for name in ("low", "high"):
            object.__setattr__(self, name, self.kind(getattr(self, name)))
        a, b = self._ends()
        if not RESOLUTION * (b - a) > 0:
            allowed = f"must be farther from low, {self.low!r}: nothing lies between them"
            raise InputError(f"{self._name}.high", self.high, allowed, f"Write the constant {show(self.low)} instead.")
        super().__post_init__()

    def _check_bound(self, name: str, value: float) -> None:
        """Raises ``InputError`` unless a finite number can be a bound of this domain."""

    def __str__(self) -> str:
        return f"{self._name}({show(self.low)}, {show(self.high)})"

    def contains(self, value: Any) -> bool:
        return is_number(value) and self.low <= value <= self.high

    def canonical(self, value: Any) -> Any:
        # Within the ends also where the value was a float32 that equals one of them as such.
        return min(max(self.kind(as_python(value)), self.low), self.high)

    def range(self) -> Range | None:
        return Range(self.low, self.high, self.scale)

    def _scale(self, value: float) -> float:
        """Maps a value to the scale on which the domain is uniform."""
        return value

    def _unscale(self, scaled: float) -> float:
        """Inverts ``_scale``."""
        return scaled

    def _ends(self) -> tuple[float, float]:
        """Returns the ends of the domain on its scale."""
        return self._scale(self.low), self._scale(self.high)

    def _digits(self) -> int:
        """Returns how many decimal places, on the scale, tell apart values that differ by the resolution."""
        a, b = self._ends()
        return round(-math.log10(min(RESOLUTION, 0.1 / (self.num or 1)) * (b - a)))

    def _tidy(self, value: float) -> Any:
        """Rounds a value to the resolution."""
        return round(value, self._digits())

    def from_unit(self, u: float) -> Any:
        if u <= 0 or u >= 1:  # an end as it was given, not rounded
            return self.low if u <= 0 else self.high
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
      num: how many values a ``Grid`` takes, evenly spaced with both ends; None for a domain that no grid takes.
      default, static, traced: as for every domain.

    Raises:
      InputError: low ≥ high, a bound that is no finite number, or a default outside the domain.

    Example:
      >>> Uniform(0.5, 0.99, num=3).grid()
      [0.5, 0.745, 0.99]
    """


@dataclass(frozen=True)
class LogUniform(_Interval):
    """A real number whose logarithm is uniform on [log low, log high], such as a learning rate or weight decay.

    Args:
      low: lowest value, above 0.
      high: highest value.
      num, default, static, traced: as for ``Uniform``; a grid is evenly spaced on the logarithmic scale.

    Raises:
      InputError: low ≤ 0, or as for ``Uniform``.

    Example:
      >>> LogUniform(1e-4, 1.0, num=5).grid()
      [0.0001, 0.001, 0.01, 0.1, 1.0]
    """

    scale = "log"

    def _check_bound(self, name: str, value: float) -> None:
        if value <= 0:
            remedy = f"Write {name}=1e-6, or use hpx.Uniform."
            raise InputError(f"{self._name}.{name}", value, "must be above 0 on a logarithmic scale", remedy)

    def _scale(self, value: float) -> float:
        return math.log(value)

    def _unscale(self, scaled: float) -> float:
        return math.exp(scaled)

    def _tidy(self, value: float) -> float:
        return float(f"{value:.{max(self._digits(), 0) + 1}g}")


@dataclass(frozen=True)
class ReverseLogUniform(_Interval):
    """A real number v with log(1 − v) uniform, such as momentum or Adam's β, for which the distance to 1 matters.

    Args:
      low: lowest value.
      high: highest value, below 1.
      num, default, static, traced: as for ``Uniform``; a grid is evenly spaced in log(1 − v).

    Raises:
      InputError: high ≥ 1, or as for ``Uniform``.

    Example:
      >>> ReverseLogUniform(0.9, 0.9999, num=4).grid()
      [0.9, 0.99, 0.999, 0.9999]
    """

    scale = "reverse log"

    def _check_bound(self, name: str, value: float) -> None:
        if value >= 1:
            allowed = "must be below 1: the scale is log(1 - v)"
            raise InputError(f"{self._name}.{name}", value, allowed, f"Write {name}=0.9999, or use hpx.Uniform.")

    def _scale(self, value: float) -> float:
        return -math.log1p(-value)

    def _unscale(self, scaled: float) -> float:
        return -math.expm1(-scaled)

    def _tidy(self, value: float) -> float:
        # The digits that matter are those of 1 − v.
        digits = math.floor(math.log10(max(1 - value, sys.float_info.epsilon)))
        return round(value, max(self._digits(), 0) - digits)


@dataclass(frozen=True)
class Int(_Interval):
    """An integer, uniform on {low, …, high}.

    Args:
      low: lowest value, an int that fits int32.
      high: highest value, likewise.
      num: how many values a ``Grid`` takes, about evenly spaced with both ends; by default all of them.
      default, static, traced: as for every domain.

    Raises:
      InputError: low ≥ high, a bound that is no int32, or a default outside the domain.

    Example:
      >>> Int(1, 4).grid()
      [1, 2, 3, 4]
    """

    low: int
    high: int
    kind = int

    def _check_bound(self, name: str, value: float) -> None:
        if not isinstance(value, int) or abs(value) >= 2**31:
            remedy = f"Write an int, such as {name}=8, or use hpx.Uniform."
            raise InputError(f"{self._name}.{name}", value, "must be an int that int32 holds", remedy)

    def contains(self, value: Any) -> bool:
        return super().contains(value) and int(value) == value

    def values(self) -> Sequence[int]:
        return range(self.low, self.high + 1)

    def _ends(self) -> tuple[float, float]:
        # Half a step beyond each end, so that after rounding the ends are as likely as all others.
        return self._scale(self.low - 0.5), self._scale(self.high + 0.5)

    def _tidy(self, value: float) -> int:
        return round(value)

    def grid(self) -> list[int]:
        if self.num is None:
            return list(self.values())
        a, b = self._scale(self.low), self._scale(self.high)
        steps = np.linspace(a, b, self.num) if self.num > 1 else [(a + b) / 2]
        return sorted({self._tidy(self._unscale(float(s))) for s in steps})


@dataclass(frozen=True)
class LogInt(Int):
    """An integer whose logarithm is uniform, such as a layer size or a batch size.

    Args:
      low: lowest value, an int of 1 or more that fits int32.
      high: highest value, an int that fits int32.
      num, default, static, traced: as for ``Int``; a grid is about evenly spaced on the logarithmic scale.

    Raises:
      InputError: low < 1, or as for ``Int``.

    Example:
      >>> LogInt(16, 256, num=3).grid()
      [16, 64, 256]
    """

    scale = "log"

    def _check_bound(self, name: str, value: float) -> None:
        super()._check_bound(name, value)
        if value < 1:
            remedy = f"Write {name}=1, or use hpx.Int."
            raise InputError(f"{self._name}.{name}", value, "must be 1 or more on a logarithmic scale", remedy)

    def _scale(self, value: float) -> float:
        return math.log(value)

    def _unscale(self, scaled: float) -> float:
        return math.exp(scaled)
