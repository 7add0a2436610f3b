"""What all studies share: a question plans and runs its sweep, and its answer prints and draws itself."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

from hpjax.core import html
from hpjax.core.errors import InputError
from hpjax.core.objective import Objective
from hpjax.core.program import Program
from hpjax.core.space import Space
from hpjax.results import picture_file
from hpjax.results.result import Result
from hpjax.results.style import Width
from hpjax.samplers import Sampler
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.sweep import Sweep

Answer = TypeVar("Answer")

# What arguments of studies are, and what to type.
KINDS: dict[str, tuple[type, str]] = {
    "program": (Program, "program=hpx.supervised(...)"),
    "space": (Space, "space=hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1))"),
    "objective": (Objective, 'objective=hpx.minimize("valid/loss")'),
    "sampler": (Sampler, "sampler=hpx.Sobol()"),
}


class Study(ABC, Generic[Answer]):
    """A question that one sweep answers: the base class of studies, also of your own.

    A subclass is a frozen dataclass of what is asked. It has ``sweep``, best as a ``functools.cached_property``, and
    ``read``, which makes the answer of a result alone.
    """

    @property
    @abstractmethod
    def sweep(self) -> Sweep:
        """The sweep that finds the answer, for all else that a sweep can do, such as ``replay`` and the command line.

        A file for ``hpjax run`` has the line ``sweep = study.sweep``, and ``study.read(result)`` reads the result.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: the program cannot run, or does not read what is asked.
        """

    @abstractmethod
    def read(self, result: Result) -> Answer:
        """Returns the answer that a result gives, of a sweep that this study made.

        Args:
          result: the result of ``study.sweep.run()`` or ``hpx.load(directory)``.

        Raises:
          InputError: the result is of another kind.
        """

    def plan(self) -> Plan:
        """Returns what the study will do: groups, widths, devices, memory, time; nothing compiles.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: as ``sweep`` does.
        """
        return self.sweep.plan()

    def run(self, directory: str | Path | None = None, *, progress: bool = True) -> Answer:
        """Trains every trial, and returns the answer.

        Args:
          directory: where the run is recorded; None keeps all in memory. An interrupted run of this study continues
            from its last checkpoint; a finished one is read, and nothing trains.
          progress: whether to show progress on standard error.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: as ``sweep`` does.
          RunError: the directory holds something else, or cannot be written.
        """
        return self.read(self.sweep.run(directory, progress=progress))


def check_kinds(study: Study[Any], *names: str) -> None:
    """Raises ``InputError`` unless arguments of a study, each one of ``KINDS``, are of their types."""
    for name in names:
        value, (kind, write) = getattr(study, name), KINDS[name]
        if not isinstance(value, kind):
            allowed = f"must be of type {kind.__name__}"
            raise InputError(f"{type(study).__name__}.{name}", value, allowed, f"Write {write}.")


def names_read(sweep: Sweep) -> set[str]:
    """Returns the hyperparameters that the program of a sweep reads."""
    return {name for shapes in sweep.plan().shapes for name in shapes.reads}


class StudyResult(ABC):
    """The answer of a study: the base class of answers, also of your own. ``print`` it; a notebook shows its report.

    A subclass has ``report`` and ``figure``.
    """

    @abstractmethod
    def report(self) -> str:
        """Returns the answer as text, with what to doubt of it."""

    @abstractmethod
    def figure(self, width: Width) -> Any:
        """Returns the answer as a ``matplotlib`` figure of one or two columns; raises as ``plot`` does."""

    def plot(self, path: str | Path | None = None, width: Width = "double") -> Any:
        """Draws the answer; ``hpx.studies.plot`` has what its panels show.

        Args:
          path: where to save the picture, if anywhere.
          width: that of the figure: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

        Returns:
          The ``matplotlib`` figure.

        Raises:
          ImportError: matplotlib is missing; the message says how to install it.
          InputError: there is no such width, or matplotlib knows no such format of pictures.
          RunError: the picture cannot be written.
        """
        figure = self.figure(width)
        if path is not None:
            picture_file.save(figure, path)
        return figure

    def __str__(self) -> str:
        return self.report()

    def _repr_html_(self) -> str:
        return html.text(self.report())
