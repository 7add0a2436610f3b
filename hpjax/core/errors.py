"""The errors that users see: each names the field, the value, what is allowed and what to type instead."""

import difflib
import math
import pickle
from collections.abc import Callable, Iterable
from typing import Any

from hpjax.core.format import show


class InputError(ValueError):
    """A value that the user gave and that cannot be used; raised before anything compiles.

    Args:
      field: the argument as the user wrote it, ``Space.learning_rate``.
      value: the value that was given; the message shows its ``repr``.
      allowed: which values are allowed, as a clause: ``must be at least 1``.
      remedy: what to type instead, as a sentence: ``Write trials=1.``

    It pickles whatever the value is; where the value itself does not, the copy holds its ``repr``.

    Example:
      >>> raise InputError("Sweep.trials", 0, "must be at least 1", "Write trials=1.")
      Traceback (most recent call last):
      hpjax.core.errors.InputError: Sweep.trials = 0: must be at least 1. Write trials=1.
    """

    def __init__(self, field: str, value: object, allowed: str, remedy: str) -> None:
        self.field, self.value, self.allowed, self.remedy = field, value, allowed, remedy
        super().__init__(f"{field} = {_repr(value)}: {allowed}. {remedy}")

    def __reduce__(self) -> Any:
        return _restored, (type(self), str(self), vars(self) | {"value": _picklable(self.value)})


def _restored(kind: type[InputError], message: str, attributes: dict[str, Any]) -> InputError:
    """Returns a pickled error; its message is kept, since the ``repr`` of the value may be another here."""
    error = kind.__new__(kind, message)
    vars(error).update(attributes)
    return error


def _repr(value: object) -> str:
    """Returns the ``repr`` of a value, or its type where it has none, as integers of more than 4,300 digits."""
    try:
        return repr(value)
    except Exception:  # whatever the methods of the user's classes raise
        return f"<{type(value).__name__}>"


def _picklable(value: Any) -> Any:
    """Returns a value, or its ``repr`` where the value cannot be pickled or read back: a function, a tracer."""
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # whatever the methods of the user's classes raise
        return _repr(value)
    return value


class ProgramError(RuntimeError):
    """The user's program cannot be traced, or returns something that the engine cannot carry from step to step."""


class UnknownHyperparameterError(AttributeError):
    """A function read ``h.name``, and the trial has no hyperparameter of that name."""


class RunError(RuntimeError):
    """A run directory that cannot be written, read, or continued as asked."""


# What only extras of pyproject.toml install, by the name that users know. hpjax itself may come from a folder, so that
# `pip install 'hpjax[plot]'` would find nothing.
REQUIREMENTS = {
    "click": "click>=8.2.1",
    "equinox": "equinox>=0.13.2",
    "matplotlib": "matplotlib>=3.10.7",
    "mlflow": "mlflow>=3",
    "optuna": "optuna>=4.0",
    "pandas": "pandas>=2.2",
    "plotly": "plotly>=6",
    "safetensors": "safetensors>=0.8",
    "scikit-learn": "scikit-learn>=1.6",
    "tensorboard": "tensorboard>=2.20",
    "wandb": "wandb>=0.22",
}


def missing(what: str, package: str) -> ImportError:
    """Returns the error that says that a package is not installed, and the command that installs it.

    Args:
      what: what needs it, as the subject of a sentence.
      package: one of ``REQUIREMENTS``.

    Example:
      >>> raise missing("hpx.plot", "matplotlib")
      Traceback (most recent call last):
      ImportError: hpx.plot needs matplotlib: pip install 'matplotlib>=3.10.7'
    """
    return ImportError(f"{what} needs {package}: pip install '{REQUIREMENTS[package]}'")


def check_int(field: str, value: Any, least: int = 1, most: int = 2**31 - 1) -> int:
    """Returns ``value`` as an int; NumPy integers and floats without a fraction are accepted.

    Args:
      field: the argument as the user wrote it, ``Sweep.trials``.
      value: the value that was given.
      least, most: the bounds, both inclusive.

    Raises:
      InputError: the value is no whole number between ``least`` and ``most``.
    """
    try:
        number = int(value)
        fits = not _is_no_number(value) and number == value and least <= number <= most
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        above = most < 2**31 - 1 or (isinstance(value, int) and value > most)
        allowed = f"must be a whole number, {least} or more" + (f", {most} at most" if above else "")
        raise InputError(field, value, allowed, _write(field, int(_nearest(value, least, most))))
    return number


def check_float(field: str, value: Any, least: float, most: float = math.inf, remedy: str | None = None) -> float:
    """Returns ``value`` as a float.

    Args:
      field: the argument as the user wrote it, ``EarlyStop.min_delta``.
      value: the value that was given.
      least, most: the bounds, both inclusive.
      remedy: what to type instead, as a sentence; by default the allowed number nearest to ``value``.

    Raises:
      InputError: the value is no finite number between ``least`` and ``most``.
    """
    number = _number(value)
    if not (math.isfinite(number) and least <= number <= most):
        between = f"must lie between {least:g} and {most:g}"
        above = f"must be a number, {least:g} or more" if least > -math.inf else "must be a finite number"
        allowed = between if most < math.inf else above
        raise InputError(field, value, allowed, remedy or _write(field, _nearest(value, least, most)))
    return number


def _is_no_number(value: Any) -> bool:
    """Returns whether a value is a text or a bool, which Python would turn into a number."""
    return isinstance(value, bool | str | bytes) or str(getattr(value, "dtype", "")) == "bool"


def _number(value: Any) -> float:
    """Returns ``value`` as a float, or NaN where it is no number."""
    try:
        return math.nan if _is_no_number(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _nearest(value: Any, least: float, most: float) -> float:
    """Returns the number between ``least`` and ``most`` that is nearest to ``value``, or to 0 where it is no number."""
    number = _number(value)
    return min(max(number if math.isfinite(number) else 0, least), most)


def _write(field: str, number: float) -> str:
    return f"Write {field.rpartition('.')[2]}={show(number)}."


def annotate_errors(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps ``function`` so that an error it raises carries ``name`` as a note, unless a function within named it."""

    def named(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            if name_of(error) is None:
                error.add_note(name)
            raise

    return named


def name_of(error: BaseException) -> str | None:
    """Returns the name of the function that raised an error, as ``annotate_errors`` noted it, or None."""
    return next(iter(notes_of(error)), None)


def notes_of(error: BaseException) -> list[str]:
    """Returns the notes of an error without JAX's own, of what it leaves out of the traceback, below a line."""
    return [note for note in getattr(error, "__notes__", []) if not note.startswith("---")]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a sentence that lists the known names, after the one nearest to ``name`` where one is near."""
    names = [str(k) for k in known]
    near = nearest(name, names)
    listed = ", ".join(names) if names else "none"
    return f"There are: {listed}." if near is None else f"Did you mean {near!r}? There are: {listed}."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is nearest to ``name``, None where none is near."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None)
