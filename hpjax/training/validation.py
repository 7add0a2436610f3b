"""Checks of the arguments of ``hpx.supervised``: data, batch sizes, and the hyperparameters of every trial."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.bounds import Check, collecting
from hpjax.core.errors import InputError, check_int
from hpjax.core.hparams import Hparams, unread
from hpjax.core.program import Data, TrialLength
from hpjax.data.examples import Examples, tidy_examples
from hpjax.data.stream import Stream, first_batch_of
from hpjax.training.trainer import Training


def check_settings(training: Training, trials: Sequence[tuple[Hparams, TrialLength]]) -> None:
    """Raises unless optimizer, schedules and early stopping accept the numbers of every trial; nothing compiles.

    Building an optimizer takes milliseconds, too long for thousands of trials. So trials that differ only in floats are
    checked together: their code is traced once, which collects its bounds, and the numbers are compared to these.

    Args:
      training: the program.
      trials: hyperparameters, whose values are numbers, and length of every trial.

    Raises:
      InputError: a number lies outside its range.
    """
    alike: dict[Any, list[tuple[Hparams, TrialLength]]] = {}
    for h, length in trials:
        key = tuple((name, None if isinstance(value, float) else repr(value)) for name, value in unread(h).items())
        alike.setdefault(key, []).append((h, length))
    for group in alike.values():
        checks = _traced_checks(training, unread(group[0][0])) if len(group) > 1 else None
        if checks is None:
            jax.eval_shape(partial(_check_each, training, group))
            continue
        for h, length in group:
            for name, check in checks:
                check.of(check.value if name is None else unread(h)[name], length.steps)


def _traced_checks(training: Training, h: Mapping[str, Any]) -> list[tuple[str | None, Check]] | None:
    """Returns the checks that the program makes while its floats are traced.

    Args:
      training: the program.
      h: the hyperparameters of one trial.

    Returns:
      For each check the name of the hyperparameter that it applies to, or None where it applies to a constant. None in
      place of the list where the code needs the numbers of its floats, or checks a value that it computes from them.
    """
    found: list[tuple[str | None, Check]] = []
    floats = [name for name, value in h.items() if isinstance(value, float)]

    def look(values: dict[str, Any]) -> None:
        names = {id(value): name for name, value in values.items()}
        with collecting() as checks:
            training.check(Hparams({**h, **values}, floats))
        for check in checks:
            if isinstance(check.value, jax.core.Tracer | int | float):
                found.append((names[id(check.value)] if isinstance(check.value, jax.core.Tracer) else None, check))

    try:
        jax.eval_shape(look, dict.fromkeys(floats, jax.ShapeDtypeStruct((), jnp.result_type(float))))
    except InputError:
        raise
    except Exception:  # the code decides by a number, or the KeyError of a check of a computed value
        return None
    return found


def _check_each(training: Training, trials: Sequence[tuple[Hparams, TrialLength]]) -> None:
    """Raises ``InputError`` unless the program accepts the numbers of each trial, one by one."""
    for h, length in trials:
        with collecting() as checks:
            training.check(h)
        for check in checks:
            if isinstance(check.value, int | float):
                check.of(check.value, length.steps)


def checked_data(data: Data) -> Data:
    """Returns ``data`` with every split checked, as ``Examples`` of float32, int32 or uint8.

    Raises:
      InputError: lengths differ, a value is not finite, a split is empty or has inputs of another shape.
    """
    splits: dict[str, Any] = {"test": None}
    for name in ("train", "valid", "test"):
        split = getattr(data, name)
        if split is None and name == "test":
            continue
        if isinstance(split, Stream):
            splits[name] = split
            continue
        if not isinstance(split, Examples):
            raise InputError(
                f"data.{name}", type(split).__name__, "must be Examples(x, y)", "Write hpx.data.Examples(x, y)."
            )
        splits[name] = checked = tidy_examples(f"data.{name}", split.x, split.y)
        shapes, first = (
            [a.shape[1:] for a in jax.tree.leaves((each.x, each.y))]
            for each in (checked, first_batch_of(splits["train"]))
        )
        if shapes != first:
            wanted = next((b for a, b in zip(shapes, first, strict=False) if a != b), first[0])
            allowed = f"must have the shapes {first} for each example, as train"
            remedy = f"Write .reshape({(-1, *wanted)}) behind the array that differs."
            raise InputError(f"data.{name}", shapes, allowed, remedy)
    return Data(**splits, name=data.name)


def check_batch_size(size: Any, examples: int) -> int:
    """Returns ``size`` as an int; raises ``InputError`` unless it lies between 1 and ``examples``."""
    number = check_int("batch_size", size)
    if number > examples:
        raise InputError(
            "batch_size",
            number,
            f"must be at most {examples}, the size of the training split",
            f"Write batch_size={examples} for full batches, or give more data.",
        )
    return number


def label_range(data: Data) -> tuple[int, int] | None:
    """Returns the lowest and the highest label of all splits, or None where targets are no array of integers."""
    ys = [split.y for split in (first_batch_of(data.train), data.valid, data.test) if split is not None]
    if not all(isinstance(y, np.ndarray) and np.issubdtype(y.dtype, np.integer) for y in ys):
        return None
    return min(int(y.min()) for y in ys), max(int(y.max()) for y in ys)
