"""What rows of a run's database hold, and the checks of what SQLite's own rules cannot express."""

import json
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.core.recordable import INT64, MOST_LEVELS
from hpjax.results.store.validation import is_int


class Status(StrEnum):
    """The status of a lane, or of a trial; equal to its plain string.

    Attributes:
      RUNNING: it trains, or was interrupted.
      COMPLETE: it took all its steps, or reached what its program asks for.
      STOPPED: the scheduler stopped it.
      DIVERGED: a metric or a part of its state was not finite.
      FAILED: its group could not be compiled, or failed on the devices.
      OTHER_SHARD: another shard of the sweep trains it.
    """

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    FAILED = "failed"
    OTHER_SHARD = "other_shard"

    @property
    def text(self) -> str:
        """The status as a sentence has it, after a number of trials: ``"3 complete"``, ``"2 in other shards"``."""
        return "in other shards" if self is Status.OTHER_SHARD else self.value


# In the order of their numbers in checkpoints.
STATUSES = tuple(Status)
# Lanes that end so rank nowhere, and have no final state worth keeping.
LOST = (Status.DIVERGED, Status.FAILED)
# The type of NumPy arrays of them: plain strings.
STATUS_DTYPE = "<U11"
DTYPES = ("<i4", "<f4", "<f8")
# These arrays of an evaluation say which lane and step the values of the others are of.
OWNERS = ("trial", "replicate", "step")
# This array says when an evaluation was recorded, in seconds of the run without interruptions.
SECONDS = "seconds"

# This number stands for the wave of trials that another shard trains.
NO_WAVE = -1

DAMAGED = "It is damaged: restore it from a copy."


class Change(NamedTuple):
    """A lane whose status changed, and the step at which it did; read from a database, ``status`` is a plain string."""

    trial: int
    replicate: int
    status: str
    step: int


class Planned(NamedTuple):
    """A trial that was begun.

    Attributes:
      trial: the trial's id.
      round, group, wave: the numbers of its round, group and wave; wave is ``NO_WAVE`` where another shard trains it.
      width: how many lanes a device computes in parallel in its wave.
      hparams: name to value, as JSON has it.
    """

    trial: int
    round: int
    group: int
    wave: int
    width: int
    hparams: dict[str, Any]


def check_arrays(where: str, arrays: Mapping[str, Array], metrics: Collection[str], shape: tuple[int, int]) -> None:
    """Raises unless the arrays of one evaluation are of known metrics, trials and replicates.

    Args:
      where: the database, for the error.
      arrays: metric to values, (live lanes,); ``trial``, ``replicate``, ``step`` and ``seconds`` are among them.
      metrics: the names of the run's metrics.
      shape: trials and replicates.

    Raises:
      RunError: one is not.
    """
    unknown = arrays.keys() - {*OWNERS, SECONDS, *metrics}
    if unknown:
        raise RunError(f"{where}: values of {sorted(unknown)}, which is no metric of the run. {DAMAGED}")
    for name, most in zip(OWNERS, (*shape, 2**31), strict=True):
        values = arrays[name]
        if values.size and not (values.min() >= 0 and values.max() < most):
            raise RunError(f"{where}: an array of curves has {name} {values.max()} or {values.min()}. {DAMAGED}")


def hparams_of(text: str) -> dict[str, Any]:
    """Returns hyperparameters from their JSON.

    Raises:
      RunError: the JSON holds something that is no hyperparameter.
    """
    found = _object(text)
    # Most are floats, so that testing for these first makes large runs load faster.
    if not all(type(v) is float or _plain(v, MOST_LEVELS) for v in found.values()):
        raise RunError(f"the database has hyperparameters {text[:100]!r}, which no run writes. {DAMAGED}")
    return {name: _tuples(value) for name, value in found.items()}


def reason_of(text: str) -> str:
    """Returns the reason for which a trial failed; raises ``RunError`` where it holds what steers a terminal."""
    if not text.isprintable():
        raise RunError(f"the database has the reason {text[:100]!r}, which no run writes. {DAMAGED}")
    return text


def metrics_of(text: str) -> dict[str, float]:
    """Returns metrics on the test split from their JSON.

    Raises:
      RunError: the JSON holds something that is no such metric.
    """
    found = _object(text)
    for name, value in found.items():
        if not (name.startswith("test/") and name.isprintable() and (type(value) is float or is_int(value))):
            raise RunError(f"the database has metrics {text[:100]!r}, which no run writes. {DAMAGED}")
    return {name: float(value) for name, value in found.items()}


def _object(text: str) -> dict[str, Any]:
    """Returns a JSON object as a dict; raises ``RunError`` where the text is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RunError(f"the database has {text[:100]!r} where a JSON object must be. {DAMAGED}")
    return found


def _plain(value: Any, levels: int) -> bool:
    """Returns whether a JSON value holds numbers, strings, booleans and null, and lists of them ``levels`` deep."""
    if isinstance(value, list):
        return levels > 0 and all(_plain(each, levels - 1) for each in value)
    return value is None or type(value) in (bool, float, str) or (type(value) is int and value in INT64)


def _tuples(value: Any) -> Any:
    """Returns a value with tuples for lists: JSON has no tuples, and hyperparameters are never lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
