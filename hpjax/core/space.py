"""The space: the named domains of the hyperparameters, alternatives among them, and its map to the unit cube."""

import keyword
import math
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from hpjax.core import html
from hpjax.core.choice import Choice, Constant
from hpjax.core.domains import Domain, Kind, Selection
from hpjax.core.errors import InputError, did_you_mean
from hpjax.core.format import show
from hpjax.core.recordable import remedy_for, unrecordable
from hpjax.core.records import OptionRecords
from hpjax.core.scalars import as_python

Point = dict[str, Any]
Unit = np.typing.NDArray[np.float64]

# What a result table has beside hyperparameters and metrics; the names of metrics have a slash.
COLUMNS = frozenset({"trial", "gap", "round", "group", "status", "step"})
# What a lane has beside its hyperparameters: its replicate, and with cross-validation ``h.fold`` and ``h.folds``.
OF_LANES = frozenset({"replicate", "fold", "folds"})
# What ``Hparams`` has of its own, for ``dict(h)``.
OF_HPARAMS = frozenset({"keys"})
# A hyperparameter of such a name would hide one of these, or be hidden.
RESERVED = COLUMNS | OF_LANES | OF_HPARAMS

Branch = Mapping[str, Domain]

# Up to so many points, those that several alternatives share are found by listing all of them.
LISTED = 100_000


def point_key(point: Mapping[str, Any]) -> Hashable:
    """Returns something hashable that is equal for equal points, and only for these: True is not 1."""
    return tuple((name, type(point[name]), point[name]) for name in sorted(point))


class Space:
    """The named domains of the hyperparameters; ``|`` joins alternatives, ``&`` adds names to each.

    A value that is no domain is a constant. A union of spaces makes hyperparameters conditional: each trial has the
    names of one alternative.

    Args:
      **domains: a domain or a constant for each name; a name must be a Python identifier that is not reserved.

    Raises:
      InputError: a name that cannot be used, no name at all, or a value that cannot be a constant.

    Example:
      >>> sgd = hpx.Space(optimizer="sgd", momentum=hpx.ReverseLogUniform(0.5, 0.99))
      >>> adamw = hpx.Space(optimizer="adamw", b2=hpx.ReverseLogUniform(0.9, 0.9999))
      >>> space = hpx.Space(learning_rate=hpx.LogUniform(1e-4, 1.0, default=0.1)) & (sgd | adamw)
      >>> space.names
      ('learning_rate', 'optimizer', 'momentum', 'b2')
    """

    def __init__(self, /, **domains: Any) -> None:
        if not domains:
            raise InputError(
                "Space",
                {},
                "must name at least one hyperparameter",
                "Write Space(learning_rate=LogUniform(1e-4, 1.0)).",
            )
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
                raise InputError("Space", name, "is named on both sides of &", f"Remove {name} from one side.")
        return Space._of([{**a, **b} for a in self.branches for b in other.branches])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.branches == other.branches

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        """Returns what is pickled: without what was computed of it, so that its pickle stays the same as it is used."""
        return {"branches": self.branches}

    def __repr__(self) -> str:
        return " | ".join(f"Space({', '.join(f'{n}={d}' for n, d in b.items())})" for b in self.branches)

    def _repr_html_(self) -> str:
        rows = [[name, str(domain), domain.scale] for branch in self.branches for name, domain in branch.items()]
        note = "" if len(self.branches) == 1 else f"{len(self.branches)} alternatives, one below the other"
        return html.table(["hyperparameter", "domain", "scale"], rows, note)

    def scale(self, name: str) -> str:
        """Returns the scale of an axis for ``name``: ``"linear"``, ``"log"``, ``"reverse log"`` or ``"category"``."""
        return self.domains(name)[0].scale

    @property
    def names(self) -> tuple[str, ...]:
        """Every hyperparameter of every alternative, in the order of first mention."""
        return tuple(dict.fromkeys(name for branch in self.branches for name in branch))

    @property
    def dimensions(self) -> tuple[str | None, ...]:
        """The hyperparameter of each axis of the unit cube; None stands for the choice of the alternative.

        A name that several alternatives share has one axis; constants have none.
        """
        free = (n for n in self.names if any(not isinstance(b.get(n, _NOTHING), Constant) for b in self.branches))
        return (*((None,) if len(self.branches) > 1 else ()), *free)

    def domains(self, name: str) -> list[Domain]:
        """Returns the domains of ``name``, one for each alternative that has it."""
        return [branch[name] for branch in self.branches if name in branch]

    @cached_property
    def _records(self) -> dict[str, OptionRecords]:
        """Per hyperparameter, what stands for its options in records."""
        choices = {name: [d for d in self.domains(name) if isinstance(d, Choice)] for name in self.names}
        return {name: OptionRecords(o for d in found for o in d.options) for name, found in choices.items()}

    def recorded(self, point: Mapping[str, Any]) -> Point:
        """Returns hyperparameters as JSON has them: options that JSON lacks as texts, each option as another one."""
        return {name: self._records[name].of(value) for name, value in point.items()}

    def recalled(self, record: Mapping[str, Any]) -> Point:
        """Returns the hyperparameters that ``recorded`` wrote so."""
        return {name: self._records[name].option(value) for name, value in record.items()}

    def kind(self, name: str) -> Kind:
        """Returns the type of number that can hold every value of ``name``, or None where some are no numbers."""
        kinds = [domain.numeric() for domain in self.domains(name)]
        selections = [kind.options for kind in kinds if isinstance(kind, Selection)]
        if len(selections) == len(kinds):
            return Selection(tuple(dict.fromkeys(option for options in selections for option in options)))
        if selections or None in kinds or (bool in kinds and set(kinds) != {bool}):
            return None
        return kinds[0] if len(set(kinds)) == 1 else float

    def from_unit(self, u: Sequence[float] | Unit) -> Point:
        """Returns the point at ``u``, float (len(dimensions),), each coordinate in [0, 1]."""
        place = dict(zip(self.dimensions, u, strict=True))
        branch = self.branches[min(int(place.get(None, 0.0) * len(self.branches)), len(self.branches) - 1)]
        return {name: domain.from_unit(place.get(name, 0.5)) for name, domain in branch.items()}

    def to_unit(self, point: Point) -> Unit:
        """Returns the coordinates of ``point``, float64 (len(dimensions),) in [0, 1]; 0.5 for names that it lacks."""
        index = self.branch_of(point)
        branch = self.branches[index]
        return np.array(
            [
                (index + 0.5) / len(self.branches) if name is None else
                branch[name].to_unit(point[name]) if name in branch else 0.5
                for name in self.dimensions
            ]
        )  # fmt: skip

    def canonical(self, point: Point) -> Point:
        """Returns a point with the domains' own values in place of equal ones, such as 8 for 8.0.

        Raises:
          InputError: as for ``branch_of``.
        """
        branch = self.branches[self.branch_of(point)]
        return {name: branch[name].canonical(value) for name, value in point.items()}

    def branch_of(self, point: Point) -> int:
        """Returns the number of the alternative that ``point`` belongs to, from 0.

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
            raise InputError("point", point, f"must name exactly {need}", _missing(point, self.branches))
        name, domain = next((n, d) for n, d in self.branches[fitting[0]].items() if not d.contains(point[n]))
        raise InputError(
            f"point[{name!r}]",
            point[name],
            f"must lie in {domain}",
            f"Write {name}={show(domain.baseline)}, or widen it.",
        )

    def baseline(self) -> Point | None:
        """Returns the point of the defaults, or None where no domain has a default.

        The point is of the first alternative that has a default; its other hyperparameters take the middle of their
        domains.
        """
        for branch in self.branches:
            if any(domain.default is not None for domain in branch.values()):
                return {name: domain.baseline for name, domain in branch.items()}
        return None

    @cached_property
    def size(self) -> int | None:
        """How many points the space has, None where a domain is continuous."""
        values = [[domain.values() for domain in branch.values()] for branch in self.branches]
        if any(each is None for own in values for each in own):
            return None
        total = sum(math.prod(len(each) for each in own if each is not None) for own in values)
        names = [frozenset(branch) for branch in self.branches]
        overlap = len(set(names)) < len(names) and total <= LISTED
        return len({point_key(point) for point in self.points()}) if overlap else total

    def points(self) -> Iterator[Point]:
        """Yields every point of a finite space, the last name varying fastest; one of two alternatives comes twice."""
        for branch in self.branches:
            yield from _product(branch, [domain.values() or () for domain in branch.values()])

    def grid(self) -> Iterator[Point]:
        """Yields every point of the grid, the last name varying fastest.

        Raises:
          InputError: a continuous domain without ``num``.
        """
        for branch in self.branches:
            axes = []
            for name, domain in branch.items():
                values = domain.grid()
                if values is None:
                    raise InputError(
                        f"Space.{name}",
                        str(domain),
                        "is continuous and has no num",
                        f"Write num=5 in the domain of {name}, or Sweep(..., sampler=Sobol()).",
                    )
                axes.append(values)
            yield from _product(branch, axes)


def _product(names: Iterable[str], axes: Sequence[Sequence[Any]]) -> Iterator[Point]:
    """Yields every combination of the values along the axes, the last one varying fastest."""
    for index in np.ndindex(*map(len, axes)):
        yield {name: axis[i] for name, axis, i in zip(names, axes, index, strict=True)}


# The domain of a name that an alternative lacks: like a constant it has no axis.
_NOTHING = Constant(None)


def _missing(point: Point, branches: Sequence[Branch]) -> str:
    """Returns what to add to ``point`` and what to remove so that it fits the alternative with the nearest names."""
    branch = min(branches, key=lambda branch: len(branch.keys() ^ point.keys()))
    missing = [f"{name}={show(domain.baseline)}" for name, domain in branch.items() if name not in point]
    extra = [name for name in point if name not in branch]
    changes = [f"Add {', '.join(missing)}."] * bool(missing) + [f"Remove {', '.join(extra)}."] * bool(extra)
    return " ".join(changes)


def _constant(name: str, value: Any) -> Constant:
    if isinstance(value, type) and issubclass(value, Domain):
        raise InputError(f"Space.{name}", value, "is a class of domains, not a domain", f"Write {value.__name__}(...).")
    value = as_python(value)
    if value != value:
        raise InputError(f"Space.{name}", value, "must equal itself", f"Write {name}=None for a value that is missing.")
    try:
        hash(value)
    except TypeError:
        raise InputError(
            f"Space.{name}",
            value,
            "must be a domain or a hashable constant",
            f"Write {name}=Choice(first, second), or a tuple for a list.",
        ) from None
    if why := unrecordable(value):
        raise InputError(f"Space.{name}", value, why, remedy_for(value))
    return Constant(value)


def _check_name(name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise InputError(
            "Space",
            name,
            "must be a Python identifier that does not start with _",
            "Write a name such as learning_rate.",
        )
    if unicodedata.normalize("NFKC", name) != name:
        remedy = f"Write {unicodedata.normalize('NFKC', name)}."
        raise InputError("Space", name, "must be written as Python reads h.name, which it normalizes", remedy)
    if name in RESERVED:
        allowed = "is a column of result tables" if name in COLUMNS else "is what hpjax calls a property of every lane"
        allowed = "is what dict(h) calls" if name in OF_HPARAMS else allowed
        raise InputError("Space", name, allowed, f"Write {name}_0=... instead.")
