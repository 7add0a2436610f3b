"""The errors that users see: each names the field, the value, what is allowed and the remedy."""

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any


class InputError(ValueError):
    """A value the user gave cannot be used; raised before anything compiles.

    Args:
      field: where the value stands, as the user wrote it (``Space.learning_rate``).
      value: what was found there; strings are shown as they are, all else by ``repr``.
      allowed: what may stand there, as a clause (``must be at least 1``).
      remedy: what to do, as a sentence.

    Example:
      >>> raise InputError("Sweep.trials", 0, "must be at least 1", "Ask for one trial or more.")
      Traceback (most recent call last):
      hpjax.core.errors.InputError: Sweep.trials = 0: must be at least 1. Ask for one trial or more.
    """

    def __init__(self, field: str, value: object, allowed: str, remedy: str) -> None:
        self.field, self.value, self.allowed, self.remedy = field, value, allowed, remedy
        super().__init__(f"{field} = {value!r}: {allowed}. {remedy}")


class ProgramError(RuntimeError):
    """The user's program does not trace, or gives something the engine cannot carry."""


class UnknownHyperparameterError(AttributeError):
    """``h.name`` where the trial has no such hyperparameter."""


class RunError(RuntimeError):
    """A run directory cannot be written, read, or continued as asked."""


# What only extras of pyproject.toml install, by the name that users know. hpjax itself may come from a folder, so that
# `pip install 'hpjax[plot]'` would find nothing.
REQUIREMENTS = {
    "click": "click>=8.1",
    "matplotlib": "matplotlib>=3.9",
    "optuna": "optuna>=4.0",
    "pandas": "pandas>=2.2",
    "safetensors": "safetensors>=0.8",
    "scikit-learn": "scikit-learn>=1.6",
}


def missing(what: str, package: str) -> ImportError:
    """Returns the error that says that a package is not installed, and the command that installs it.

    Args:
      what: what needs it, as the subject of a sentence.
      package: one of ``REQUIREMENTS``.

    Example:
      >>> raise missing("hpx.plot", "matplotlib")
      Traceback (most recent call last):
      ImportError: hpx.plot needs matplotlib: pip install 'matplotlib>=3.9'
    """
    return ImportError(f"{what} needs {package}: pip install '{REQUIREMENTS[package]}'")


def check_int(field: str, value: Any, least: int = 1, most: int = 2**31 - 1) -> int:
    """``value`` as an int; NumPy integers and whole floats will do.

    Raises:
      InputError: it is no whole number between ``least`` and ``most``.
    """
    try:
        number = int(value)
        fits = not isinstance(value, bool | str | bytes) and number == value and least <= number <= most
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        above = most < 2**31 - 1 or (isinstance(value, int) and value > most)
        allowed = f"must be a whole number, {least} or more" + (f", {most} at most" if above else "")
        raise InputError(field, value, allowed, "Give one.")
    return number


def check_float(field: str, value: Any, least: float, most: float = math.inf, remedy: str = "Give one.") -> float:
    """``value`` as a float.

    Raises:
      InputError: it is no finite number between ``least`` and ``most``.
    """
    try:
        number = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most):
        between = f"must lie between {least:g} and {most:g}"
        above = f"must be a number, {least:g} or more" if least > -math.inf else "must be a finite number"
        allowed = between if most < math.inf else above
        raise InputError(field, value, allowed, remedy)
    return number


def annotate_errors(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, whose own errors say that they came from ``name``."""

    def named(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            if not getattr(error, "__notes__", []):
                error.add_note(name)
            raise

    return named


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that suggests the known name nearest to ``name``, or lists them all."""
    names = [str(k) for k in known]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    listed = ", ".join(names) if names else "none"
    return f"Did you mean {near[0]!r}? There are: {listed}." if near else f"There are: {listed}."
