"""Decides which hyperparameters are traced and which are static, by tracing the program abstractly."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core import user_code
from hpjax.core.domains import Kind, Selection
from hpjax.core.errors import InputError, ProgramError, UnknownHyperparameterError, name_of
from hpjax.core.hparams import Hparams, Selected, reading, with_fold
from hpjax.core.program import Arrays, Program
from hpjax.core.space import Point, Space
from hpjax.engine.probe import trace_program
from hpjax.engine.shapes import ProgramShapes, float_type


class Verdict(NamedTuple):
    """The decision on one hyperparameter.

    Attributes:
      name: the name of the hyperparameter.
      traced: whether it is traced; else it is static.
      reason: why, in words that the plan prints.
    """

    name: str
    traced: bool
    reason: str


class Tracer(NamedTuple):
    """The parts of a sweep that abstract tracing needs.

    Attributes:
      program: the program.
      kinds: hyperparameter to the kind of its values, None where they are no numbers.
      train, valid: ``ShapeDtypeStruct``s of the splits.
      folds: how many folds there are, None for none.
    """

    program: Program
    kinds: Mapping[str, Kind]
    train: Arrays
    valid: Arrays
    folds: int | None = None

    def hparams(self, point: Point, traced: Iterable[str]) -> Hparams:
        """Returns ``point`` with ``ShapeDtypeStruct``s, (), in place of its traced values."""
        names = [name for name in traced if name in point]
        shapes = {n: leaf(self.kinds[n], jax.ShapeDtypeStruct((), dtype(self.kinds[n]))) for n in names}
        h = Hparams({**point, **shapes}, names)
        return h if self.folds is None else with_fold(h, jax.ShapeDtypeStruct((), jnp.int32), self.folds)

    def shapes(self, point: Point, traced: Iterable[str]) -> ProgramShapes:
        """Returns what tracing shows of the program at ``point``, with the hyperparameters ``traced`` as tracers."""
        return trace_program(self.program, self.hparams(point, traced), self.train, self.valid)


def dtype(kind: Kind) -> Any:
    """Returns the dtype of a traced hyperparameter of that kind; that of a choice is its index's."""
    assert kind is not None, "only numbers can be traced"
    return float_type() if kind is float else jnp.bool_ if kind is bool else jnp.int32


def leaf(kind: Kind, array: Any) -> Any:
    """Returns the leaf of ``Hparams`` for a traced hyperparameter: the array, or a choice that the array indexes."""
    return Selected(array, kind.options) if isinstance(kind, Selection) else array


def numbers(kind: Kind, values: Sequence[Any]) -> Any:
    """Returns values of a traced hyperparameter as a leaf of ``Hparams`` of shape (values,)."""
    found = [kind.options.index(value) for value in values] if isinstance(kind, Selection) else values
    return leaf(kind, np.array(found, dtype(kind)))


def stack_hparams(kinds: Mapping[str, Kind], points: Sequence[Point], traced: Iterable[str]) -> Hparams:
    """Returns points of one group as one ``Hparams``, whose leaves have shape (points,)."""
    own = {n: numbers(kinds[n], [point[n] for point in points]) for n in traced if n in points[0]}
    return Hparams({**points[0], **own}, own)


def lane_hparams(kinds: Mapping[str, Kind], point: Point, traced: Iterable[str]) -> Hparams:
    """Returns one point as ``Hparams`` whose leaves have shape (), as the program of its lane reads it."""
    h: Hparams = jax.tree.map(lambda array: array[0], stack_hparams(kinds, [point], traced))
    return h


def kinds_of(space: Space) -> dict[str, Kind]:
    """Returns the kind of number that the values of each hyperparameter are, None where they are no numbers."""
    return {name: space.kind(name) for name in space.names}


def shapes_of(tree: Any) -> Any:
    """Returns the ``ShapeDtypeStruct``s of a pytree of arrays or numbers."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)


def judge(
    tracer: Tracer, space: Space, points: Mapping[int, Point]
) -> tuple[dict[str, Verdict], dict[int, ProgramShapes]]:
    """Returns a verdict for every hyperparameter, and what tracing shows of some trials.

    These are trials that need not be traced again: nothing was kept of their trace, and all verdicts stood by then.

    Args:
      tracer: the program and its data.
      space: the space.
      points: trial id to hyperparameters of one trial of each alternative of the space that has trials.

    Raises:
      InputError: a hyperparameter with ``traced=True`` cannot be traced.
      ProgramError: the program does not trace even with plain numbers.
    """
    verdicts = {name: _declared(space, name, tracer.kinds[name]) for name in space.names}
    found: dict[int, ProgramShapes] = {}
    for trial, point in points.items():
        while (shapes := resolve_traced(tracer, space, point, verdicts)) is None:
            found.clear()
        if not shapes.leaks:
            found[trial] = shapes
    return verdicts, found


def resolve_traced(tracer: Tracer, space: Space, point: Point, verdicts: dict[str, Verdict]) -> ProgramShapes | None:
    """Traces the program at ``point`` with the hyperparameters that ``verdicts`` calls traced.

    Returns:
      What tracing shows; None where a hyperparameter turned out to be static, which ``verdicts`` then says: call again.

    Raises:
      InputError, ProgramError: as for ``judge``.
    """
    candidates = [name for name in point if verdicts[name].traced]
    others = {name: value for name, value in point.items() if tracer.kinds[name] is None}
    # All at once first, which is one trace in the common case.
    try:
        return tracer.shapes(point, candidates)
    except Exception as error:
        if not candidates:
            raise with_user_lines(error, others) from None
    # Without tracers: an error here is a fault of the program, whatever is traced.
    try:
        tracer.shapes(point, ())
    except Exception as error:
        raise with_user_lines(error, others) from None
    # One more at a time, on top of those that work, so that the first failure names its hyperparameter.
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
                f"Leave {insists}=True out; each value then has a program of its own.",
            )
        verdicts[name] = Verdict(name, False, failure)
    return None


def with_user_lines(error: Exception, others: Point | None = None, when: str = "") -> Exception:
    """Returns an error of ours unchanged, and any other as a ``ProgramError`` with the lines of the user's code.

    Args:
      error: what the user's code raised.
      others: the hyperparameters that are no numbers, which a ``TypeError`` may be about.
      when: where it does not always fail, when it does, ending with a comma and a space.
    """
    if isinstance(error, InputError | ProgramError | UnknownHyperparameterError):
        return error
    what = user_code.first_line(error)
    if others and isinstance(error, TypeError):
        given = ", ".join(f"Space.{name} = {value!r}" for name, value in others.items())
        what += f"\n  Is a number meant? These hyperparameters are none: {given}."
    return ProgramError(when + failure_of(error, what))


def failure_of(error: Exception, what: str) -> str:
    """Returns which function of the user failed, the lines of the user's code that led there, and what it raised."""
    where = "".join(f"\n  {line}" for line in user_code.user_lines(error))
    return f"{name_of(error) or 'the program'} fails:{where}\n  {what}"


def _declared(space: Space, name: str, kind: Kind) -> Verdict:
    """Returns the verdict before anything was traced: static where the space says so, else traced."""
    if kind is None:
        return Verdict(name, False, "values are no numbers")
    if any(domain.static for domain in space.domains(name)):
        return Verdict(name, False, "static=True")
    if isinstance(kind, Selection):
        return Verdict(name, True, f"one program computes all {len(kind.options)} and selects")
    return Verdict(name, True, "one program serves all values")


def _failure(tracer: Tracer, point: Point, traced: Sequence[str], name: str) -> str | None:
    """Returns why the program cannot be traced with these as tracers, the newest being ``name``; None if it can."""
    with reading() as read:
        try:
            tracer.shapes(point, traced)
        except (InputError, ProgramError) as error:
            place = user_code.own_line(read.get(name))
            return f"{place}: {error}" if place else str(error)
        except Exception as error:
            # A library may fail long after the line of the user that gave it the hyperparameter, so the line that read
            # it is named as well.
            return user_code.model_line(error, read.get(name)) or user_code.first_line(error)
    return None
