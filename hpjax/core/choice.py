"""Choice: a domain of a few values of any type."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpjax.core.domains import Domain, Kind, Range, Selection, is_number
from hpjax.core.errors import InputError
from hpjax.core.format import show
from hpjax.core.recordable import remedy_for, unrecordable
from hpjax.core.scalars import as_python


@dataclass(frozen=True, init=False)
class Choice(Domain):
    """One of a few values: numbers, strings, callables, or tuples of them.

    Numbers, infinity among them, are traced where the program allows it; of anything else each value gets a program
    of its own.

    Args:
      *options: the values, distinct and hashable; samplers that learn take neighbours in this order for similar.
      default, static, traced: as for every domain.
      select: for functions only: one program serves all, in which each lane computes every option and keeps its own.
        It suits functions that cost little, an activation or an initializer; the plan prints the cost.

    Raises:
      InputError: no options, an option twice, one that cannot be hashed or recorded, such as an integer of more than
        64 bits, or a default that is none of the options.

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
            raise InputError("Choice.options", (), "must not be empty", "Write hpx.Choice(64, 256).")
        options = as_python(options)
        for i, option in enumerate(options):
            try:
                hash(option)
            except TypeError:
                listed = len(options) == 1 and isinstance(option, list)
                remedy = (
                    f"Write Choice({', '.join(map(repr, option))})." if listed else "Write a tuple in place of a list."
                )
                allowed = "must be hashable, since equal values share a program"
                raise InputError("Choice.options", option, allowed, remedy) from None
            if option in options[:i]:
                raise InputError("Choice.options", option, "is given twice", "Name each option once.")
            if option != option:
                raise InputError("Choice.options", option, "must equal itself", "Drop NaN from the options.")
            if why := unrecordable(option):
                raise InputError("Choice.options", option, why, remedy_for(option))
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "default", default)
        object.__setattr__(self, "static", static)
        object.__setattr__(self, "traced", traced)
        object.__setattr__(self, "select", select)
        if select and not all(map(callable, options)):
            raise InputError("Choice.select", True, f"needs functions only, and {self} has others", "Drop select=True.")
        if select and static:
            raise InputError("Choice.select", True, "and static exclude each other", "Drop static=True.")
        self.__post_init__()
        if traced and self.numeric() is None:
            raise InputError("Choice.traced", True, f"needs numbers only, and {self} has others", "Drop traced=True.")

    def numeric(self) -> Kind:
        if self.select:
            return Selection(self.options)
        if all(isinstance(o, bool) for o in self.options):
            return bool
        if not all(is_number(o) or (isinstance(o, float) and math.isinf(o)) for o in self.options):
            return None
        return int if all(isinstance(o, int) and abs(o) < 2**31 for o in self.options) else float

    def range(self) -> Range | None:
        """Returns the range of three numbers or more, else None: of two, each is always at an end."""
        ordered = len(self.options) >= 3 and all(map(is_number, self.options))
        return Range(min(self.options), max(self.options), self.scale) if ordered else None

    def __str__(self) -> str:
        return f"Choice({', '.join(map(show, self.options))})"

    def contains(self, value: Any) -> bool:
        return self._find(value) is not None

    def canonical(self, value: Any) -> Any:
        return self.options[self.index(value)]

    def values(self) -> Sequence[Any]:
        return self.options

    def index(self, value: Any) -> int:
        """Returns the position of the option that equals a value in the domain."""
        found = self._find(value)
        assert found is not None, f"{value!r} is no option"
        return found

    def _find(self, value: Any) -> int | None:
        """Returns the position of the option that equals ``value``, None where there is none."""
        try:
            # The value first: a float32 equals the decimal that it was rounded from.
            found = (i for each in (value, as_python(value)) for i, o in enumerate(self.options) if each == o)
            return next(found, None)
        except (TypeError, ValueError):  # an array of several numbers is neither equal nor not
            return None

    def from_unit(self, u: float) -> Any:
        return self.options[min(int(float(u) * len(self.options)), len(self.options) - 1)]

    def to_unit(self, value: Any) -> float:
        return (self.index(value) + 0.5) / len(self.options)

    def grid(self) -> list[Any]:
        return list(self.options)


class Constant(Choice):
    """A value that every trial has; a bare value in a ``Space`` becomes one."""

    @property
    def value(self) -> Any:
        """The value."""
        return self.options[0]

    def __str__(self) -> str:
        return show(self.value)
