"""The batch sizes that a study compares."""

from collections.abc import Sequence
from typing import Any

from hpjax.core.errors import InputError, check_int
from hpjax.core.program import Program
from hpjax.data.examples import AnyExamples, examples_in
from hpjax.data.windows import Windows


def checked_batch_sizes(study: str, batch_sizes: Any, program: Program, least: int = 1) -> tuple[int, ...]:
    """Returns batch sizes, ascending and each once.

    Args:
      study: the name of the study.
      batch_sizes: as they were given to it.
      program: its program.
      least: how many there must be.

    Raises:
      InputError: they are no whole numbers, too few, or more than the examples of the training split.
    """
    field, remedy = f"{study}.batch_sizes", "Write batch_sizes=[16, 64, 256]."
    if not isinstance(batch_sizes, Sequence | set | frozenset | range) or isinstance(batch_sizes, str):
        raise InputError(field, batch_sizes, "must be a list", remedy)
    sizes = sorted({check_int(field, size) for size in batch_sizes})
    if len(sizes) < least:
        allowed = "must not be empty" if least == 1 else f"must be {least} or more, to compare them"
        raise InputError(field, batch_sizes, allowed, remedy)
    train = program.splits[0]
    # Of arrays that are no Examples only the program knows how many examples they hold.
    if isinstance(train, AnyExamples | Windows) and sizes[-1] > examples_in(train):
        allowed = f"must be at most {examples_in(train):,}, the examples of the training split"
        raise InputError(
            field, sizes[-1], allowed, f"Leave {sizes[-1]} out, or train on {sizes[-1]:,} examples or more."
        )
    return tuple(sizes)
