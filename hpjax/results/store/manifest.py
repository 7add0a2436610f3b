"""The manifest of a run directory: what the run is, and where and with what it ran. Written and read."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from hpjax.core.errors import RunError
from hpjax.results.store.files import guard, write_text
from hpjax.results.store.validation import (
    Finite,
    Name,
    NonNegative,
    Positive,
    convert,
    damaged,
    parse_json,
    read_json,
    texts,
)

MANIFEST = "manifest.json"
FORMAT: Final = 2
# These fields may be printed to a terminal, and hold no character that steers it.
PRINTED = (
    "created",
    "versions",
    "devices.kind",
    "sweep.metrics",
    "sweep.space",
    "sweep.options",
    "sweep.objective",
    "sweep.settings",
)

Scale = Annotated[str, Meta(pattern=r"\A(linear|log|reverse log|category)\Z")]
Kernels = Annotated[str, Meta(pattern=r"\A(batched|xla)\Z")]
Numbers = Annotated[tuple[Positive, ...], Meta(min_length=1)]
Setting = bool | int | str | None
Shards = tuple[Annotated[str, Meta(pattern=r"\A[0-9]{1,9}/[0-9]{1,9}\Z")], ...]


class Devices(Struct, frozen=True, forbid_unknown_fields=True):
    """How many devices a run had, and of which kind."""

    count: Positive
    kind: str


class StudyRecord(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The study that a sweep answers.

    Attributes:
      kind: which study, such as ``"batch scaling"``.
      target: the value of the objective's metric that a trial must pass, None where there is none.
      over: the hyperparameter that the study varies.
      complete: how many complete trials of each value of ``over`` count; None for all.
      baseline: the value of ``over`` that the others are compared with, None where there is none.
    """

    kind: str
    target: Finite | None
    over: Name
    complete: Positive | None
    baseline: Name | None = None


class SweepRecord(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a sweep is: all that decides its bits. A directory refuses a sweep that differs in any field.

    Attributes:
      space: per alternative of the space, hyperparameter to its domain in words.
      names: the hyperparameters.
      ranges: per alternative, hyperparameter to (low, high, scale), for those that are numbers.
      options: per alternative, hyperparameter to its options in words, for those that have some.
      scales: hyperparameter to its scale.
      metrics: names of the metrics.
      trials: how many trials there are.
      shard: which shards of the sweep are in this directory, such as ``("1/4",)``; None for all.
      rounds: trials of each round.
      replicates: lanes of each trial; with folds, replicates times folds.
      folds: the number of folds of cross-validation, None without.
      sampler, scheduler: their types and settings; None without a scheduler.
      points: a digest of the trials' hyperparameters.
      objective: metric, direction and quantile.
      seed: the seed of the sweep.
      randomness: ``"shared"`` or ``"independent"``.
      width: for each group, how many lanes a device computes in parallel.
      kernels: for each group, the kernels of its convolutions: ``"batched"`` or ``"xla"``.
      devices_per_lane: how many devices share each lane.
      partition: how the devices of a lane share its state: ``"fsdp"``, or a digest of what names or a function said
        of each array; None where each device has all of it.
      padded: the groups that share a padded program, for each such program; in the order of the program's numbers.
      steps: the optimizer steps of each trial; a digest where trials differ.
      eval_every: all distances between evaluations, in calls of ``step``, that some group has.
      program: ``Program.describe``, as text.
      settings: the settings of JAX that decide bits, as ``jax.config`` has them.
      code, data: digests of the program and of each split; None for a run that is kept in memory.
      study: which study the sweep answers, None for none.
    """

    space: dict[str, dict[str, str]]
    names: tuple[Name, ...]
    ranges: tuple[dict[str, tuple[Finite, Finite, Scale]], ...]
    options: tuple[dict[str, tuple[str, ...]], ...]
    scales: dict[str, Scale]
    metrics: tuple[str, ...]
    trials: Positive
    shard: Shards | None
    rounds: Numbers
    replicates: Positive
    folds: Positive | None
    sampler: str
    points: str
    scheduler: str | None
    objective: tuple[str, Literal["minimize", "maximize"], Annotated[float, Meta(ge=0, le=1)] | None]
    seed: int
    randomness: Literal["shared", "independent"]
    width: Numbers
    kernels: Annotated[tuple[Kernels, ...], Meta(min_length=1)]
    steps: int | str
    eval_every: tuple[int, ...]
    program: dict[str, str]
    settings: dict[Annotated[str, Meta(pattern=r"\Ajax_[a-z0-9_]+\Z")], Setting]
    code: str | None = None
    data: dict[str, str] | None = None
    study: StudyRecord | None = None
    devices_per_lane: Positive = 1
    partition: str | None = None
    padded: tuple[Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(min_length=2)], ...] = ()


class ShardRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """When, how, and with what a shard ran that was merged."""

    shard: str
    created: str
    command: tuple[str, ...]
    versions: dict[str, str]
    devices: Devices


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a run says of itself.

    Attributes:
      format: the format of the run directory, ``FORMAT``.
      extended: how often the run was extended after it was finished.
      extended_by: the commands that extended it.
      created: when the run began, in UTC.
      command: the command that began it, program and arguments.
      versions: the versions of Python and of packages, and the flags of XLA.
      devices: the devices on which it ran.
      sweep: the sweep that ran.
      plan: the plan as lines of text.
      merged: how each shard ran; empty unless the run was merged from shards.
    """

    format: Literal[2]
    extended: NonNegative
    extended_by: tuple[tuple[str, ...], ...]
    created: str
    command: tuple[str, ...]
    versions: dict[str, str]
    devices: Devices
    sweep: SweepRecord
    plan: tuple[str, ...]
    merged: tuple[ShardRecord, ...] = ()


_command: ContextVar[Sequence[str] | None] = ContextVar("command", default=None)


@contextmanager
def recording_command(words: Sequence[str]) -> Iterator[None]:
    """Makes manifests that are written in its body record this command.

    Without it they record ``sys.argv``, which is another command where the command line runs within a program.
    """
    before = _command.set(words)
    try:
        yield
    finally:
        _command.reset(before)


class Origin(NamedTuple):
    """When and by which command a run directory is written.

    Attributes:
      created: the time in UTC, ISO 8601.
      command: program and arguments.
    """

    created: str
    command: tuple[str, ...]


def origin() -> Origin:
    """Returns the present time and the command that runs, for a manifest."""
    command, argv = _command.get(), sys.argv
    if command is None:
        command = [Path(argv[0]).name, *argv[1:]] if argv else []
    # Words that are no UTF-8, as names of files may be, reach Python with half surrogate pairs, which no file holds.
    words = (word.encode("utf-8", "backslashreplace").decode("utf-8") for word in command)
    return Origin(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), (*words,))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest of a run directory."""
    write_text(directory / MANIFEST, _text(manifest))


def _text(manifest: Manifest) -> str:
    """Returns a manifest as JSON."""
    return json.dumps(msgspec.to_builtins(manifest), indent=2) + "\n"


def check_readable(manifest: Manifest) -> None:
    """Raises unless a manifest can be read once it is written.

    Raises:
      RunError: it cannot; names the field.
    """
    _checked(MANIFEST, parse_json(MANIFEST, _text(manifest)))


def read_manifest(directory: Path) -> Manifest:
    """Returns the manifest of a run directory.

    Raises:
      RunError: there is none, or it is not what a run writes; names the field.
    """
    guard(directory)
    path = directory / MANIFEST
    try:
        found = read_json(path)
    except FileNotFoundError:
        raise RunError(
            f"{str(directory)!r} is no run directory: it has no {MANIFEST}. Name a folder that "
            "sweep.run(directory) or hpjax run --dir DIR wrote."
        ) from None
    return _checked(str(path), found)


def _checked(where: str, found: Any) -> Manifest:
    """Returns the manifest that a JSON value is.

    Raises:
      RunError: it is none, or its fields contradict each other; names the field.
    """
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise RunError(f"{where} is no manifest of format {FORMAT}. Read it with the hpjax that wrote it.")
    manifest = convert(where, found, Manifest)
    for name, allowed in _contradictions(manifest):
        raise damaged(where, name, attrgetter(name)(manifest), f"must {allowed}")
    return manifest


def _contradictions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yields fields that do not fit the others, and what each must be."""
    sweep = manifest.sweep
    for name in PRINTED:
        if not all(text.isprintable() for text in texts(attrgetter(name)(manifest))):
            yield name, "be printable"
    for field, names in (
        ("sweep.names", sweep.names),
        ("sweep.study.over", (sweep.study.over,) if sweep.study else ()),
    ):
        if not all(map(str.isidentifier, names)):
            yield field, "be an identifier of Python"
    for name in ("names", "metrics", "shard"):
        values = getattr(sweep, name) or ()
        if len(set(values)) < len(values):
            yield f"sweep.{name}", "have no doubles"
    if sweep.scales.keys() != {*sweep.names}:
        yield "sweep.scales", "have the names in sweep.names"
    for name in ("ranges", "options"):
        if len(getattr(sweep, name)) != len(sweep.space):
            yield f"sweep.{name}", "have the alternatives of sweep.space"
    if sum(sweep.rounds) != sweep.trials:
        yield "sweep.rounds", "add up to sweep.trials"
    if sweep.objective[0] not in sweep.metrics:
        yield "sweep.objective", "be one of sweep.metrics"


def recorded_manifest(path: Path) -> Manifest | None:
    """Returns the manifest in a directory, None where there is no run."""
    return read_manifest(path) if (path / MANIFEST).is_file() else None
