"""Checks of what ``hpx.supervised`` is given: data, batch sizes, and the numbers of every trial."""

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


def _check_settings(training: Training, trials: Sequence[tuple[Hparams, TrialLength]]) -> None:
    """What optimizers, schedules and early stopping say of the numbers of every trial; nothing compiles."""
    alike: dict[Any, list[tuple[Hparams, TrialLength]]] = {}
    for h, schedule in trials:
        # Real numbers apart, which do not decide what the code does, unless it fails without knowing them.
        key = tuple((name, None if isinstance(value, float) else repr(value)) for name, value in unread(h).items())
        alike.setdefault(key, []).append((h, schedule))
    for group in alike.values():
        asked = _asked(training, unread(group[0][0])) if len(group) > 1 else None
        if asked is None:
            jax.eval_shape(partial(_check_each, training, group))
            continue
        for h, schedule in group:
            for name, check in asked:
                check.of(check.value if name is None else unread(h)[name], schedule.steps)


def _asked(training: Training, h: Mapping[str, Any]) -> list[tuple[str | None, Check]] | None:
    """The checks that the code asks for, with the name of the real hyperparameter or None for a number; None where it
    needs to know their numbers, or computes with them.
    """
    found: list[tuple[str | None, Check]] = []
    real = [name for name, value in h.items() if isinstance(value, float)]

    def look(values: dict[str, Any]) -> None:
        names = {id(value): name for name, value in values.items()}
        with collecting() as asked:
            training.check(Hparams({**h, **values}, real))
        for check in asked:
            if isinstance(check.value, jax.core.Tracer | int | float):
                found.append((names[id(check.value)] if isinstance(check.value, jax.core.Tracer) else None, check))

    try:
        jax.eval_shape(look, dict.fromkeys(real, jax.ShapeDtypeStruct((), jnp.result_type(float))))
    except InputError:
        raise
    except Exception:  # a number that is needed, or a check of one that is computed
        return None
    return found


def _check_each(training: Training, trials: Sequence[tuple[Hparams, TrialLength]]) -> None:
    for h, schedule in trials:
        with collecting() as asked:
            training.check(h)
        for check in asked:
            if isinstance(check.value, int | float):
                check.of(check.value, schedule.steps)


def _checked(data: Data) -> Data:
    """``data`` with every split checked.

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
                f"data.{name}", type(split).__name__, "must be Examples(x, y)", "Use hpx.data.from_arrays."
            )
        splits[name] = checked = tidy_examples(f"data.{name}", split.x, split.y)
        shapes, first = (
            [a.shape[1:] for a in jax.tree.leaves((each.x, each.y))]
            for each in (checked, first_batch_of(splits["train"]))
        )
        if shapes != first:
            raise InputError(
                f"data.{name}", shapes, f"must have the shapes {first} an example, as train", "Reshape it."
            )
    return Data(**splits, name=data.name)


def _check_batch_size(size: Any, examples: int) -> int:
    number = check_int("batch_size", size)
    if number > examples:
        raise InputError(
            "batch_size",
            number,
            f"must be at most {examples}, the size of the training split",
            f"Use {examples} for full batches, or more data.",
        )
    return number


def _label_range(data: Data) -> tuple[int, int] | None:
    """(lowest, highest) integer label of all splits, or None where targets are no array of integers."""
    ys = [split.y for split in (first_batch_of(data.train), data.valid, data.test) if split is not None]
    if not all(isinstance(y, np.ndarray) and np.issubdtype(y.dtype, np.integer) for y in ys):
        return None
    return min(int(y.min()) for y in ys), max(int(y.max()) for y in ys)
