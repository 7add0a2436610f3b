"""The space: the named domains of the hyperparameters, each mapped to the unit interval and back."""

import keyword
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np

from hpjax.errors import InputError, did_you_mean

Point = dict[str, Any]
Unit = np.typing.NDArray[np.float64]

# Columns that every result table has; a hyperparameter of the same name would hide one.
RESERVED = frozenset({"trial", "replicate", "group", "round", "status", "step"})

# Sampled numbers are rounded to about this share of their domain, so that what prints, short, is what ran.
RESOLUTION = 2e-4


def show(value: object) -> str:
    """A value as a person would write it: ``0.0003``, ``1e-5``, ``256``, ``relu``, ``adamw``."""
    if isinstance(value, float | np.floating):
        number = float(value)
        if number.is_integer() and abs(number) < 1e16:
            return str(int(number))
        mantissa, e, exponent = repr(number).partition("e")
        return f"{mantissa}e{int(exponent)}" if e else mantissa
    if isinstance(value, tuple):
        return f"({', '.join(map(show, value))}{',' * (len(value) == 1)})"
    if callable(value):
        return str(getattr(value, "__name__", type(value).__name__))
    return str(value)


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
    kind: ClassVar[type | None] = float

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

    def numeric(self) -> type | None:
        """``float``, ``int`` or ``bool`` where the values are numbers of that kind, else None."""
        return self.kind

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

    Numbers are traced where the program allows it; anything else gives each value a program of its own.

    Args:
      *options: the values, distinct and hashable, in the order that neighbours should have.
      default, static, traced: as for every domain.

    Raises:
      InputError: no options, an option twice, one that cannot be hashed, or a default that is none of them.

    Example:
      >>> Choice(64, 256).from_unit(0.7)
      256
    """

    options: tuple[Any, ...]

    def __init__(self, *options: Any, default: Any = None, static: bool = False, traced: bool = False) -> None:
        if not options:
            raise InputError("Choice.options", (), "must not be empty", "Name at least one option.")
        options = tuple(o.item() if isinstance(o, np.generic) else o for o in options)
        for i, option in enumerate(options):
            try:
                hash(option)
            except TypeError:
                raise InputError(
                    "Choice.options", option, "must be hashable, since equal values share a program", "Use a tuple."
                ) from None
            if option in options[:i]:
                raise InputError("Choice.options", option, "stands there twice", "Name each option once.")
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "default", default)
        object.__setattr__(self, "static", static)
        object.__setattr__(self, "traced", traced)
        self.__post_init__()
        if default is not None:
            object.__setattr__(self, "default", options[options.index(default)])
        if traced and self.numeric() is None:
            raise InputError("Choice.traced", True, f"needs numbers, and {self} has others", "Drop traced=True.")

    def numeric(self) -> type | None:
        if all(isinstance(o, bool | np.bool_) for o in self.options):
            return bool
        if not all(_number(o) for o in self.options):
            return None
        return int if all(isinstance(o, int) and abs(o) < 2**31 for o in self.options) else float

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


Branch = Mapping[str, Domain]


class Space:
    """The named domains of the hyperparameters; ``|`` joins alternatives, ``&`` adds names to each.

    A value that is no domain is a constant. A union of spaces makes hyperparameters conditional: each
    trial has the names of one alternative.

    Args:
      **domains: name to domain or constant; a name must be a Python identifier that is not reserved.

    Raises:
      InputError: a name that cannot be used, or no name at all.

    Example:
      >>> sgd = Space(optimizer="sgd", momentum=ReverseLogUniform(0.5, 0.99))
      >>> adamw = Space(optimizer="adamw", b2=ReverseLogUniform(0.9, 0.9999))
      >>> space = Space(learning_rate=LogUniform(1e-4, 1.0, default=0.1)) & (sgd | adamw)
      >>> space.names
      ('learning_rate', 'optimizer', 'momentum', 'b2')
    """

    def __init__(self, /, **domains: Any) -> None:
        if not domains:
            raise InputError("Space", {}, "must name at least one hyperparameter", "Space(learning_rate=...).")
        for name in domains:
            _check_name(name)
        self.branches: tuple[Branch, ...] = (
            {name: d if isinstance(d, Domain) else _constant(name, d) for name, d in domains.items()},
        )

    @classmethod
    def _of(cls, branches: Sequence[Branch]) -> "Space":
        space = cls.__new__(cls)
        space.branches = tuple(branches)
        return space

    def __or__(self, other: "Space") -> "Space":
        if not isinstance(other, Space):
            return NotImplemented
        return Space._of([*self.branches, *other.branches])

    def __and__(self, other: "Space") -> "Space":
        if not isinstance(other, Space):
            return NotImplemented
        for name in self.names:
            if name in other.names:
                raise InputError("Space", name, "stands on both sides of &", "Name each hyperparameter on one side.")
        return Space._of([{**a, **b} for a in self.branches for b in other.branches])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.branches == other.branches

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return " | ".join(f"Space({', '.join(f'{n}={d}' for n, d in b.items())})" for b in self.branches)

    def scale(self, name: str) -> str:
        """``"linear"``, ``"log"``, ``"reverse log"`` or ``"category"``: how an axis of ``name`` is best drawn."""
        domain = self.domains(name)[0]
        if isinstance(domain, Choice):
            return "category"
        return (
            "log"
            if isinstance(domain, LogUniform | LogInt)
            else ("reverse log" if isinstance(domain, ReverseLogUniform) else "linear")
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Every hyperparameter of every alternative, in the order of first mention."""
        return tuple(dict.fromkeys(name for branch in self.branches for name in branch))

    @property
    def dimensions(self) -> tuple[str | None, ...]:
        """What each axis of the unit cube stands for; None is the choice of the alternative.

        A name that several alternatives share has one axis; constants have none.
        """
        free = (n for n in self.names if any(not isinstance(b.get(n, _NOTHING), Constant) for b in self.branches))
        return (*((None,) if len(self.branches) > 1 else ()), *free)

    def domains(self, name: str) -> list[Domain]:
        """The domains that the alternatives give to ``name``."""
        return [branch[name] for branch in self.branches if name in branch]

    def kind(self, name: str) -> type | None:
        """The kind of number that holds every value of ``name``, or None where some are no numbers."""
        kinds = [domain.numeric() for domain in self.domains(name)]
        if None in kinds or (bool in kinds and set(kinds) != {bool}):
            return None
        return cast(type, kinds[0] if len(set(kinds)) == 1 else float)

    def from_unit(self, u: Sequence[float] | Unit) -> Point:
        """The point at ``u``, of shape (len(dimensions),), each coordinate in [0, 1]."""
        place = dict(zip(self.dimensions, u, strict=True))
        branch = self.branches[min(int(place.get(None, 0.0) * len(self.branches)), len(self.branches) - 1)]
        return {name: domain.from_unit(place.get(name, 0.5)) for name, domain in branch.items()}

    def to_unit(self, point: Point) -> Unit:
        """The place of ``point`` in the unit cube; names that it lacks stand at 0.5."""
        index = self.branch_of(point)
        branch = self.branches[index]
        return np.array(
            [
                (index + 0.5) / len(self.branches) if name is None else
                branch[name].to_unit(point[name]) if name in branch else 0.5
                for name in self.dimensions
            ]
        )  # fmt: skip

    def branch_of(self, point: Point) -> int:
        """The number of the alternative that ``point`` belongs to.

        Raises:
          InputError: an unknown or missing name, or a value outside its domain.
        """
        for name in point:
            if name not in self.names:
                raise InputError("point", name, "is no hyperparameter of the space", did_you_mean(name, self.names))
        fitting = [i for i, branch in enumerate(self.branches) if branch.keys() == point.keys()]
        for i in fitting:
            if all(domain.contains(point[name]) for name, domain in self.branches[i].items()):
                return i
        if not fitting:
            need = " or ".join(f"({', '.join(branch)})" for branch in self.branches)
            raise InputError("point", point, f"must name exactly {need}", "Add what is missing, drop the rest.")
        name, domain = next((n, d) for n, d in self.branches[fitting[0]].items() if not d.contains(point[n]))
        raise InputError(f"point[{name!r}]", point[name], f"must lie in {domain}", "Move it or widen the domain.")

    def baseline(self) -> Point | None:
        """The point of the defaults, of the first alternative that names one; None where none does.

        Hyperparameters of that alternative without a default stand in the middle of their domains.
        """
        for branch in self.branches:
            if any(domain.default is not None for domain in branch.values()):
                return {name: domain.baseline for name, domain in branch.items()}
        return None

    def grid(self) -> Iterator[Point]:
        """Every point of the grid, the last name varying fastest.

        Raises:
          InputError: a continuous domain without ``num``.
        """
        for branch in self.branches:
            axes = []
            for name, domain in branch.items():
                values = domain.grid()
                if values is None:
                    raise InputError(
                        f"Space.{name}", domain, "is continuous and has no num", "Write num=5, or sample with Sobol()."
                    )
                axes.append(values)
            for index in np.ndindex(*(len(axis) for axis in axes)):
                yield {name: axis[i] for name, axis, i in zip(branch, axes, index, strict=True)}


_NOTHING = Constant(None)


def _constant(name: str, value: Any) -> Constant:
    if isinstance(value, type) and issubclass(value, Domain):
        raise InputError(f"Space.{name}", value, "is a kind of domain, not one", f"Write {value.__name__}(...).")
    if getattr(value, "shape", None) == ():
        value = value.item()  # a NumPy or JAX number
    try:
        hash(value)
    except TypeError:
        raise InputError(
            f"Space.{name}", value, "must be a domain or a hashable constant", "For a choice write Choice(a, b, ...)."
        ) from None
    return Constant(value)


def _check_name(name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise InputError(
            "Space", name, "must be a Python identifier that does not start with _", "Rename it: h.name must read well."
        )
    if name in RESERVED:
        raise InputError("Space", name, "is a column that every result table has", f"Rename it, for example {name}_0.")
