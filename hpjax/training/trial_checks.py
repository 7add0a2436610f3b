"""Checks of the hyperparameters of every trial of a supervised program, before anything compiles."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.arrays import ceil_div
from hpjax.core.bounds import Check, collecting
from hpjax.core.errors import InputError
from hpjax.core.hparams import Hparams, unread
from hpjax.core.program import Data, TrialLength
from hpjax.data.batches import check_poolable
from hpjax.data.examples import examples_in
from hpjax.training.monitors import MONITORS, OF_PARTS
from hpjax.training.ramp import check_ramp
from hpjax.training.trainer import Training
from hpjax.training.validation import check_batch_size


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
                check.of(check.value if name is None else unread(h)[name], _steps(training, length))


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
                check.of(check.value, _steps(training, length))


def _steps(training: Training, length: TrialLength) -> int | None:
    """Returns the optimizer steps of a trial, None where its schedule has had unknown ones before."""
    return length.steps if training.start is None else None


def check_trials(training: Training, data: Data, trials: Sequence[tuple[Hparams, TrialLength]]) -> None:
    """Raises unless a training can run with the hyperparameters of these trials."""
    if training.batching.batch_size is not None:
        _validate_sizes(training, data, trials, training.batching.batch_size)
    check_settings(training, trials)


def _validate_sizes(
    training: Training,
    data: Data,
    trials: Sequence[tuple[Hparams, TrialLength]],
    batch_size: Callable[[Hparams], Any],
) -> None:
    """Raises unless the data has as many examples as each batch, and the microbatch fits the batches."""
    folds = next((h.folds for h, _ in trials if "folds" in h), None)
    most, microbatch = training.examples, training.batching.microbatch
    if folds is not None:
        check_poolable(data)
        pooled = training.examples + examples_in(data.valid)
        most = pooled - ceil_div(pooled, folds)
    least = 2 if OF_PARTS in training.monitors else 1
    changing = [(batch_size(h), length.steps) for h, length in trials if callable(batch_size(h))]
    for ramp, calls in changing:
        check_ramp(ramp, calls, microbatch, most, least)
    whole = [name for name in training.monitors if name in MONITORS]
    if changing and whole:
        allowed = "is of whole batches, which end where evaluations do not if their size changes"
        raise InputError("supervised.monitor", whole[0], allowed, f"Remove {whole[0]!r}.")
    if changing and training.train_metrics_every not in (1, None):
        remedy = "Write train_metrics_every=1, or None."
        allowed = "cannot count batches whose size changes"
        raise InputError("supervised.train_metrics_every", training.train_metrics_every, allowed, remedy)
    trials = [(h, length) for h, length in trials if not callable(batch_size(h))]
    if not trials:
        return
    sizes = {check_batch_size(batch_size(h), most) for h, _ in trials}
    if microbatch is not None and all(size % microbatch for size in sizes):
        raise InputError(
            "supervised.microbatch",
            microbatch,
            f"divides no batch size; there are {', '.join(map(str, sorted(sizes)))}",
            f"Write microbatch={math.gcd(*sizes)}.",
        )
    if OF_PARTS in training.monitors and microbatch is not None and min(sizes) <= microbatch:
        allowed = f"cannot tell noise from gradient where a batch, of {min(sizes)} examples, is one microbatch"
        raise InputError("supervised.monitor", OF_PARTS, allowed, f"Write microbatch={max(min(sizes) // 2, 1)}.")
    for h, length in trials:
        size = int(batch_size(h))
        if (length.steps + 1) * size >= 2**32:  # positions in the sequence of epochs are uint32
            remedy = f"Write steps={2**32 // size - 2}."
            raise InputError("steps × batch_size", length.steps * size, "must stay below 2**32", remedy)
