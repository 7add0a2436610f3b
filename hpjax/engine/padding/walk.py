"""Evaluates several jaxprs, which differ in sizes and constants only, as one: the padded one of all.

It relies on, as they are in jax 0.10.2 (the oldest that hpjax takes) to 0.12: ``jax.extend.core``, ``Primitive.bind``
as the JAX documentation uses it in interpreters of jaxprs, and the names and parameters of primitives. Fallback: what
is not known here raises ``NotPaddableError``, and each program stays one of its own.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from hpjax.engine.padding.values import Fill, NotPaddableError, Padded, Sizes, varies

# Constants that differ are stacked, one for each program, up to so many numbers each.
SMALL = 4096


class Equation(NamedTuple):
    """One operation of several programs.

    Attributes:
      primitive: the primitive.
      params: its parameters in each program.
      given: its operands.
      sizes: for each of its results the sizes of each axis.
      dtypes: for each of its results the dtype.
      program: the number of the program that is evaluated, int32 ().
    """

    primitive: Any
    params: tuple[dict[str, Any], ...]
    given: list[Padded]
    sizes: list[tuple[Sizes, ...]]
    dtypes: list[Any]
    program: Any

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return str(self.primitive.name)

    @property
    def padded(self) -> bool:
        """Whether an operand or a result has padding."""
        return any(x.padded for x in self.given) or any(varies(axis) for sizes in self.sizes for axis in sizes)

    def param(self, name: str) -> Any:
        """Returns a parameter that is the same in each program."""
        return self.same((name,))[name]

    def same(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns parameters that are the same in each program.

        Raises:
          NotPaddableError: they are not.
        """
        for name in names:
            for other in self.params[1:]:
                if not _equal(self.params[0][name], other[name]):
                    raise NotPaddableError(f"{self.name} has another {name}")
        return {name: self.params[0][name] for name in names}

    def bind(self, *arrays: Any, besides: Sequence[str] = (), **changed: Any) -> list[Any]:
        """Returns what the primitive gives for arrays, with its parameters as they are in each program.

        Args:
          arrays: the operands.
          besides: parameters that may differ between programs, such as functions.
          changed: parameters with other values.

        Raises:
          NotPaddableError: the other parameters are not the same in each program.
        """
        own = [name for name in self.params[0] if name not in changed and name not in besides]
        params = self.params[0] | self.same(own) | changed
        found = self.primitive.bind(*arrays, **params)
        return list(found) if self.primitive.multiple_results else [found]


Rule = Callable[[Equation], list[Padded]]


def evaluate(
    jaxprs: Sequence[core.ClosedJaxpr], given: Sequence[Padded], program: Any, rule_of: Callable[[Equation], Rule]
) -> list[Padded]:
    """Returns what several jaxprs give, as one.

    Args:
      jaxprs: the jaxpr of each program.
      given: the arguments.
      program: the number of the program whose results are wanted, int32 ().
      rule_of: returns what evaluates an operation.

    Raises:
      NotPaddableError: the jaxprs differ in more than sizes and constants, or in an operation that is not known.
    """
    bodies = [closed.jaxpr for closed in jaxprs]
    if len({len(body.eqns) for body in bodies}) > 1:
        raise NotPaddableError("they have different operations")
    numbers, values = [_Numbers() for _ in bodies], dict[int, Padded]()

    def define(variables: Sequence[Any], found: Sequence[Padded]) -> None:
        for each, value in zip(zip(*variables, strict=True), found, strict=True):
            values[_one({own.of(variable) for own, variable in zip(numbers, each, strict=True)})] = value

    def value(atoms: Sequence[Any]) -> Padded:
        if any(isinstance(atom, core.Literal) for atom in atoms):
            return constant([_literal(atom) for atom in atoms], program)
        return values[_one({own.of(atom) for own, atom in zip(numbers, atoms, strict=True)})]

    consts = [constant(each, program) for each in zip(*(closed.consts for closed in jaxprs), strict=True)]
    define([body.constvars for body in bodies], consts)
    define([body.invars for body in bodies], given)
    for each in zip(*(body.eqns for body in bodies), strict=True):
        _one({equation.primitive.name for equation in each})
        equation = Equation(
            each[0].primitive,
            tuple(own.params for own in each),
            [value(atoms) for atoms in _zipped([own.invars for own in each])],
            [sizes_of([v.aval for v in variables]) for variables in _zipped([own.outvars for own in each])],
            [v.aval.dtype for v in each[0].outvars],
            program,
        )
        define([own.outvars for own in each], _settled(equation, rule_of(equation)(equation)))
    return [value(atoms) for atoms in _zipped([body.outvars for body in bodies])]


def _settled(equation: Equation, found: Sequence[Padded]) -> list[Padded]:
    """Returns the results of an operation; of those without padding it is not said that they are one number.

    A number that fills the padding of an operand is none that a result without padding has.
    """
    if not any(x.padded for x in equation.given):
        return list(found)
    return [x if x.padded else x._replace(fill=Fill.COPIES) for x in found]


class _Numbers:
    """Numbers for the variables of a jaxpr, in the order in which they are met: the same in jaxprs that are alike."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}
        self._next = count()

    def of(self, variable: Any) -> int:
        """Returns the number of a variable."""
        if variable not in self._known:
            self._known[variable] = next(self._next)
        return self._known[variable]


def sizes_of(avals: Sequence[Any]) -> tuple[Sizes, ...]:
    """Returns the sizes of each axis of arrays, of which there is one in each program.

    Raises:
      NotPaddableError: they have different dtypes, or numbers of axes.
    """
    if len({(len(aval.shape), str(aval.dtype)) for aval in avals}) > 1:
        raise NotPaddableError(f"arrays are {' and '.join(dict.fromkeys(aval.str_short() for aval in avals))}")
    return tuple(zip(*(aval.shape for aval in avals), strict=True))


def constant(arrays: Sequence[Any], program: Any) -> Padded:
    """Returns an array that programs close over, or write as a number.

    Raises:
      NotPaddableError: they are of different shapes, or large and different.
    """
    first = arrays[0]
    sizes = sizes_of([jax.typeof(array) for array in arrays])
    if any(map(varies, sizes)):
        raise NotPaddableError(f"arrays that they close over have shapes {', '.join(str(x.shape) for x in arrays)}")
    if all(array is first for array in arrays):
        return Padded(first, sizes, _number(first))
    if isinstance(first, jax.core.Tracer) or jnp.size(first) > SMALL:
        raise NotPaddableError("they close over different arrays")
    hosted = [np.asarray(array) for array in arrays]
    if all(_equal(hosted[0], array) for array in hosted):
        return Padded(first, sizes, _number(first))
    return Padded(jnp.asarray(np.stack(hosted))[program], sizes)


def _number(array: Any) -> Any:
    """Returns the number that a constant is, if it is one."""
    one = isinstance(array, np.ndarray | np.generic) and array.ndim == 0 and array == array
    return array.item() if one else Fill.COPIES


def _literal(atom: Any) -> Any:
    if not isinstance(atom, core.Literal):
        raise NotPaddableError("a number is computed in some only")
    aval: Any = atom.aval
    return np.asarray(atom.val, aval.dtype)


def _zipped(columns: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    if len({len(column) for column in columns}) > 1:
        raise NotPaddableError("operations have different operands")
    return list(zip(*columns, strict=True))


def _one(found: set[Any]) -> Any:
    if len(found) > 1:
        raise NotPaddableError(f"they have different operations: {', '.join(sorted(map(str, found)))}")
    return found.pop()


def _equal(one: Any, other: Any) -> bool:
    """Returns whether two parameters are the same."""
    if one is other:
        return True
    try:
        if isinstance(one, np.ndarray | jax.Array):
            return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))
        return bool(one == other) or (one != one and other != other)
    except Exception:  # whatever the equality of a parameter raises
        return False


def unpadded(equation: Equation) -> list[Padded]:
    """Evaluates an operation without padding as it is."""
    found = equation.bind(*(x.array for x in equation.given))
    return [Padded(array, sizes) for array, sizes in zip(found, equation.sizes, strict=True)]
