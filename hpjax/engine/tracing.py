"""Traced or static? Found out by tracing the program abstractly, one hyperparameter at a time."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core import user_code
from hpjax.core.domains import Kind, Selection
from hpjax.core.errors import InputError, ProgramError, UnknownHyperparameterError
from hpjax.core.hparams import Hparams, Selected, reading, with_fold
from hpjax.core.program import Arrays, Program
from hpjax.core.space import Point, Space
from hpjax.engine.probe import trace_program
from hpjax.engine.shapes import ProgramShapes, float_type


class Verdict(NamedTuple):
    """Whether one hyperparameter is traced, and why (not)."""

    name: str
    traced: bool
    reason: str


class Tracer(NamedTuple):
    """What abstract tracing needs to know of a sweep.

    Attributes:
      program: the program.
      kinds: name to the kind of number that its values are, None where they are no numbers.
      train, valid: shapes of the splits.
      folds: how many folds there are, None for none.
    """

    program: Program
    kinds: Mapping[str, Kind]
    train: Arrays
    valid: Arrays
    folds: int | None = None

    def hparams(self, point: Point, traced: Iterable[str]) -> Hparams:
        """``point`` with the shapes of arrays in place of its traced values."""
        names = [name for name in traced if name in point]
        shapes = {n: leaf(self.kinds[n], jax.ShapeDtypeStruct((), dtype(self.kinds[n]))) for n in names}
        h = Hparams({**point, **shapes}, names)
        return h if self.folds is None else with_fold(h, jax.ShapeDtypeStruct((), jnp.int32), self.folds)

    def shapes(self, point: Point, traced: Iterable[str]) -> ProgramShapes:
        """What the program gives where the hyperparameters ``traced`` are tracers."""
        return trace_program(self.program, self.hparams(point, traced), self.train, self.valid)


def dtype(kind: Kind) -> Any:
    """The dtype of a traced hyperparameter of that kind."""
    assert kind is not None, "only numbers can be traced"
    return float_type() if kind is float else jnp.bool_ if kind is bool else jnp.int32


def leaf(kind: Kind, array: Any) -> Any:
    """What stands for a traced hyperparameter in ``Hparams``: an array, or a choice by an array of indices."""
    return Selected(array, kind.options) if isinstance(kind, Selection) else array


def numbers(kind: Kind, values: Sequence[Any]) -> Any:
    """Values of a traced hyperparameter as a leaf of shape (values,)."""
    found = [kind.options.index(value) for value in values] if isinstance(kind, Selection) else values
    return leaf(kind, np.array(found, dtype(kind)))


def stack_hparams(kinds: Mapping[str, Kind], points: Sequence[Point], traced: Iterable[str]) -> Hparams:
    """Points of one group as one ``Hparams``, whose leaves have shape (points,)."""
    own = {n: numbers(kinds[n], [point[n] for point in points]) for n in traced if n in points[0]}
    return Hparams({**points[0], **own}, own)


def lane_hparams(kinds: Mapping[str, Kind], point: Point, traced: Iterable[str]) -> Hparams:
    """One point as its lane has it; leaves have shape ()."""
    h: Hparams = jax.tree.map(lambda array: array[0], stack_hparams(kinds, [point], traced))
    return h


def shapes_of(tree: Any) -> Any:
    """Shapes and dtypes of a pytree of arrays, on the host or not."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)


def judge(tracer: Tracer, space: Space, points: Sequence[Point]) -> dict[str, Verdict]:
    """A verdict for every hyperparameter, from one representative point of each alternative of the space.

    Raises:
      InputError: ``traced=True`` for one that cannot be.
      ProgramError: the program does not trace even with plain numbers.
    """
    verdicts = {name: _declared(space, name, tracer.kinds[name]) for name in space.names}
    for point in points:
        while resolve_traced(tracer, space, point, verdicts) is None:
            pass
    return verdicts


def resolve_traced(tracer: Tracer, space: Space, point: Point, verdicts: dict[str, Verdict]) -> ProgramShapes | None:
    """What the program gives at ``point``; None where a verdict did not hold there and was turned into a static one.

    Raises: as ``judge``.
    """
    candidates = [name for name in point if verdicts[name].traced]
    try:
        return tracer.shapes(point, candidates)
    except Exception as error:
        if not candidates:
            raise blamed(error) from None
    try:
        tracer.shapes(point, ())
    except Exception as error:
        raise blamed(error) from None
    accepted: list[str] = []
    for name in candidates:
        failure = _failure(tracer, point, [*accepted, name], name)
        if failure is None:
            accepted.append(name)
            continue
        insists = "select" if isinstance(tracer.kinds[name], Selection) else "traced"
        if insists == "select" or any(domain.traced for domain in space.domains(name)):
            raise InputError(
                f"Space.{name}.{insists}",
                True,
                f"cannot be: its value is needed while the program is traced, {failure}",
                f"Drop {insists}=True; each value then has a program of its own.",
            )
        verdicts[name] = Verdict(name, False, failure)
    return None


def blamed(error: Exception) -> Exception:
    """The error as users should see it: our own as it is, any other with its place in their code."""
    if isinstance(error, InputError | ProgramError | UnknownHyperparameterError):
        return error
    notes = getattr(error, "__notes__", [])
    where = "".join(f"\n  {line}" for line in user_code.user_lines(error))
    return ProgramError(f"{notes[0] if notes else 'the program'} fails:{where}\n  {user_code.first_line(error)}")


def _declared(space: Space, name: str, kind: Kind) -> Verdict:
    if kind is None:
        return Verdict(name, False, "values are no numbers")
    if any(domain.static for domain in space.domains(name)):
        return Verdict(name, False, "static=True")
    if isinstance(kind, Selection):
        return Verdict(name, True, f"one program computes all {len(kind.options)} and selects")
    return Verdict(name, True, "one program serves all values")


def _failure(tracer: Tracer, point: Point, traced: Sequence[str], name: str) -> str | None:
    """Why the program cannot be traced with these as tracers, the last being new, or None where it can."""
    with reading() as read:
        try:
            tracer.shapes(point, traced)
        except (InputError, ProgramError) as error:
            place = user_code.own_line(read.get(name))
            return f"{place}: {error}" if place else str(error)
        except Exception as error:
            # A library may fail long after the user's line that gave it the hyperparameter: where that was read.
            return user_code.model_line(error, read.get(name)) or user_code.first_line(error)
    return None
