"""Arguments and options that several commands have, and what these read of a run."""

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpjax.core.errors import InputError

if TYPE_CHECKING:
    from hpjax.results.result import Result
    from hpjax.results.trial import Trial
    from hpjax.studies.recorded import Answer


def combined(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns one decorator that adds several options or arguments, in their order."""
    return lambda command: reduce(lambda done, option: option(done), reversed(options), command)


directory_argument = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
top_option = click.option(
    "--top", type=click.IntRange(1), default=10, show_default=True, help="How many of the best trials to print."
)


def answer_of(result: "Result") -> "Answer | None":
    """Returns the answer of the study that a result belongs to, None if it belongs to none."""
    if result.manifest.sweep.study is None:
        return None  # without the import below, which loads JAX and takes a second
    from hpjax.studies.recorded import recorded_answer

    return recorded_answer(result)


def trial_of(result: "Result", directory: Path, id: int | None) -> "Trial":
    """Returns the trial that ``--trial`` names, the best one where it is left out."""
    if id is None:
        return result.best
    try:
        return result[id]
    except InputError as error:
        raise InputError("--trial", id, error.allowed, f"Look up its id: hpjax show {directory}.") from None
